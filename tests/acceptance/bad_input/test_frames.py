"""Frames that are no request, and fields that are missing or not allowed: answered, and the connection goes on."""

from collections.abc import Mapping
from typing import Any

import pytest

from haulcast.ports import Role
from haulcast.transport import wire
from tests.acceptance.bad_input.bench import (
    MARKER,
    PING,
    Bench,
    Counted,
    Line,
    check_error,
)
from tests.acceptance.bad_input.wrong import (
    GOOD,
    Wrong,
    check_good,
    frame,
    wrongs,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

STRUCTS = {**wire.REQUESTS, **wire.REST_REQUESTS}


FRAMES: Mapping[str, tuple[str, str | None, str, str | None]] = {
    # what: the frame, the `re` of the answer, its code, its field
    "cut off": (f'{PING},"data":{{"{MARKER}', None, "BAD_JSON", None),
    "a list": (f'["{MARKER}"]', None, "BAD_JSON", None),
    "a text": (f'"{MARKER}"', None, "BAD_JSON", None),
    "empty": ("", None, "BAD_JSON", None),
    "no JSON at all": (f"hello, I am {MARKER}", None, "BAD_JSON", None),
    "two objects": (f"{PING}}}{PING}}}", None, "BAD_JSON", None),
    "a hundred lists deep, and no end": (f'{PING},"data":{"[" * 100}', None, "BAD_JSON", None),
    "NUL": ("\0", None, "BAD_JSON", None),
    "NaN": (
        '{"id":"q","type":"location","data":{"vehicle_id":"v1","lat":NaN,"lng":1}}',
        None,
        "BAD_JSON",
        None,
    ),
    "half a pair of surrogates": (
        '{"id":"q","type":"subscribe","data":{"topic":"feed:\\ud800"}}',
        None,
        "BAD_JSON",
        None,
    ),
    "no id": (f'{{"type":"ping","data":{{"x":"{MARKER}"}}}}', None, "BAD_REQUEST", "id"),
    "id is a number": ('{"id":1,"type":"ping"}', None, "BAD_REQUEST", "id"),
    "id is null": ('{"id":null,"type":"ping"}', None, "BAD_REQUEST", "id"),
    "id is empty": ('{"id":"","type":"ping"}', None, "BAD_REQUEST", "id"),
    "id is too long": (f'{{"id":"{MARKER}{"x" * 64}","type":"ping"}}', None, "BAD_REQUEST", "id"),
    "id is not ASCII": ('{"id":"é","type":"ping"}', None, "BAD_REQUEST", "id"),
    "id has a line end": ('{"id":"q\\n","type":"ping"}', None, "BAD_REQUEST", "id"),
    "no type": ('{"id":"q","data":{}}', "q", "BAD_REQUEST", "type"),
    "type is a number": ('{"id":"q","type":7}', "q", "BAD_REQUEST", "type"),
    "unknown type": (f'{{"id":"q","type":"{MARKER}"}}', "q", "UNKNOWN_TYPE", None),
    "type in capitals": ('{"id":"q","type":"PING"}', "q", "UNKNOWN_TYPE", None),
    "a name of REST": ('{"id":"q","type":"tenant.put","data":{}}', "q", "UNKNOWN_TYPE", None),
    "data is null": (f'{PING},"data":null}}', "q", "BAD_REQUEST", "data"),
    "data is a list": (f'{PING},"data":["{MARKER}"]}}', "q", "BAD_REQUEST", "data"),
    "data is a text": (f'{PING},"data":"{MARKER}"}}', "q", "BAD_REQUEST", "data"),
    "an ack of an absurd version": (
        '{"id":"q","type":"ack","data":{"topic":"feed:t1","version":[1,-1]}}',
        "q",
        "BAD_REQUEST",
        "data.version[1]",
    ),
    "101 trucks in all": (
        frame(
            wire.BroadcastCreate,
            {
                **GOOD[wire.BroadcastCreate],
                "trucks": [{"vehicle_type": MARKER, "count": 100}, {"vehicle_type": "x", "count": 1}],
            },
        ),
        "q",
        "BAD_REQUEST",
        "data.trucks",
    ),
}


@pytest.mark.parametrize("what", FRAMES)
async def test_a_frame_that_is_no_request(edge: Bench, lines: Mapping[Role, Line], what: str) -> None:
    """It is answered with the code that it deserves, and the connection goes on."""
    text, re_, code, field = FRAMES[what]
    line = lines[Role.CUSTOMER]
    async with edge.notices(Counted.frame(code)):
        await line.say(text)
        check_error(await line.hear(), code, field, re_)
    await line.goes_on()


async def test_a_frame_nested_beyond_all_measure(edge: Bench, lines: Mapping[Role, Line]) -> None:
    """30,000 lists within each other are refused, not recursed into."""
    for data in ('{"x":' * 10_000 + "1" + "}" * 10_000, "[" * 30_000 + "]" * 30_000):
        async with edge.notices(Counted.frame("BAD_JSON")):
            await lines[Role.CUSTOMER].say(f'{PING},"data":{data}}}')
            reply = await lines[Role.CUSTOMER].hear()
            assert reply["error"]["code"] == "BAD_JSON"
    await lines[Role.CUSTOMER].goes_on()


def field_cases(structs: Mapping[str, type[wire.Request]]) -> list[Any]:
    """Each way in which each field of these can be wrong."""
    return [
        pytest.param(struct_, wrong, id=f"{name}-{wrong.path}-{wrong.what}".replace(" ", "_"))
        for name, struct_ in structs.items()
        for wrong in wrongs(struct_)
        if not bounded_by_the_core(wrong)
    ]


def bounded_by_the_core(wrong: Wrong) -> bool:
    """Settings know their own bounds, so that a role is looked at before them."""
    return wrong.path.startswith("settings.") and wrong.what == "huge"


@pytest.mark.parametrize("struct_", STRUCTS.values(), ids=STRUCTS)
async def test_the_good_data_of_these_tests_is_good(struct_: type[wire.Request]) -> None:
    """Else what is wrong with a mutant would be something else."""
    check_good(struct_)


@pytest.mark.parametrize(("struct_", "wrong"), field_cases(wire.REQUESTS))
async def test_a_field_that_is_missing_or_not_allowed(
    edge: Bench, lines: Mapping[Role, Line], struct_: type[wire.Request], wrong: Wrong
) -> None:
    """The answer names exactly this field."""
    line = lines[Role.CUSTOMER]
    async with edge.notices(Counted.frame("BAD_REQUEST")):
        await line.say(frame(struct_, wrong.data))
        check_error(await line.hear(), "BAD_REQUEST", f"data.{wrong.path}", "q")
    await line.goes_on()


@pytest.mark.parametrize(
    "wrong",
    [pytest.param(one, id=f"{one.path}-{one.what}") for one in wrongs(wire.SettingsPatch) if bounded_by_the_core(one)],
)
async def test_a_setting_beyond_its_bounds(edge: Bench, lines: Mapping[Role, Line], wrong: Wrong) -> None:
    """The same, for who may set it."""
    line = lines[Role.OPERATOR]
    async with edge.notices(Counted.request("settings.patch", "BAD_REQUEST")):
        await line.say(frame(wire.SettingsPatch, wrong.data))
        check_error(await line.hear(), "BAD_REQUEST", f"data.{wrong.path}", "q")
    await line.goes_on()
