"""How settings and times are written on the command line."""

from typing import Any

import pytest

from haulcast.errors import ConfigError
from haulcast.operate.values import chosen, parse_lifetime, parse_setting


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("wave_interval_s=10", "wave_interval_s", 10),
        ("wave_interval_s=2.5", "wave_interval_s", 2.5),
        ("wave_radii_km=[5, 20, null]", "wave_radii_km", [5, 20, None]),
        ("requests_per_s=null", "requests_per_s", None),
        ("dispatch_mode=blast", "dispatch_mode", "blast"),
        ('dispatch_mode="blast"', "dispatch_mode", "blast"),
        ("dispatch_mode=", "dispatch_mode", ""),
        ("dispatch_mode=a=b", "dispatch_mode", "a=b"),
        ("wave_interval_s=NaN", "wave_interval_s", "NaN"),
        ("wave_interval_s=1e999", "wave_interval_s", "1e999"),
    ],
)
def test_a_setting_is_json_or_a_plain_word(text: str, name: str, value: Any) -> None:
    assert parse_setting(text) == (name, value)


@pytest.mark.parametrize("text", ["", "wave_interval_s", "=3", "wave interval=3", "--x=3"])
def test_what_is_no_setting_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        parse_setting(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3_600), ("2d", 172_800)])
def test_a_lifetime_is_seconds_unless_it_says_otherwise(text: str, seconds: int) -> None:
    assert parse_lifetime(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1h", "1w", "1 h", "1h30m", "9999999999"])
def test_what_is_no_lifetime_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="15m, 1h, 2d"):
        parse_lifetime(text)


def test_a_setting_that_the_server_does_not_have_is_told_which_there_are() -> None:
    assert chosen([("a", 1)], {"a": 0, "b": 0}) == {"a": 1}
    with pytest.raises(ConfigError, match="no setting c; there are a, b"):
        chosen([("c", 1)], {"a": 0, "b": 0})
    with pytest.raises(ConfigError, match="a is given twice"):
        chosen([("a", 1), ("a", 2)], {"a": 0})
