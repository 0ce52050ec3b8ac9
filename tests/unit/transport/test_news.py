"""What can be learned from news that were made for others."""

import msgspec
import pytest

from haulcast.domain.broadcast import Broadcast
from haulcast.domain.commands import Cancel, Command, Match
from haulcast.domain.effects import Effect
from haulcast.domain.ids import TransporterId
from haulcast.domain.routes import Offered
from haulcast.domain.settings import TenantSettings
from haulcast.ports import Change
from haulcast.transport.news import News, newly_offered, render
from tests.unit.domain.strategies import CUSTOMER, T1, T2, Run, accept, begun, candidate, vehicle_of


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


# --- Accepts that wait -----------------------------------------------------------------------------------------------

AT = "/offers/01k9haul/decided_at"


def told(run: Run, command: Command) -> list[tuple[list[str], object, str, object]]:
    """What the feeds are told: topics, delta, event and its data."""
    before = run.state
    news = render(Change(1, before, *_after(run, command)), run.now_ms)
    return [
        (
            update.topics,
            msgspec.json.decode(update.delta),
            update.event_name.decode(),
            msgspec.json.decode(update.event) if update.event else None,
        )
        for update in news.updates
    ]


def _after(run: Run, command: Command) -> tuple[Broadcast, tuple[Effect, ...]]:
    effects = run.do(command).effects
    return run.state, effects


def best_match() -> Run:
    return begun("van", offered=(T1, T2), settings=TenantSettings(dispatch_mode="best_match"))


def test_the_offer_of_who_waits_says_until_when() -> None:
    run = best_match()
    assert told(run, accept(T1)) == [(["feed:t1"], {"set": {AT: run.now_ms + 3_000}, "del": []}, "", None)]


def test_who_loses_is_told_once_with_the_code_before_the_offer_closes() -> None:
    run = best_match()
    run.do(accept(T1))
    run.do(accept(T2))
    updates = told(run.at(run.now_ms + 3_000), Match({}))
    lost = {
        "broadcast_id": "01k9haul",
        "vehicle_id": "t2:van",
        "code": "REQUEST_ALREADY_TAKEN",
        "remaining_requests": 0,
    }
    assert [(topics, event) for topics, _, event, _ in updates] == [
        (["feed:t1", "driver:t1:driver"], "trip_assigned"),
        (["feed:t1", "feed:t2"], ""),
        (["feed:t2"], "accept_lost"),
        (["feed:t1"], ""),
        (["feed:t2"], "offer_closed"),
    ]
    assert updates[1][1] == {"set": {}, "del": [AT]}
    assert updates[2][1:] == ({"set": {}, "del": []}, "accept_lost", lost)


def test_who_waits_when_the_broadcast_is_cancelled_is_told_both() -> None:
    run = best_match()
    run.do(accept(T1))
    updates = told(run, Cancel(CUSTOMER))
    assert [(topics, event) for topics, _, event, _ in updates] == [
        (["feed:t1"], ""),
        (["feed:t1"], "accept_lost"),
        (["feed:t1", "feed:t2"], "offer_closed"),
    ]
