"""The examples of docs/protocol.md: how they are read, and what it means that a server's answer looks like one.

An example is a fenced block. Its first line may say who speaks, and how much later than the one before:

    ```json as customer c42 after 240 s

1. `-> ` and `<- ` begin a message, and indented lines go on with it. `->` is a frame, or a REST call: method and path,
   headers, body. `<-` is a frame, `close` with a code, or a status and a body.
2. Broadcast ids stand for those of the real server: the first answer that shows one binds it.
3. Of what is never the same twice (`VOLATILE`: times, versions, ...) only the type counts; everything else, the keys of
   objects included, has to be as documented.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from haulcast.transport import outgoing, wire

TIMES = frozenset(
    (
        "server_time",
        "expires_at",
        "created_at",
        "ended_at",
        "offered_at",
        "assigned_at",
        "updated_at",
        "closed_at",
        "decided_at",
        "at",
    )
)
_COUNTS = (
    *("connections", "topics", "actors", "timers", "tasks", "vehicles", "transporters_online"),
    *("uptime_s", "latency_ms", "lease_left_ms", "lease_age_ms", "loop_lag_ms", "node", "after_ms"),
)
VOLATILE = TIMES | {"version", "from", "session", "retry_after_ms", "incarnation", *_COUNTS}
_BROADCAST_ID = re.compile(r"\b01[0-9a-hjkmnp-tv-z]{24}")
_REST = re.compile(r"(?P<method>GET|PATCH|POST|PUT) (?P<path>/\S*)(?P<rest>.*)", re.DOTALL)
_FENCE = re.compile(
    r"```json(?: as (?P<role>\w+) (?P<user>\w+))?(?: after (?P<after_s>\d+) s)?\n(?P<body>.*?)\n```", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Send:
    """A frame from the client, as it is written."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A REST call."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame from the server."""

    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The status and the body that a REST call is answered with."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class Close:
    """The server closes the connection."""

    code: int


Step = Send | Call | Frame | Answer | Close


@dataclass(frozen=True, slots=True)
class Example:
    """One fenced block; `line` is where it begins."""

    line: int
    role: str
    user: str
    after_s: int
    steps: tuple[Step, ...]

    @property
    def greets(self) -> bool:
        """Whether it begins with a hello, so on a connection of its own."""
        first = self.steps[0]
        return isinstance(first, Send) and '"type":"hello"' in first.text

    @property
    def over_rest(self) -> bool:
        """Whether it needs no connection."""
        return any(isinstance(step, Call) for step in self.steps)


def read_examples(document: str) -> list[Example]:
    """All examples of a document, in order."""
    return [
        Example(
            line=document.count("\n", 0, fence.start()) + 1,
            role=fence["role"] or "",
            user=fence["user"] or "",
            after_s=int(fence["after_s"] or 0),
            steps=tuple(_steps(fence["body"])),
        )
        for fence in _FENCE.finditer(document)
    ]


def _steps(body: str) -> Iterator[Step]:
    assert body[:3] in ("-> ", "<- "), f"an example begins with an arrow: {body[:40]}"
    for message in re.split(r"\n(?=-> |<- )", body):
        arrow, text = message[:2], message[3:].strip()
        rest = _REST.fullmatch(text)
        if arrow == "->" and rest is not None:
            head, _, json_body = rest["rest"].partition("{")
            headers = dict(line.strip().split(": ", 1) for line in head.strip().splitlines())
            yield Call(rest["method"], rest["path"], headers, "{" + json_body if json_body else "")
        elif arrow == "->":
            yield Send(text)
        elif text.startswith("close "):
            yield Close(int(text.removeprefix("close ")))
        elif text[0].isdigit():
            status, _, answer = text.partition(" ")
            yield Answer(int(status), json.loads(answer))
        else:
            yield Frame(json.loads(text))


@dataclass(slots=True)
class Names:
    """Which real broadcast each documented one stands for."""

    bound: dict[str, str] = field(default_factory=dict)

    def translate(self, text: str) -> str:
        """`text` with the real ids."""
        return _BROADCAST_ID.sub(lambda found: self.bound.get(found[0], found[0]), text)

    def difference(self, documented: Any, real: Any) -> str | None:
        """In what `real` differs from what is documented; None, and new ids are bound, if in nothing."""
        fresh: dict[str, str] = {}
        wanted = json.loads(self.translate(json.dumps(documented)))
        difference = _difference("", wanted, real, fresh)
        if difference is None:
            self.bound.update(fresh)
        return difference


def _difference(path: str, wanted: Any, real: Any, fresh: dict[str, str]) -> str | None:
    name = path.rpartition("/")[2]
    if type(wanted) is not type(real):
        return f"{path}: a {type(real).__name__} ({real!r}) instead of a {type(wanted).__name__}"
    if isinstance(wanted, dict):
        if wanted.keys() != real.keys():
            missing, more = wanted.keys() - real.keys(), real.keys() - wanted.keys()
            return f"{path}: keys missing {sorted(missing)}, not documented {sorted(more)}"
        inner = (_difference(f"{path}/{key}", value, real[key], fresh) for key, value in wanted.items())
        return next(filter(None, inner), None)
    if isinstance(wanted, list):
        if len(wanted) != len(real):
            return f"{path}: {len(real)} items instead of {len(wanted)}"
        items = enumerate(zip(wanted, real, strict=True))
        return next(filter(None, (_difference(f"{path}/{n}", *pair, fresh) for n, pair in items)), None)
    if name in TIMES:
        return None if real is None or real > 1_600_000_000_000 else f"{path}: {real} is no time in milliseconds"
    if name in VOLATILE or _parent(path) in ("version", "from"):
        return None
    if isinstance(wanted, str) and (found := _BROADCAST_ID.search(wanted)) and found[0] not in real:
        pattern = re.escape(wanted).replace(re.escape(found[0]), _BROADCAST_ID.pattern.replace(r"\b", ""))
        real_id = _BROADCAST_ID.search(real)
        if real_id is None or not re.fullmatch(pattern, real) or fresh.setdefault(found[0], real_id[0]) != real_id[0]:
            return f"{path}: {real!r} instead of {wanted!r}"
        return None
    return None if wanted == real else f"{path}: {real!r} instead of {wanted!r}"


def _parent(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]


# --- What any frame must look like -----------------------------------------------------------------------------------


def check_frame(frame: Mapping[str, Any], asked: Mapping[str, str]) -> None:
    """The server said what `outgoing` says that it may, and nothing more. `asked` has the type of each request."""
    if "re" in frame:
        if frame["ok"]:
            check_reply(wire.REQUESTS[asked[frame["re"]]], frame["data"])
        else:
            conforms(frame["error"], outgoing.Error)
        return
    if frame["type"] == "announcement":
        conforms(frame["data"], outgoing.Announced)
        return
    kind = frame["topic"].partition(":")[0]
    match frame["type"]:
        case "snapshot":
            conforms(frame["data"], outgoing.SNAPSHOTS[kind])
        case "event":
            conforms(frame["data"], outgoing.EVENTS[kind][frame["event"]])
        case other:
            assert other == "delta", frame
            assert frame["data"].keys() <= {"set", "del"}, frame


def check_reply(request: type[wire.Request], data: Any) -> None:
    """The data of a reply, over WebSocket or REST."""
    conforms(data, outgoing.REPLIES[request])


def conforms(value: Any, struct: type[msgspec.Struct]) -> None:
    """`value` is exactly what the struct says: nothing is missing, nothing is there that it does not have."""
    again = msgspec.json.decode(msgspec.json.encode(msgspec.convert(value, struct)))
    assert again == value, f"{struct.__name__}: {value} has more than {again}"
