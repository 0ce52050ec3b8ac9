import json
import math
from contextlib import suppress
from types import MappingProxyType
from typing import Any
from unittest.mock import Mock

import aiohttp
import msgspec
import orjson
import pytest
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.ids import is_id
from haulcast.domain.replies import Refusal
from haulcast.domain.states import TripStatus
from haulcast.errors import ErrorCode, RequestError
from haulcast.transport import wire
from haulcast.transport.codec import (
    BadFrame,
    decode_body,
    decode_frame,
    dumps,
    encode_error,
    encode_reply,
    frame,
    is_request_id,
    ping_frame,
    pong_frame,
    request_id_of,
)

PLACE = {"lat": 28.61, "lng": 77.2}
CREATE: dict[str, Any] = {
    "pickup": {**PLACE, "address": "Gate 4"},
    "drop": PLACE,
    "trucks": [{"vehicle_type": "flatbed", "count": 2}],
}


def text(request_type: str, data: Any, request_id: str = "r1") -> str:
    return json.dumps({"id": request_id, "type": request_type, "data": data})


def refused(frame_text: str) -> tuple[str | None, RequestError]:
    with pytest.raises(BadFrame) as caught:
        decode_frame(frame_text)
    return caught.value.request_id, caught.value.error


@pytest.mark.parametrize(
    ("request_type", "data", "expected"),
    [
        ("hello", {"token": "t"}, wire.Hello("t")),
        ("hello", {"token": "t", "resume": {"feed:t7": [4, 19]}}, wire.Hello("t", {"feed:t7": (4, 19)})),
        ("ping", {}, wire.Ping()),
        ("subscribe", {"topic": "feed:t7"}, wire.Subscribe("feed:t7")),
        ("unsubscribe", {"topic": "feed:t7"}, wire.Unsubscribe("feed:t7")),
        ("ack", {"topic": "feed:t7", "version": [4, 21]}, wire.Ack("feed:t7", (4, 21))),
        (
            "broadcast.create",
            CREATE,
            wire.BroadcastCreate(
                wire.Place(28.61, 77.2, "Gate 4"), wire.Place(28.61, 77.2), (wire.Truck("flatbed", 2),)
            ),
        ),
        (
            "broadcast.create",
            {**CREATE, "expires_in_s": 60, "note": "fragile\nthis side up"},
            wire.BroadcastCreate(
                wire.Place(28.61, 77.2, "Gate 4"),
                wire.Place(28.61, 77.2),
                (wire.Truck("flatbed", 2),),
                60,
                "fragile\nthis side up",
            ),
        ),
        ("broadcast.cancel", {"broadcast_id": "b1"}, wire.BroadcastCancel("b1")),
        (
            "offer.accept",
            {"broadcast_id": "b1", "vehicle_id": "v1", "driver_id": "d1"},
            wire.OfferAccept("b1", "v1", "d1"),
        ),
        ("offer.decline", {"broadcast_id": "b1"}, wire.OfferDecline("b1")),
        ("transporter.online", {}, wire.TransporterOnline()),
        ("transporter.offline", {}, wire.TransporterOffline()),
        ("location", {"vehicle_id": "v1", "lat": -90, "lng": 180.0}, wire.Location("v1", -90.0, 180.0)),
        ("trip.update", {"trip_id": "b1-1-t", "status": "en_route"}, wire.TripUpdate("b1-1-t", TripStatus.EN_ROUTE)),
    ],
)
def test_every_type_is_decoded_into_its_struct(request_type: str, data: Any, expected: wire.Request) -> None:
    assert decode_frame(text(request_type, data)) == ("r1", expected)


def test_data_may_be_left_out_where_there_is_nothing_to_say() -> None:
    assert decode_frame('{"id":"r1","type":"ping"}') == ("r1", wire.Ping())


def test_unknown_fields_are_ignored() -> None:
    """A newer client can talk to an older server."""
    assert decode_frame('{"id":"r1","type":"ping","later":[1],"data":{"later":{}}}') == ("r1", wire.Ping())


def without(path: str) -> Any:
    """A create without one field."""
    data = json.loads(json.dumps(CREATE))
    *parents, last = path.split(".")
    inner = data
    for key in parents:
        inner = inner[int(key) if key.isdigit() else key]
    del inner[last]
    return data


def replaced(path: str, value: Any) -> Any:
    """A create with one field replaced."""
    data = json.loads(json.dumps(CREATE))
    *parents, last = path.split(".")
    inner = data
    for key in parents:
        inner = inner[int(key) if key.isdigit() else key]
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        (without("pickup"), "data.pickup", "required"),
        (without("pickup.lat"), "data.pickup.lat", "required"),
        (without("trucks.0.count"), "data.trucks[0].count", "required"),
        (replaced("pickup.lat", 90.1), "data.pickup.lat", "<= 90"),
        (replaced("pickup.lat", -90.1), "data.pickup.lat", ">= -90"),
        (replaced("drop.lng", 180.1), "data.drop.lng", "<= 180"),
        (replaced("drop.lng", "77"), "data.drop.lng", "got `str`"),
        (replaced("drop.lng", None), "data.drop.lng", "got `null`"),
        (replaced("drop.lng", True), "data.drop.lng", "got `bool`"),
        (replaced("pickup.address", "x" * 201), "data.pickup.address", "<= 200"),
        (replaced("pickup.address", "a\0b"), "data.pickup.address", "NUL"),
        (replaced("trucks", []), "data.trucks", ">= 1"),
        (replaced("trucks", CREATE["trucks"] * 21), "data.trucks", "<= 20"),
        (replaced("trucks.0.count", 0), "data.trucks[0].count", ">= 1"),
        (replaced("trucks.0.count", 101), "data.trucks[0].count", "<= 100"),
        (replaced("trucks.0.count", 1.5), "data.trucks[0].count", "`int`"),
        (replaced("trucks.0.count", 10**400), "data.trucks[0].count", "<= 100"),
        (replaced("trucks", [{"vehicle_type": "a", "count": 51}] * 2), "data.trucks", "at most 100"),
        (replaced("trucks.0.vehicle_type", ""), "data.trucks[0].vehicle_type", "letters, digits"),
        (replaced("trucks.0.vehicle_type", "flat bed"), "data.trucks[0].vehicle_type", "letters, digits"),
        (replaced("expires_in_s", 0), "data.expires_in_s", ">= 1"),
        (replaced("expires_in_s", 604_801), "data.expires_in_s", "<= 604800"),
        (replaced("expires_in_s", "60"), "data.expires_in_s", "got `str`"),
        (replaced("note", "x" * 501), "data.note", "<= 500"),
        ([], "data", "`object`"),
        (None, "data", "`object`"),
        ("x", "data", "`object`"),
    ],
)
def test_a_bad_field_is_named_with_what_is_expected(data: Any, field: str, says: str) -> None:
    request_id, error = refused(text("broadcast.create", data))
    assert request_id == "r1"
    assert error.code is ErrorCode.BAD_REQUEST
    assert error.data == {"field": field}
    assert error.message.startswith(f"{field}: ")
    assert says in error.message


@pytest.mark.parametrize(
    ("frame_text", "request_id", "field"),
    [
        ('{"type":"ping"}', None, "id"),
        ('{"id":null,"type":"ping"}', None, "id"),
        ('{"id":7,"type":"ping"}', None, "id"),
        ('{"id":"","type":"ping"}', None, "id"),
        (json.dumps({"id": "x" * 65, "type": "ping"}), None, "id"),
        ('{"id":"a\\nb","type":"ping"}', None, "id"),
        ('{"id":"a\\n","type":"ping"}', None, "id"),
        ('{"id":"r1"}', "r1", "type"),
        ('{"id":"r1","type":7}', "r1", "type"),
    ],
)
def test_a_bad_envelope_is_answered_to_its_id_if_that_can_be_read(
    frame_text: str, request_id: str | None, field: str
) -> None:
    found, error = refused(frame_text)
    assert (found, error.code, error.data) == (request_id, ErrorCode.BAD_REQUEST, {"field": field})


def test_an_ack_may_do_without_an_id() -> None:
    frame_text = '{"type":"ack","data":{"topic":"feed:t7","version":[1,2]}}'
    assert decode_frame(frame_text) == (None, wire.Ack("feed:t7", (1, 2)))


def test_an_unknown_type_is_said_to_be_one() -> None:
    request_id, error = refused(text("broadcast.get", {}))
    assert (request_id, error.code) == ("r1", ErrorCode.UNKNOWN_TYPE)


def test_a_word_that_is_not_allowed_is_told_which_are() -> None:
    _, error = refused(text("trip.update", {"trip_id": "t", "status": "lost"}))
    assert error.data == {"field": "data.status"}
    assert error.message == ("data.status: expected one of assigned, en_route, at_pickup, loaded, delivered, cancelled")


@pytest.mark.parametrize("resume", [{"t": [1]}, {"t": ["1", 2]}, {"t": [-1, 2]}, {"": [1, 2]}, {"t" * 129: [1, 2]}])
def test_a_bad_resume_is_named(resume: Any) -> None:
    _, error = refused(text("hello", {"token": "t", "resume": resume}))
    assert str(error.data["field"]).startswith("data.resume")


@pytest.mark.parametrize(
    "frame_text",
    [
        "",
        " ",
        "{",
        "[]",
        "null",
        '"x"',
        "7",
        '{"id":"r1","type":"ping"} x',
        '{"id":"r1","type":"ping","data":{"x":NaN}}',
        '{"id":"r1","type":"ping","data":{"x":Infinity}}',
        '{"id":"r1","type":"location","data":{"vehicle_id":"v1","lat":NaN,"lng":1}}',
        '{"id":"r1","type":"location","data":{"vehicle_id":"v1","lat":-Infinity,"lng":1}}',
        "[" * 30_000 + "]" * 30_000,
        '{"id":"r1","type":"ping","data":' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"id":"r1","type":"ping","x":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}",
        '{"id":"\\ud800","type":"ping"}',
        '{"id":"r1","type":"ping","data":{"x":"\\ud800"}}',
    ],
)
def test_what_is_not_one_json_object_is_bad_json(frame_text: str) -> None:
    _, error = refused(frame_text)
    assert error.code is ErrorCode.BAD_JSON


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000])
def test_a_number_that_no_float_can_hold_is_refused(number: str) -> None:
    _, error = refused(f'{{"id":"r1","type":"location","data":{{"vehicle_id":"v1","lat":{number},"lng":1}}}}')
    assert error.data == {"field": "data.lat"}


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_no_text_raises_anything_but_bad_frame(frame_text: str) -> None:
    try:
        decode_frame(frame_text)
    except BadFrame as bad:
        orjson.loads(encode_error(bad.request_id, bad.error))
    request_id_of(frame_text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "token": json_values,
        "resume": json_values,
        "topic": json_values,
        "version": json_values,
        "pickup": st.fixed_dictionaries({"lat": json_values, "lng": json_values}) | json_values,
        "drop": st.just(PLACE) | json_values,
        "trucks": st.lists(
            st.fixed_dictionaries({"vehicle_type": st.just("x") | json_values, "count": json_values}), max_size=3
        ),
        "status": json_values,
        "lat": st.floats(),
        "lng": st.floats(),
        "vehicle_id": st.just("v") | json_values,
        "broadcast_id": st.just("b") | json_values,
    },
)


@given(st.sampled_from(sorted(wire.REQUESTS)), likely | json_values)
def test_any_json_is_decoded_or_refused_with_the_field_and_the_id(request_type: str, data: Any) -> None:
    error = None
    try:
        found, request = decode_frame(text(request_type, data))
    except BadFrame as bad:
        found, error, request = bad.request_id, bad.error, None
    if error is None:
        assert type(request) is wire.REQUESTS[request_type]
        for name in ("lat", "lng"):
            assert math.isfinite(getattr(request, name, 0.0))
    elif error.code is ErrorCode.BAD_REQUEST:
        assert found == "r1"
        assert str(error.data["field"]).startswith("data")
    else:
        assert error.code is ErrorCode.BAD_JSON


@given(st.text(st.characters(codec="ascii") | st.sampled_from("\n\r éß\0"), max_size=70))
def test_ids_on_the_wire_are_those_of_the_domain(name: str) -> None:
    try:
        decode_frame(text("broadcast.cancel", {"broadcast_id": name}))
    except BadFrame:
        assert not is_id(name)
    else:
        assert is_id(name)


@pytest.mark.parametrize("name", ["b1\n", "\nb1", "b1\n\n", "b\n1", "x" * 64 + "\n"])
def test_a_line_break_is_no_part_of_an_id(name: str) -> None:
    _, error = refused(text("broadcast.cancel", {"broadcast_id": name}))
    assert error.data == {"field": "data.broadcast_id"}


@given(st.text(max_size=70) | st.from_regex(r"[ -~]{1,64}\n?", fullmatch=True))
def test_request_ids_are_1_to_64_printable_ascii_characters(name: str) -> None:
    fine = 1 <= len(name) <= 64 and name.isascii() and name.isprintable()
    assert is_request_id(name) is fine
    assert request_id_of(orjson.dumps({"id": name}).decode()) == (name if fine else None)


class TestBody:
    def test_takes_fields_from_body_and_path(self) -> None:
        body = b'{"vehicle_id":"v1","driver_id":"d1","broadcast_id":"from the body: ignored"}'
        assert decode_body(body, {"broadcast_id": "b1"}, wire.OfferAccept) == wire.OfferAccept("b1", "v1", "d1")

    def test_may_be_empty(self) -> None:
        assert decode_body(b"", {"broadcast_id": "b1"}, wire.BroadcastCancel) == wire.BroadcastCancel("b1")

    @pytest.mark.parametrize(
        ("body", "fields", "field"),
        [
            (b"{}", {"broadcast_id": "b1"}, "body.vehicle_id"),
            (b'{"vehicle_id":7,"driver_id":"d1"}', {"broadcast_id": "b1"}, "body.vehicle_id"),
            (b'{"vehicle_id":"v1","driver_id":"d1"}', {"broadcast_id": "no id"}, "path.broadcast_id"),
        ],
    )
    def test_a_bad_field_is_named_with_where_it_stands(self, body: bytes, fields: dict[str, str], field: str) -> None:
        with pytest.raises(RequestError) as caught:
            decode_body(body, fields, wire.OfferAccept)
        assert caught.value.data == {"field": field}

    @pytest.mark.parametrize("body", [b"[]", b"null", b"{", b"\xff", b'{"a":NaN}', b"[" * 60_000])
    def test_no_json_object_is_bad_json(self, body: bytes) -> None:
        with pytest.raises(RequestError) as caught:
            decode_body(body, {}, wire.OfferAccept)
        assert caught.value.code is ErrorCode.BAD_JSON

    @given(st.binary())
    def test_no_body_raises_anything_but_request_error(self, body: bytes) -> None:
        with suppress(RequestError):
            decode_body(body, {}, wire.TenantPut)


class TestReplies:
    def test_yes(self) -> None:
        assert json.loads(encode_reply("r1", {"status": TripStatus.LOADED, "version": (4, 21)})) == {
            "re": "r1",
            "ok": True,
            "data": {"status": "loaded", "version": [4, 21]},
        }

    def test_no(self) -> None:
        error = RequestError(Refusal.REQUEST_ALREADY_TAKEN, remaining_requests=0)
        assert json.loads(encode_error(None, error)) == {
            "re": None,
            "ok": False,
            "error": {
                "code": "REQUEST_ALREADY_TAKEN",
                "message": "Somebody else was faster.",
                "retry": False,
                "data": {"remaining_requests": 0},
            },
        }

    def test_any_mapping_and_sequence_will_do(self) -> None:
        assert dumps(MappingProxyType({"a": range(3)})) == b'{"a":[0,1,2]}'

    def test_what_is_not_json_raises(self) -> None:
        with pytest.raises(TypeError):
            dumps({"a": object()})  # type: ignore[dict-item]


class TestFrames:
    @pytest.mark.parametrize(
        ("length", "header"),
        [
            (0, b"\x81\x00"),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (65_535, b"\x81\x7e\xff\xff"),
            (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ],
    )
    def test_header_is_that_of_rfc_6455(self, length: int, header: bytes) -> None:
        assert frame(b"x" * length) == header + b"x" * length

    def test_pings_and_pongs(self) -> None:
        assert ping_frame() == b"\x89\x00"
        assert pong_frame(b"abc") == b"\x8a\x03abc"

    @given(st.lists(st.text(max_size=300), min_size=1, max_size=20))
    async def test_what_is_framed_here_is_read_by_a_real_reader(self, payloads: list[str]) -> None:
        queue = WebSocketDataQueue(Mock(_reading_paused=False), 2**24, loop=Mock())
        reader = WebSocketReader(queue, 2**24, compress=False, decode_text=True)
        reader.feed_data(b"".join(frame(payload.encode()) for payload in payloads))
        messages = [await queue.read() for _ in payloads]
        assert [(message.type, message.data) for message in messages] == [
            (aiohttp.WSMsgType.TEXT, payload) for payload in payloads
        ]


def test_every_struct_has_one_name() -> None:
    assert len(wire.TYPE_OF) == len(wire.REQUESTS) + len(wire.REST_REQUESTS)


def test_an_optional_field_left_out_is_left_out_again() -> None:
    """The fingerprint of a request must not change when a later version adds an optional field."""
    _, request = decode_frame(text("broadcast.create", CREATE))
    assert json.loads(msgspec.json.encode(request)) == CREATE
