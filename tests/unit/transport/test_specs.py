"""The specifications: what is committed is what the code says, complete, and without a reference to nowhere."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from haulcast.domain.settings import TenantSettings
from haulcast.errors import ERRORS
from haulcast.transport import outgoing, specs, wire
from haulcast.transport.handlers import HANDLERS
from haulcast.transport.http import ROUTES
from haulcast.transport.outgoing.views import SettingsShown

DOCS = Path(__file__).parents[3] / "docs"


def test_a_setting_can_be_set_shown_and_stored() -> None:
    """What a tenant may choose, what a request may say and what an answer shows are the same."""
    names = [field.name for field in fields(TenantSettings)]
    assert list(wire.Settings.__struct_fields__) == names
    assert list(SettingsShown.__struct_fields__) == names


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object inside `value`."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def resolve(specification: dict[str, Any], reference: str) -> Any:
    """What a local `$ref` points at."""
    found: Any = specification
    for key in reference.removeprefix("#/").split("/"):
        found = found[key.replace("~1", "/").replace("~0", "~")]
    return found


@pytest.mark.parametrize("name", specs.FILES)
def test_the_committed_file_is_what_the_code_generates(name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == specs.render(specs.FILES[name]()), "run: python -m haulcast.transport.specs docs/"


@pytest.mark.parametrize("name", specs.FILES)
def test_every_reference_leads_somewhere(name: str) -> None:
    specification = specs.FILES[name]()
    references = [node["$ref"] for node in nodes(specification) if isinstance(node.get("$ref"), str)]
    assert references
    for reference in references:
        assert resolve(specification, reference) is not None


@pytest.mark.parametrize("name", specs.FILES)
def test_every_schema_is_used(name: str) -> None:
    specification = specs.FILES[name]()
    used = {node["$ref"].rpartition("/")[2] for node in nodes(specification) if isinstance(node.get("$ref"), str)}
    assert set(specification["components"]["schemas"]) <= used


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    assert specs.main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(specs.FILES)
    assert json.loads((tmp_path / "openapi.json").read_text())["openapi"].startswith("3.1.")
    assert specs.main([]) == 2


def test_asyncapi_has_every_request_with_its_reply_and_every_event() -> None:
    asyncapi = specs.asyncapi()
    assert asyncapi["asyncapi"] == "3.0.0"
    assert set(asyncapi["operations"]) == {*wire.REQUESTS, "topics", "announcements"}
    messages = asyncapi["components"]["messages"]
    for name, request in wire.REQUESTS.items():
        assert messages[name]["payload"]["properties"]["type"] == {"const": name}
        assert (f"{name}.reply" in messages) == (request is not wire.Ack)
    for kind, events in outgoing.EVENTS.items():
        assert f"snapshot.{kind}" in messages
        for event in events:
            assert messages[f"event.{kind}.{event}"]["payload"]["properties"]["event"] == {"const": event}
    announcement = messages["announcement"]["payload"]
    assert announcement["properties"]["type"] == {"const": "announcement"}
    assert "topic" not in announcement["properties"]


def test_openapi_has_every_route_with_the_parameters_of_its_path_and_query() -> None:
    paths = specs.openapi()["paths"]
    for route in ROUTES:
        operation = paths[route.path][route.method.lower()]
        in_path = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", route.path))
        body = operation.get("requestBody", {"content": {"application/json": {"schema": {"properties": {}}}}})
        in_body = set(body["content"]["application/json"]["schema"]["properties"])
        in_query = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
        assert in_path | in_query | in_body == set(route.request.__struct_fields__)
        assert not in_path & (in_body | in_query)
        assert not (in_body if route.method == "GET" else in_query)
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_openapi_says_which_commands_may_hold_before_all_nodes_have_answered() -> None:
    paths = specs.openapi()["paths"]
    may = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "202" in operation["responses"]
    }
    commands = {f"POST /v1/control/{name.removeprefix('control.')}" for name in wire.REQUESTS if "control." in name}
    assert may == {"PATCH /v1/settings", *commands}


@pytest.mark.parametrize("name", specs.FILES)
def test_an_error_has_one_of_the_codes_of_the_table(name: str) -> None:
    codes = specs.FILES[name]()["components"]["schemas"]["Error"]["properties"]["code"]["enum"]
    assert set(codes) == {code.value for code in ERRORS}


def test_there_is_a_reply_for_every_request_but_the_ack() -> None:
    assert set(outgoing.REPLIES) == {*HANDLERS, wire.Hello} - {wire.Ack}
