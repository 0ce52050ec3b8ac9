"""What was stored by an earlier version is read by this one, and what is stored is what is read."""

import json
from dataclasses import replace

import pytest

from haulcast.domain.broadcast import WaitingAccept
from haulcast.domain.commands import SendWave, Tick
from haulcast.domain.control import TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.effects import SeekCandidates
from haulcast.domain.events import AcceptsLost, AcceptWaiting, Event, WaveHeld, WaveSent
from haulcast.domain.evolve import evolve
from haulcast.domain.ids import DriverId, TransporterId, VehicleId
from haulcast.domain.ranking import LeftOut, LeftOutReason
from haulcast.domain.replies import Refusal
from haulcast.storage.documents import read_event, read_state, write_event, write_state
from tests.contract.hauls import Haul


def test_a_wave_stored_before_it_recorded_who_was_left_out_is_read_without() -> None:
    document = (
        '{"at_ms":1790000000000,"wave":2,"offers":[{"transporter_id":"t1","wave":2,"vehicle_id":"v1",'
        '"vehicle_type":"van","distance_m":900,"offered_at_ms":1790000000000,"declined":false}],"next_wave_at_ms":null}'
    )
    event = read_event("wave_sent", document)
    assert isinstance(event, WaveSent)
    assert [offer.transporter_id for offer in event.offers] == ["t1"]
    assert (event.radius_m, event.left_out) == (0.0, ())


@pytest.mark.parametrize("radius_m", [10_000.0, None])
@pytest.mark.parametrize("reason", LeftOutReason)
def test_a_wave_is_read_as_it_was_written(radius_m: float | None, reason: LeftOutReason) -> None:
    left_out = LeftOut(4_321, TransporterId("t7"), VehicleId("v7"), "van", reason)
    event = WaveSent(1, 2, (), None, radius_m, (left_out, replace(left_out, distance_m=5_000)))
    assert read_event(*write_event(event)) == event


def test_a_state_stored_before_accepts_could_wait_is_read_with_none_and_as_not_known_to_have_reached_anybody() -> None:
    haul = Haul()
    haul.step(haul.created())
    haul.step(haul.wave("t1"))
    assert haul.state is not None
    document = json.loads(write_state(haul.state))
    for field in ("reached_m", "wave_held", "waiting", "decide_at_ms"):
        del document[field]
    before = replace(haul.state, offers={}, reached_m=0.0)
    assert read_state(json.dumps(document)) == before
    assert (before.waiting, before.decide_at_ms, before.wave_held) == ((), None, False)


def test_a_broadcast_from_before_that_had_sent_its_last_wave_sends_one_more_and_no_other() -> None:
    """How far it had reached was not recorded, and nobody is offered it twice."""
    haul = Haul()
    haul.step(haul.created())
    haul.step(WaveSent(haul.at_ms, 5, (), None))
    assert haul.state is not None
    control = TenantControl()
    [seek] = decide(haul.state, Tick(), control, haul.at_ms).effects
    assert isinstance(seek, SeekCandidates)
    answer = SendWave(seek.wave, seek.radius_m, seek.limit, (), False)
    [sent] = decide(haul.state, answer, control, haul.at_ms).events
    haul.step(sent)
    assert haul.state is not None
    assert decide(haul.state, Tick(), control, haul.at_ms + 60_000).effects == ()


def test_accepts_that_wait_are_read_as_they_were_written() -> None:
    haul = Haul()
    haul.step(haul.created())
    haul.step(haul.wave("t1"))
    waiting = WaitingAccept(TransporterId("t1"), VehicleId("t1v1"), "van", DriverId("t1d1"), haul.at_ms)
    events: list[Event] = [
        AcceptWaiting(haul.at_ms, waiting, haul.at_ms + 3_000),
        WaveHeld(haul.at_ms),
        AcceptsLost(haul.at_ms, (waiting.vehicle_id,), Refusal.DRIVER_BUSY),
    ]
    for event in events:
        assert read_event(*write_event(event)) == event
        haul.step(event)
        assert haul.state is not None
        assert read_state(write_state(haul.state)) == replace(haul.state, offers={})


def test_the_stored_state_does_not_grow_by_those_left_out() -> None:
    haul = Haul()
    haul.step(haul.created())
    with_them = haul.wave("t1")
    without = replace(with_them, left_out=())
    assert with_them.left_out
    assert write_state(evolve(haul.state, with_them)) == write_state(evolve(haul.state, without))
