"""The dispatch modes, one by one, and what another one takes."""

from collections.abc import Sequence

import pytest

from haulcast.domain import modes
from haulcast.domain.commands import Match, Tick
from haulcast.domain.effects import MeasureAccepts, SeekCandidates
from haulcast.domain.geo import Point
from haulcast.domain.modes import MODES, Contender, Progressive
from haulcast.domain.replies import Done
from haulcast.domain.settings import TenantSettings

from .strategies import PICKUP, T1, T2, T3, accept, begun, vehicle_of

CONFIGURED = (10.0, 25.0, 50.0)


@pytest.mark.parametrize("name", ["progressive", "best_match"])
def test_waves_go_out_as_configured(name: str) -> None:
    assert MODES[name].radii_km(CONFIGURED) == CONFIGURED
    assert MODES[name].offers_per_wave(7) == 7


def test_a_blast_reaches_everybody_at_once() -> None:
    assert MODES["blast"].radii_km(CONFIGURED) == (None,)
    assert MODES["blast"].offers_per_wave(7) == 10_000


@pytest.mark.parametrize(("name", "window_s"), [("progressive", 0), ("blast", 0), ("best_match", 3.5)])
def test_only_the_best_match_waits(name: str, window_s: float) -> None:
    assert MODES[name].accept_window_s(3.5) == window_s


@pytest.mark.parametrize("name", ["progressive", "blast"])
def test_who_came_first_wins_where_nobody_waits(name: str) -> None:
    assert MODES[name].best([Contender(1, 900), Contender(2, 100)]) == 0


@pytest.mark.parametrize(
    ("contenders", "best"),
    [
        ([Contender(1, 900), Contender(2, 100), Contender(3, 500)], 1),
        ([Contender(1, 100), Contender(2, 100)], 0),
        ([Contender(1, None), Contender(2, 90_000)], 1),
        ([Contender(1, None), Contender(2, None)], 0),
        ([Contender(1, 0)], 0),
    ],
)
def test_the_best_match_is_the_nearest_then_the_first_and_who_is_somewhere_unknown_comes_last(
    contenders: Sequence[Contender], best: int
) -> None:
    assert MODES["best_match"].best(contenders) == best


class FarthestFirst(Progressive):
    """Another mode: everybody within 80 km at once, and after a second the farthest wins."""

    def radii_km(self, configured: modes.Radii) -> modes.Radii:
        return (80.0,)

    def accept_window_s(self, configured: float) -> float:
        return 1.0

    def best(self, contenders: Sequence[Contender]) -> int:
        return max(range(len(contenders)), key=lambda index: contenders[index].distance_m or 0)


def test_another_mode_is_a_class_and_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broadcast runs under it from its creation to the end, and nothing else has been told of it."""
    monkeypatch.setattr("haulcast.domain.settings.MODES", {**MODES, "farthest_first": FarthestFirst()})
    run = begun("van", settings=TenantSettings(dispatch_mode="farthest_first"))
    (seek,) = (effect for effect in run.decide(Tick()).effects if isinstance(effect, SeekCandidates))
    assert (seek.wave, seek.radius_m) == (1, 80_000.0)
    run = begun("van", offered=(T1, T2, T3), settings=run.settings)
    for transporter in (T1, T2, T3):
        reply = run.do(accept(transporter)).reply
        assert isinstance(reply, Done)
        assert reply.data["status"] == "pending"
    assert run.state.decide_at_ms == run.now_ms + 1_000
    assert run.at(run.now_ms + 1_000).decide(Tick()).effects == (
        MeasureAccepts((vehicle_of(T1), vehicle_of(T2), vehicle_of(T3))),
    )
    run.do(Match({vehicle_of(T2): Point(PICKUP.lat + 0.5, PICKUP.lng)}))
    assert run.trip().transporter_id == T2
    assert not run.state.live
