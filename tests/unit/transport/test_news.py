"""What can be learned from news that were made for others."""

import msgspec
import pytest

from haulcast.domain.ids import TransporterId
from haulcast.domain.routes import Offered
from haulcast.ports import Change
from haulcast.transport.news import News, newly_offered, render
from tests.unit.domain.strategies import begun, candidate, vehicle_of


def wave(size: int) -> News:
    """Of a wave to so many, the n-th n km away."""
    run = begun("van")
    before = run.state
    decision = run.send_wave(
        *(candidate(TransporterId(f"t{number}"), distance_m=1_000 * number) for number in range(size))
    )
    return News.from_bytes(render(Change(1, before, run.state, decision.effects), 0).to_bytes())


def test_to_whom_it_was_offered_and_only_so_many_are_looked_at() -> None:
    t0, t1 = TransporterId("t0"), TransporterId("t1")
    nearest = [Offered(0, vehicle_of(t0), t0), Offered(1_000, vehicle_of(t1), t1)]
    assert newly_offered(wave(5), 2) == (5, nearest)
    assert newly_offered(wave(2), 9) == (2, nearest)
    assert newly_offered(wave(0), 9) == (0, [])


def test_an_offer_in_another_form_is_no_offer_that_is_understood() -> None:
    news = wave(1)
    [update] = [one for one in news.updates if one.event_name == b"offer"]
    odd = msgspec.structs.replace(news, updates=[msgspec.structs.replace(update, tails=[b'"x":1}}}'])])
    with pytest.raises(msgspec.MsgspecError):
        newly_offered(odd, 1)
