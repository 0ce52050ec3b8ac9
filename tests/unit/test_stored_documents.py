"""What was stored by an earlier version is read by this one, and what is stored is what is read."""

from dataclasses import replace

import pytest

from haulcast.domain.events import WaveSent
from haulcast.domain.evolve import evolve
from haulcast.domain.ids import TransporterId, VehicleId
from haulcast.domain.ranking import LeftOut, LeftOutReason
from haulcast.storage.documents import read_event, write_event, write_state
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


def test_the_stored_state_does_not_grow_by_those_left_out() -> None:
    haul = Haul()
    haul.step(haul.created())
    with_them = haul.wave("t1")
    without = replace(with_them, left_out=(), radius_m=None)
    assert with_them.left_out
    assert write_state(evolve(haul.state, with_them)) == write_state(evolve(haul.state, without))
