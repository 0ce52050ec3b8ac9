"""`docs/asyncapi.json` and `docs/openapi.json`, generated: `python -m haulcast.transport.specs docs/` writes them.

1. Requests come from `wire`, replies and frames from `outgoing`, routes from `http.ROUTES`, roles from
   `handlers.HANDLERS`, codes from `errors.ERRORS`. Nothing is described here a second time.
2. AsyncAPI 3.0 for the WebSocket, from the server's point of view: it receives requests and sends replies and topics.
   OpenAPI 3.1 for REST.
3. The schemas are JSON Schema as both formats understand it: OpenAPI 3.1 has 2020-12, AsyncAPI draft 7, which knows
   no `prefixItems` and no keywords beside a `$ref`.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from haulcast import __version__
from haulcast.errors import ERRORS
from haulcast.ports import Role

from . import outgoing, wire
from .handlers import HANDLERS, LOGGED
from .http import ROUTES, Route
from .http_edge import IDEMPOTENCY_KEY
from .session import Limits
from .websocket import SUBPROTOCOL

Schema: TypeAlias = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_LICENSE = {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
_ABOUT = "Realtime dispatch. docs/protocol.md tells it in full, with examples."
_TOKEN = "A JWT with `sub`, `tenant`, `role` and `exp`."


def asyncapi() -> Schema:
    """The WebSocket protocol."""
    structs: list[type[Struct]] = [
        *wire.REQUESTS.values(),
        *outgoing.SNAPSHOTS.values(),
        outgoing.Error,
        outgoing.Patch,
        outgoing.Announced,
    ]
    structs += [outgoing.REPLIES[request] for request in wire.REQUESTS.values() if request in outgoing.REPLIES]
    structs += [data for events in outgoing.EVENTS.values() for data in events.values()]
    messages = {
        **{name: _request_message(name, struct) for name, struct in wire.REQUESTS.items()},
        **{
            _reply_name(name): _reply_message(name, outgoing.REPLIES[struct])
            for name, struct in wire.REQUESTS.items()
            if struct in outgoing.REPLIES
        },
        "error": _error_message(),
        **{f"snapshot.{kind}": _snapshot_message(kind, data) for kind, data in outgoing.SNAPSHOTS.items()},
        "delta": _delta_message(),
        **{
            f"event.{kind}.{event}": _event_message(kind, event, data)
            for kind, events in outgoing.EVENTS.items()
            for event, data in events.items()
        },
        "announcement": _announcement_message(),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "haulcast over WebSocket",
            "version": __version__,
            "description": _ABOUT,
            "license": _LICENSE,
        },
        "defaultContentType": "application/json",
        "servers": {"development": {"host": "127.0.0.1:8080", "protocol": "ws", "description": "haulcast serve"}},
        "channels": {
            "connection": {
                "address": "/v1/ws",
                "title": "One client's connection",
                "description": (
                    f"Subprotocol `{SUBPROTOCOL}`, JSON text frames of at most {Limits().max_frame_bytes} bytes. The "
                    "first is `hello`."
                ),
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": {
            **{name: _request_operation(name, struct) for name, struct in wire.REQUESTS.items()},
            "topics": {
                "action": "send",
                "channel": {"$ref": "#/channels/connection"},
                "summary": "What happens on the topics that the connection is subscribed to",
                "messages": _channel_refs(
                    name for name in messages if name.startswith(("snapshot.", "delta", "event."))
                ),
            },
            "announcements": {
                "action": "send",
                "channel": {"$ref": "#/channels/connection"},
                "summary": "What operators announce to the user's role; right after hello what is still valid",
                "messages": _channel_refs(["announcement"]),
            },
        },
        "components": {"messages": messages, "schemas": _components(structs)},
    }


def openapi() -> Schema:
    """The REST calls."""
    structs: list[type[Struct]] = [outgoing.ErrorBody]
    for route in ROUTES:
        structs += [route.request, outgoing.REPLIES[route.request]]
    components = _components(structs)
    paths: dict[str, Schema] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _rest_operation(route, components)
    for path, summary, statuses in _OPERATORS_PATHS:
        paths[path] = {"get": _operators_operation(path, summary, statuses)}
    # Requests are described where they are used: what the path gives is not part of the body.
    for request in {route.request for route in ROUTES}:
        del components[request.__name__]
    return {
        "openapi": "3.1.0",
        "info": {"title": "haulcast over REST", "version": __version__, "description": _ABOUT, "license": _LICENSE},
        "servers": [{"url": "http://127.0.0.1:8080", "description": "haulcast serve"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": _TOKEN}
            },
        },
    }


FILES: Mapping[str, Callable[[], Schema]] = {"asyncapi.json": asyncapi, "openapi.json": openapi}


def render(specification: Schema) -> str:
    """As it is written into its file."""
    return json.dumps(specification, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write both files into the folder that is named."""
    if len(arguments) != 1:
        print("usage: python -m haulcast.transport.specs FOLDER", file=sys.stderr)
        return 2
    for name, make in FILES.items():
        Path(arguments[0], name).write_text(render(make()), encoding="utf-8")
    return 0


# --- WebSocket -------------------------------------------------------------------------------------------------------


def _request_operation(name: str, struct: type[wire.Request]) -> Schema:
    reply = [_reply_name(name)] if struct in outgoing.REPLIES else []
    return {
        "action": "receive",
        "channel": {"$ref": "#/channels/connection"},
        "summary": _summary(struct),
        "description": _who(struct),
        "messages": _channel_refs([name]),
        "reply": {"channel": {"$ref": "#/channels/connection"}, "messages": _channel_refs([*reply, "error"])},
    }


def _request_message(name: str, struct: type[wire.Request]) -> Schema:
    required = ["type", "data"] if struct is wire.Ack else ["id", "type", "data"]
    payload = {
        "type": "object",
        "required": required,
        "properties": {
            "id": msgspec.json.schema(wire.RequestId),
            "type": {"const": name},
            "data": _ref(struct),
        },
    }
    return _message(name, _summary(struct), payload)


def _reply_message(name: str, data: type[Struct]) -> Schema:
    payload = _object({"re": {"type": "string"}, "ok": {"const": True}, "data": _ref(data)})
    return _message(f"reply to {name}", f"`{name}` was carried out", payload)


def _error_message() -> Schema:
    properties = {"re": {"type": ["string", "null"]}, "ok": {"const": False}, "error": _ref(outgoing.Error)}
    return _message("error", "A request was not carried out", _object(properties))


def _snapshot_message(kind: str, data: type[Struct]) -> Schema:
    payload = _topic_frame("snapshot", kind, {"data": _ref(data)})
    return _message(f"snapshot of {kind}:…", "The whole content of a topic: replaces what the client had", payload)


def _delta_message() -> Schema:
    payload = _topic_frame("delta", "", {"from": _version(), "data": _ref(outgoing.Patch)})
    return _message("delta", "What changed in a topic since the version `from`", payload)


def _event_message(kind: str, event: str, data: type[Struct]) -> Schema:
    payload = _topic_frame("event", kind, {"event": {"const": event}, "data": _ref(data)})
    return _message(f"{event} on {kind}:…", _summary(data), payload)


def _announcement_message() -> Schema:
    properties = {
        "type": {"const": "announcement"},
        "server_time": msgspec.json.schema(outgoing.Time),
        "data": _ref(outgoing.Announced),
    }
    return _message("announcement", _summary(outgoing.Announced), _object(properties))


def _topic_frame(frame: str, kind: str, more: Schema) -> Schema:
    topic: Schema = {"type": "string", "pattern": f"^{kind}:"} if kind else {"type": "string"}
    return _object(
        {
            "type": {"const": frame},
            "topic": topic,
            "version": _version(),
            "server_time": msgspec.json.schema(outgoing.Time),
            **more,
        }
    )


def _version() -> Schema:
    return {"description": "epoch and seq", **_plain(msgspec.json.schema(wire.Version))}


def _message(name: str, summary: str, payload: Schema) -> Schema:
    return {"name": name, "summary": summary, "payload": payload}


def _reply_name(request_type: str) -> str:
    return f"{request_type}.reply"


def _channel_refs(names: Iterable[str]) -> list[Schema]:
    return [{"$ref": f"#/channels/connection/messages/{name}"} for name in names]


# --- REST ------------------------------------------------------------------------------------------------------------

_OPERATORS_PATHS: Sequence[tuple[str, str, Mapping[int, str]]] = (
    ("/health/live", "Whether the process should be left running", {200: "Yes.", 503: "No."}),
    ("/health/ready", "Whether it should be sent clients", {200: "Yes.", 503: "No."}),
    ("/health/detailed", "How each part is", {200: "For people and dashboards."}),
    ("/metrics", "Metrics, for Prometheus", {200: "In Prometheus' text format."}),
)


_MEANINGS: Mapping[int, str] = {
    202: "It holds, and some live node has not answered in time: `complete` is false, and `nodes` says which."
}
"""What a status says beside what the reply is."""


def _rest_operation(route: Route, components: Mapping[str, Schema]) -> Schema:
    in_path = re.findall(r"{(\w+)}", route.path)
    request = components[route.request.__name__]
    properties: Schema = request["properties"]
    parameters = [{"name": name, "in": "path", "required": True, "schema": properties[name]} for name in in_path]
    others = {name: schema for name, schema in properties.items() if name not in in_path}
    if route.method == "GET":
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in others.items()]
    if route.tagged:
        parameters.append({"name": "If-None-Match", "in": "header", "schema": {"type": "string"}})
    if route.method != "GET":
        parameters.append(_idempotency_key(route.request))
    operation: Schema = {
        "operationId": wire.TYPE_OF[route.request],
        "summary": _summary(route.request),
        "description": _who(route.request),
        "parameters": parameters,
    }
    if others and route.method != "GET":
        required = [name for name in request.get("required", ()) if name in others]
        schema = {"type": "object", "properties": others, **({"required": required} if required else {})}
        operation["requestBody"] = {"required": bool(required), "content": {"application/json": {"schema": schema}}}
    reply = outgoing.REPLIES[route.request]
    operation["responses"] = {
        **{
            str(status): {
                "description": _MEANINGS.get(status, _summary(reply)),
                "content": {"application/json": {"schema": _ref(reply)}},
            }
            for status in sorted({route.status({"created": fully, "complete": fully}) for fully in (False, True)})
        },
        **({"304": {"description": "As it was when the ETag was given."}} if route.tagged else {}),
        "default": {
            "description": "An error; `code` says which.",
            "content": {"application/json": {"schema": _ref(outgoing.ErrorBody)}},
        },
    }
    return operation


def _idempotency_key(request: type[wire.Request]) -> Schema:
    for_good = request in LOGGED and HANDLERS[request][0] <= {Role.OPERATOR, Role.ADMIN}
    kept = "" if for_good else " within 24 hours"
    return {
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "required": request in LOGGED,
        "description": f"The request's id: sent again{kept}, it gets the same answer and does nothing twice.",
        "schema": msgspec.json.schema(wire.RequestId),
    }


def _operators_operation(path: str, summary: str, statuses: Mapping[int, str]) -> Schema:
    media = "text/plain" if path == "/metrics" else "application/json"
    schema = {"type": "string"} if path == "/metrics" else {"type": "object"}
    return {
        "operationId": path.strip("/").replace("/", "."),
        "summary": summary,
        "security": [],
        "responses": {
            str(status): {"description": text, "content": {media: {"schema": schema}}}
            for status, text in statuses.items()
        },
    }


# --- Both ------------------------------------------------------------------------------------------------------------


def _components(structs: Iterable[type[Struct]]) -> dict[str, Schema]:
    """The schema of each struct and of those inside them, by name."""
    unique = list(dict.fromkeys(structs))
    _, components = msgspec.json.schema_components(unique, ref_template=_SCHEMAS + "{name}")
    components["Error"]["properties"]["code"] = {"enum": sorted(ERRORS)}
    return {name: _plain(schema) for name, schema in sorted(components.items())}


def _plain(schema: Any) -> Any:
    """The same schema without what only one of the two formats understands."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(value) for key, value in schema.items() if key != "prefixItems"}
    if "prefixItems" in schema:
        first, *others = schema["prefixItems"]
        assert all(other == first for other in others), "only tuples of one type have a common form"
        plain["items"] = _plain(first)
    return {"allOf": [{"$ref": plain.pop("$ref")}], **plain} if "$ref" in plain and len(plain) > 1 else plain


def _ref(struct: type[Struct]) -> Schema:
    return {"$ref": _SCHEMAS + struct.__name__}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _who(request: type[wire.Request]) -> str:
    roles = HANDLERS[request][0] if request in HANDLERS else frozenset(Role)
    return "For everybody." if roles == frozenset(Role) else f"For: {', '.join(sorted(roles))}."


def _summary(struct: type) -> str:
    return " ".join((struct.__doc__ or "").split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
