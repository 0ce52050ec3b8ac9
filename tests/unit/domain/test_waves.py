"""How far each wave reaches and when it is due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.commands import Tick
from haulcast.domain.effects import SeekCandidates
from haulcast.domain.settings import TenantSettings
from haulcast.domain.waves import farther, next_wave_at, offers_per_wave, radius_m, wave_due_at

from .strategies import NOW_MS, T1, T2, Run, begun, candidate, tenant_settings

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
    if wave < len(settings.mode.radii_km(settings.wave_radii_km)) or more:
        assert at_ms is not None
        assert at_ms > now_ms
        assert DUE_MS + interval_ms <= at_ms <= max(DUE_MS, now_ms) + interval_ms
    else:
        assert at_ms is None


@given(tenant_settings(), st.integers(0, 8))
def test_a_wave_reaches_no_less_far_than_the_one_before(settings: TenantSettings, wave: int) -> None:
    reach_m, further_m = radius_m(settings, wave), radius_m(settings, wave + 1)
    assert further_m is None or (reach_m is not None and reach_m <= further_m)


@pytest.mark.parametrize(
    ("reach_m", "than_m", "goes_farther"),
    [
        (2.0, 1.0, True),
        (1.0, 1.0, False),
        (1.0, 2.0, False),
        (None, 1e9, True),
        (1e9, None, False),
        (None, None, False),
    ],
)
def test_nothing_goes_farther_than_everybody(reach_m: float | None, than_m: float | None, goes_farther: bool) -> None:
    assert farther(reach_m, than_m) is goes_farther


def test_the_mode_says_how_far_waves_go_and_to_how_many() -> None:
    blast = TenantSettings(dispatch_mode="blast")
    assert [radius_m(blast, wave) for wave in (0, 1, 2, 9)] == [0.0, None, None, None]
    assert (offers_per_wave(SETTINGS), offers_per_wave(blast)) == (500, 10_000)
    assert next_wave_at(blast, 1, DUE_MS, DUE_MS, more=False) is None
    assert next_wave_at(blast, 1, DUE_MS, DUE_MS, more=True) == DUE_MS + 15_000


# --- When what is in force changes -----------------------------------------------------------------------------------


def sought(run: Run) -> list[tuple[int, float | None, int]]:
    """Number, reach and limit of the wave that is sought now."""
    effects = run.decide(Tick()).effects
    return [(each.wave, each.radius_m, each.limit) for each in effects if isinstance(each, SeekCandidates)]


def waves_sent(run: Run, number: int) -> Run:
    """So many waves have gone out on time, and the clock stands at the last."""
    for _ in range(number):
        run.at(run.state.next_wave_at_ms or 0).send_wave()
    return run


def test_the_wave_that_is_due_next_is_of_the_mode_in_force() -> None:
    run = waves_sent(begun("van"), 3).configure(dispatch_mode="blast")
    assert sought(run) == []
    run.at(run.state.next_wave_at_ms or 0)
    assert sought(run) == [(4, None, 10_000)]
    run.send_wave()
    assert (run.state.next_wave_at_ms, run.state.reached_m) == (None, None)


def test_when_everybody_was_reached_no_mode_has_another_wave() -> None:
    run = waves_sent(begun("van", settings=TenantSettings(dispatch_mode="blast")), 1)
    for mode in ("progressive", "best_match", "blast"):
        assert wave_due_at(run.state, run.configure(dispatch_mode=mode).control, NOW_MS) is None
        assert sought(run) == []


def test_whom_the_last_radius_left_out_a_mode_that_reaches_them_reaches_at_once() -> None:
    run = waves_sent(begun("van", settings=TenantSettings(wave_radii_km=(10, 25))), 2).at(NOW_MS + 100_000)
    assert (run.state.next_wave_at_ms, sought(run)) == (None, [])
    run.configure(dispatch_mode="blast")
    assert sought(run) == [(3, None, 10_000)]
    run.send_wave(candidate(T1, distance_m=90_000))
    assert [*run.state.offers] == [T1]
    assert (run.state.next_wave_at_ms, sought(run)) == (None, [])


def test_waves_go_on_when_radii_are_added_an_interval_apart() -> None:
    run = waves_sent(begun("van", settings=TenantSettings(wave_radii_km=(10, 25))), 2).at(NOW_MS + 100_000)
    run.configure(wave_radii_km=(10, 25, 50, None))
    assert sought(run) == [(3, 50_000.0, 500)]
    run.send_wave()
    assert run.state.next_wave_at_ms == NOW_MS + 115_000
    assert sought(run.at(NOW_MS + 115_000)) == [(4, None, 500)]


def test_radii_between_those_that_were_sent_cause_waves_until_the_last_is_reached() -> None:
    run = waves_sent(begun("van", settings=TenantSettings(wave_radii_km=(10,))), 1)
    assert sought(run.configure(wave_radii_km=(2, 3, 10))) == []
    assert sought(run.configure(wave_radii_km=(2, 3, 11))) == [(2, 3_000.0, 500)]
    run.send_wave()
    waves_sent(run, 1)
    assert (run.state.wave, run.state.reached_m, run.state.next_wave_at_ms) == (3, 11_000.0, None)


def test_a_reach_that_has_shrunk_takes_nothing_back() -> None:
    run = waves_sent(begun("van"), 3).configure(wave_radii_km=(1, 2))
    run.at(run.state.next_wave_at_ms or 0).send_wave(candidate(T2))
    assert (run.state.wave, run.state.reached_m, run.state.next_wave_at_ms) == (4, 50_000.0, None)
    assert sought(run) == []
