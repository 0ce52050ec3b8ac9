"""Settings that cannot work do not come into being, and say which field and what would be right."""

from math import inf, nan

import pytest
from hypothesis import given

from haulcast.domain.settings import MAX_RADIUS_KM, InvalidSetting, TenantSettings

from .strategies import tenant_settings


def test_the_defaults_are_the_documented_ones() -> None:
    defaults = TenantSettings()
    assert defaults.wave_radii_km == (10, 25, 50, 75, None)
    assert defaults.wave_interval_s == 15
    assert defaults.reminder_lead_s == 60
    assert (defaults.toggle_limit, defaults.toggle_window_s) == (10, 300)
    assert defaults.min_expiry_s <= defaults.default_expiry_s <= defaults.max_expiry_s


@pytest.mark.parametrize(
    "radii",
    [
        (None,),
        (0.5,),
        (MAX_RADIUS_KM,),
        (1, 2),
        (1, 2, None),
        tuple(range(1, 21)),
    ],
)
def test_radii_that_grow_are_allowed(radii: tuple[float | None, ...]) -> None:
    assert TenantSettings(wave_radii_km=radii).wave_radii_km == radii


@pytest.mark.parametrize(
    "radii",
    [
        (),
        tuple(range(1, 22)),
        (0,),
        (-1,),
        (nan,),
        (inf,),
        (MAX_RADIUS_KM + 0.1,),
        (10, 10),
        (25, 10),
        (10, nan),
        (None, 10),
        (None, None),
        (10, None, 25),
    ],
)
def test_radii_that_do_not_grow_or_reach_nobody_are_not(radii: tuple[float | None, ...]) -> None:
    with pytest.raises(InvalidSetting) as caught:
        TenantSettings(wave_radii_km=radii)
    assert caught.value.field == "wave_radii_km"


BOUNDS = [
    ("wave_interval_s", 0.1, 3_600),
    ("max_offers_per_wave", 1, 10_000),
    ("reminder_lead_s", 1, 86_400),
    ("toggle_limit", 1, 1_000),
    ("toggle_window_s", 1, 86_400),
    ("min_expiry_s", 1, 300),  # up to the default expiry
    ("max_expiry_s", 300, 604_800),  # from the default expiry
    ("default_expiry_s", 10, 86_400),  # from the least to the most
]


@pytest.mark.parametrize(("field", "low", "high"), BOUNDS)
def test_a_value_at_its_bounds_is_allowed(field: str, low: float, high: float) -> None:
    for value in (low, high):
        assert getattr(TenantSettings(**{field: value}), field) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "low", "high"), BOUNDS)
def test_a_value_outside_its_bounds_is_not(field: str, low: float, high: float) -> None:
    for value in (low - 0.01, high + 1, -low, inf, -inf, nan):
        with pytest.raises(InvalidSetting):
            TenantSettings(**{field: value})  # type: ignore[arg-type]


def test_the_expiries_have_absolute_bounds_too() -> None:
    week = 604_800
    everything = TenantSettings(min_expiry_s=1, default_expiry_s=week, max_expiry_s=week)
    assert everything.max_expiry_s == week
    for least, most in ((0, week), (1, week + 1), (week + 1, week + 1)):
        with pytest.raises(InvalidSetting):
            TenantSettings(min_expiry_s=least, default_expiry_s=week, max_expiry_s=most)


def test_a_refusal_names_the_field_the_value_and_what_would_be_right() -> None:
    with pytest.raises(InvalidSetting) as caught:
        TenantSettings(max_expiry_s=5)
    error = caught.value
    assert (error.field, error.allowed) == ("max_expiry_s", "10 to 604800")
    assert str(error) == "max_expiry_s: 5 is not allowed; give 10 to 604800"


@given(tenant_settings())
def test_settings_that_work_come_into_being(settings: TenantSettings) -> None:
    assert settings.min_expiry_s <= settings.default_expiry_s <= settings.max_expiry_s
