"""Good data for every request, and each way in which each of its fields can be wrong, generated from the structs."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import inspect

from haulcast.ports import Role
from haulcast.transport import wire
from haulcast.transport.handlers import HANDLERS
from haulcast.transport.http import Route
from tests.acceptance.bad_input.bench import MARKER

GOOD: Mapping[type[wire.Request], dict[str, Any]] = {
    wire.Hello: {"token": "x", "resume": {"feed:t1": [1, 1]}},
    wire.Ping: {},
    wire.Subscribe: {"topic": "feed:t1"},
    wire.Unsubscribe: {"topic": "feed:t1"},
    wire.Ack: {"topic": "feed:t1", "version": [1, 0]},
    wire.BroadcastCreate: {
        "pickup": {"lat": 12.97, "lng": 77.59, "address": MARKER},
        "drop": {"lat": 13.08, "lng": 80.27, "address": MARKER},
        "trucks": [{"vehicle_type": "truck_14ft", "count": 1}],
        "expires_in_s": 300,
        "note": MARKER,
    },
    wire.BroadcastCancel: {"broadcast_id": "b1"},
    wire.OfferAccept: {"broadcast_id": "b1", "vehicle_id": "v1", "driver_id": "d1"},
    wire.OfferDecline: {"broadcast_id": "b1"},
    wire.TransporterOnline: {},
    wire.TransporterOffline: {},
    wire.Location: {"vehicle_id": "v1", "lat": 12.97, "lng": 77.59},
    wire.TripUpdate: {"trip_id": "b1-1-t", "status": "loaded"},
    wire.SettingsGet: {},
    wire.SettingsPatch: {"settings": {"wave_radii_km": [5, None], "wave_interval_s": 3}, "expected_version": 1},
    wire.ControlPause: {"expected_version": 1},
    wire.ControlResume: {"expected_version": 1},
    wire.ControlReloadSettings: {"expected_version": 1},
    wire.ControlSwitchMode: {"mode": "blast", "expected_version": 1},
    wire.ControlAnnounce: {"audience": "driver", "text": MARKER, "lifetime_s": 60, "expected_version": 1},
    wire.ControlDrainNode: {"node": 1},
    wire.AvailabilityPut: {"online": True},
    wire.BroadcastList: {},
    wire.BroadcastGet: {"broadcast_id": "b1"},
    wire.OfferList: {},
    wire.TopicGet: {"topic": "feed:t1"},
    wire.NodeList: {},
    wire.SettingsHistory: {"before": 10, "limit": 5},
    wire.ControlLog: {"before": 10, "limit": 5},
    wire.TransporterPut: {"transporter_id": "t1", "name": MARKER},
    wire.VehiclePut: {"vehicle_id": "v1", "transporter_id": "t1", "vehicle_type": "truck_14ft"},
    wire.DriverPut: {"driver_id": "d1", "transporter_id": "t1", "name": MARKER},
    wire.TenantPut: {"tenant_id": "zenith", "settings": {"wave_radii_km": [5, None], "wave_interval_s": 3}},
}
"""Data of each request that has nothing wrong with its form, every field given."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """Data with one thing wrong: `what`, at `path` (as errors name it)."""

    what: str
    path: str
    data: Any = field(repr=False)


def wrongs(struct: type[wire.Request]) -> Iterator[Wrong]:
    """One `Wrong` for each way in which each field of the struct can be wrong."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    yield from _in_fields(info, GOOD[struct], "")


def _in_fields(info: inspect.StructType, good: Mapping[str, Any], at: str) -> Iterator[Wrong]:
    for one in info.fields:
        path = f"{at}.{one.encode_name}" if at else one.encode_name
        if one.required:
            left = {name: value for name, value in good.items() if name != one.encode_name}
            yield Wrong("missing", path, left)
        value = good.get(one.encode_name)
        for what, inner, bad in _bad_values(one.type, value, path):
            yield Wrong(what, inner, {**good, one.encode_name: bad})


def _bad_values(info: inspect.Type, good: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """What, where, and the bad value."""
    if isinstance(info, inspect.Metadata):
        yield from _bad_values(info.type, good, path)
        return
    if isinstance(info, inspect.UnionType):
        [inner] = [one for one in info.types if not isinstance(one, inspect.NoneType)]
        nullable = any(isinstance(one, inspect.NoneType) for one in info.types)
        cases = _bad_values(inner, good, path)
        yield from ((what, at, bad) for what, at, bad in cases if not (nullable and bad is None))
        return
    yield "null", path, None
    match info:
        case inspect.StrType():
            yield "number for text", path, 7
            if info.pattern is not None and info.pattern.startswith("^[A-Za-z0-9]"):
                yield "not an id", path, f"{MARKER} ' OR 1=1 --"
                yield "path for an id", path, f"../{MARKER}"
                yield "line end in an id", path, f"{MARKER}\n"
            elif info.pattern is not None:
                yield "NUL", path, f"{MARKER}\0"
            if info.min_length or (info.pattern and info.pattern.startswith("^[A-Za-z0-9]")):
                yield "empty", path, ""
            if info.max_length is not None:
                yield "too long", path, MARKER + "x" * info.max_length
        case inspect.IntType() | inspect.FloatType():
            yield "text for number", path, MARKER
            yield "bool for number", path, True
            for bound, step in ((info.ge, -1), (info.le, 1)):
                if bound is not None:
                    yield f"beyond {bound}", path, bound + step
            if isinstance(info, inspect.IntType):
                yield "huge", path, 2**70
                yield "fraction", path, 1.5
            else:
                yield "beyond any float", path, inf
        case inspect.BoolType():
            yield "text for bool", path, MARKER
        case inspect.EnumType():
            yield "no such word", path, MARKER
        case inspect.StructType():
            yield "text for object", path, MARKER
            yield "list for object", path, [MARKER]
            if isinstance(good, dict):
                yield from ((wrong.what, wrong.path, wrong.data) for wrong in _in_fields(info, good, path))
        case inspect.VarTupleType() | inspect.ListType():
            yield "text for list", path, MARKER
            yield "object for list", path, {"0": MARKER}
            if info.min_length:
                yield "none at all", path, []
            if info.max_length is not None:
                yield "too many", path, good * (info.max_length + 1)
            for what, at, bad in _bad_values(info.item_type, good[0], f"{path}[0]"):
                yield what, at, [bad]
        case inspect.TupleType():
            yield "too short", path, good[:-1]
            yield "too long", path, [*good, 1]
            for what, at, bad in _bad_values(info.item_types[1], good[1], f"{path}[1]"):
                yield what, at, [good[0], bad]
        case inspect.DictType():
            yield "list for object", path, [MARKER]
            yield "empty key", path, {"": next(iter(good.values()))}
            if info.max_length is not None:
                yield "too many", path, {f"t{n}": next(iter(good.values())) for n in range(info.max_length + 1)}
            for what, at, bad in _bad_values(info.value_type, next(iter(good.values())), f"{path}[...]"):
                yield what, at, {next(iter(good)): bad}
        case other:
            raise NotImplementedError(f"{path}: {other}")


def encode(value: Any) -> str:
    """JSON, in which what is beyond any float is written as a number all the same."""
    return json.dumps(value).replace("Infinity", "1e999")


def frame(struct: type[wire.Request], data: Any, id: str = "q") -> str:
    """The frame of a request with this data."""
    return f'{{"id":{json.dumps(id)},"type":"{wire.TYPE_OF[struct]}","data":{encode(data)}}}'


def check_good(struct: type[wire.Request]) -> None:
    """The good data is good, and gives every field."""
    assert msgspec.convert(GOOD[struct], struct) is not None
    assert set(GOOD[struct]) == set(struct.__struct_fields__), struct


# --- Addresses ---


def address(route: Route) -> str:
    """An address of the route."""
    return re.sub(r"{(\w+)}", lambda name: str(GOOD[route.request][name[1]]), route.path)


def in_body(route: Route, data: Mapping[str, Any]) -> dict[str, Any]:
    """What of the data is sent as the body."""
    return {name: value for name, value in data.items() if f"{{{name}}}" not in route.path}


def in_query(route: Route, data: Mapping[str, Any]) -> str:
    """What of the data of a GET is sent as its query."""
    return urlencode(in_body(route, data))


def some_role(route: Route) -> Role:
    """Somebody who may."""
    return min(HANDLERS[route.request][0])
