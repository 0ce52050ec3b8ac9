"""How far each wave reaches and when it is due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.settings import TenantSettings
from haulcast.domain.waves import next_wave_at, radius_m

from .strategies import tenant_settings

SETTINGS = TenantSettings()  # five radii, 15 s apart
DUE_MS = 1_000_000


def test_each_wave_has_its_radius() -> None:
    assert [radius_m(SETTINGS, wave) for wave in range(1, 6)] == [10_000, 25_000, 50_000, 75_000, None]


def test_before_the_first_wave_nobody_has_been_reached() -> None:
    assert radius_m(SETTINGS, 0) == 0
    assert radius_m(TenantSettings(wave_radii_km=(None,)), 0) == 0


def test_after_the_last_radius_the_reach_stays() -> None:
    assert radius_m(SETTINGS, 6) is None
    assert radius_m(TenantSettings(wave_radii_km=(10, 25)), 9) == 25_000


@pytest.mark.parametrize("late_ms", [-3, 0, 1, 200, 7_500])
def test_waves_keep_their_schedule_while_the_lookups_take_a_moment(late_ms: int) -> None:
    assert next_wave_at(SETTINGS, 1, DUE_MS, DUE_MS + late_ms, more=False) == DUE_MS + 15_000


@pytest.mark.parametrize("late_ms", [7_501, 14_999, 15_000, 15_001, 3_600_000])
def test_a_wave_that_is_more_than_half_an_interval_late_gives_the_next_a_full_one(late_ms: int) -> None:
    now_ms = DUE_MS + late_ms
    assert next_wave_at(SETTINGS, 1, DUE_MS, now_ms, more=False) == now_ms + 15_000


def test_the_last_radius_ends_the_waves_unless_somebody_was_left_out() -> None:
    assert next_wave_at(SETTINGS, 4, DUE_MS, DUE_MS, more=False) == DUE_MS + 15_000
    for wave in (5, 6, 50):
        assert next_wave_at(SETTINGS, wave, DUE_MS, DUE_MS, more=False) is None
        assert next_wave_at(SETTINGS, wave, DUE_MS, DUE_MS, more=True) == DUE_MS + 15_000


def test_an_interval_may_be_a_fraction_of_a_second() -> None:
    settings = TenantSettings(wave_interval_s=0.25)
    assert next_wave_at(settings, 1, DUE_MS, DUE_MS, more=False) == DUE_MS + 250


@given(tenant_settings(), st.integers(1, 8), st.integers(-10, 10_000_000), st.booleans())
def test_the_next_wave_is_ahead_and_never_sooner_than_its_schedule(
    settings: TenantSettings, wave: int, late_ms: int, more: bool
) -> None:
    now_ms = DUE_MS + late_ms
    interval_ms = round(settings.wave_interval_s * 1000)
    at_ms = next_wave_at(settings, wave, DUE_MS, now_ms, more)
    if wave < len(settings.wave_radii_km) or more:
        assert at_ms is not None
        assert at_ms > now_ms
        assert DUE_MS + interval_ms <= at_ms <= max(DUE_MS, now_ms) + interval_ms
    else:
        assert at_ms is None


@given(tenant_settings(), st.integers(0, 8))
def test_a_wave_reaches_no_less_far_than_the_one_before(settings: TenantSettings, wave: int) -> None:
    reach_m, further_m = radius_m(settings, wave), radius_m(settings, wave + 1)
    assert further_m is None or (reach_m is not None and reach_m <= further_m)
