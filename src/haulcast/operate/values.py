"""Settings and times as they are written on the command line."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from haulcast.domain.replies import Json
from haulcast.errors import ConfigError

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_setting(text: str) -> tuple[str, Json]:
    """`NAME=VALUE`, the value as JSON or as a plain word. Raises `ValueError`."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w+", name):
        raise ValueError(f"{text!r} is no setting; give NAME=VALUE, for example wave_interval_s=10")
    try:
        decoded: Json = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
    return name, decoded


def parse_lifetime(text: str) -> int:
    """`90`, `90s`, `15m`, `1h` or `2d`, in seconds. Raises `ValueError`."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if found is None:
        raise ValueError(f"{text!r} is no time; give seconds, or 90s, 15m, 1h, 2d")
    return int(found[1]) * _UNITS_S[found[2] or "s"]


def chosen(wanted: Sequence[tuple[str, Json]], settings: Mapping[str, Json]) -> dict[str, Json]:
    """What is to be set, by name. Raises `ConfigError` for names that the server's `settings` do not have, or twice."""
    names = [name for name, _ in wanted]
    for name in names:
        if name not in settings:
            raise ConfigError(f"there is no setting {name}; there are {', '.join(settings)}")
        if names.count(name) > 1:
            raise ConfigError(f"{name} is given twice")
    return dict(wanted)
