"""What holds of a broadcast whatever is asked of it, in whatever order, on whatever clock.

A machine sends random commands at random times, some of them at a deadline or a little before or after, some after
the clock has stepped back. It believes nothing of the decisions: it keeps its own book of who has the offer on the
screen, from the effects alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace

from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from haulcast.domain import effects as fx
from haulcast.domain import events as e
from haulcast.domain.broadcast import Broadcast
from haulcast.domain.commands import (
    Accept,
    Appear,
    Cancel,
    Command,
    Create,
    Decline,
    DropAccept,
    Match,
    SendWave,
    Tick,
    UpdateTrip,
)
from haulcast.domain.control import TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.decision import Decision
from haulcast.domain.evolve import evolve, replay
from haulcast.domain.geo import Point
from haulcast.domain.ids import CustomerId, TransporterId, VehicleId, request_id, trip_id
from haulcast.domain.modes import MODES
from haulcast.domain.ranking import Candidate, LeftOut
from haulcast.domain.replies import Done, Refusal, Refused
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import (
    BROADCAST_TRANSITIONS,
    REQUEST_TRANSITIONS,
    TRIP_TRANSITIONS,
    BroadcastStatus,
    RequestStatus,
    TripStatus,
)
from haulcast.domain.views import broadcast_view, offer_fill
from haulcast.domain.waves import offers_per_wave

from .strategies import (
    BROADCAST,
    CUSTOMER,
    NOW_MS,
    PICKUP,
    STRANGER,
    TRANSPORTERS,
    accept,
    accepts,
    appearances,
    candidate,
    candidates,
    creates,
    distances_m,
    found,
    lefts_out,
    tenant_settings,
    transporters,
    trip_statuses,
    trip_updates,
)


@dataclass(frozen=True)
class After:
    """So many milliseconds later (earlier if negative), or that far from the next deadline."""

    ms: int
    from_deadline: bool = False


moments = st.one_of(
    st.builds(After, st.integers(-5, 50)),
    st.builds(After, st.integers(-5, 2_000)),
    st.builds(After, st.integers(-5, 20_000)),
    st.builds(After, st.integers(-1, 1), st.just(True)),
)
at_once = st.builds(After, st.integers(-5, 50))


class Dispatch(RuleBasedStateMachine):
    """One broadcast from its creation on."""

    control: TenantControl
    state: Broadcast

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW_MS
        self.events: list[e.Event] = []
        self.offered: list[TransporterId] = []  # ever, in order
        self.holding: set[TransporterId] = set()  # those on whose screens the offer is, open
        self.pending: dict[VehicleId, TransporterId] = {}  # who was told that an accept waits, and has heard no more
        self.shown_waiting: set[TransporterId] = set()  # those on whose screens the offer says that it waits
        self.ended = 0  # how often the watchers were told of an end

    @property
    def settings(self) -> TenantSettings:
        return self.control.settings

    @initialize(settings=tenant_settings(), command=creates)
    def create(self, settings: TenantSettings, command: Create) -> None:
        self.control = TenantControl(settings)
        expires_in_s = settings.default_expiry_s if command.expires_in_s is None else command.expires_in_s
        if not settings.min_expiry_s <= expires_in_s <= settings.max_expiry_s:
            decision = decide(None, command, self.control, self.now_ms)
            assert isinstance(decision.reply, Refused)
            assert not decision.events
            assert not decision.effects
            command = replace(command, expires_in_s=None)
        decision = decide(None, command, self.control, self.now_ms)
        self.state = evolve(None, *decision.events)
        self.events += decision.events
        assert isinstance(decision.reply, Done)
        assert self.state.seq == 1
        assert self.state.expires_at_ms > self.now_ms
        self._every_deadline_is_ahead_or_served(decision)

    # --- Commands ---

    @rule(after=at_once, customer=st.sampled_from((CUSTOMER, STRANGER)))
    @precondition(lambda self: self.state.seq > 4 or not self.state.live)  # or few broadcasts would see much
    def cancel(self, after: After, customer: CustomerId) -> None:
        alive = self.state.live and self.now_ms + after.ms < self.state.expires_at_ms
        decision = self._do(after, Cancel(customer))
        assert isinstance(decision.reply, Done) == (alive and customer == CUSTOMER)

    @rule(after=moments, command=accepts)
    def try_to_accept(self, after: After, command: Accept) -> None:
        self._accept(after, command)

    @rule(after=at_once, data=st.data())
    @precondition(lambda self: self.offered and self.state.open_requests)
    def accept(self, after: After, data: st.DataObject) -> None:
        transporter = data.draw(st.sampled_from(self.offered))
        wanted = [request.vehicle_type for request in self.state.open_requests]
        self._accept(after, accept(transporter, data.draw(st.sampled_from(wanted))))

    @rule(late_ms=st.sampled_from((-1, 0, 1)), data=st.data())
    @precondition(lambda self: self.state.live and self.state.seq > 4)
    def accept_around_the_expiry(self, late_ms: int, data: st.DataObject) -> None:
        transporter = data.draw(st.sampled_from([*self.offered, TRANSPORTERS[0]]))
        wanted = self.state.open_requests[0].vehicle_type
        self.now_ms = self.state.expires_at_ms
        decision = self._accept(After(late_ms), accept(transporter, wanted))
        assert isinstance(decision.reply, Done) == (late_ms < 0 and transporter in self.offered)
        assert late_ms < 0 or self.state.status is BroadcastStatus.EXPIRED

    def _accept(self, after: After, command: Accept) -> Decision:
        before = self.state
        decision = self._do(after, command)
        assigned = [event.trip for event in decision.events if isinstance(event, e.TruckAssigned)]
        if isinstance(decision.reply, Refused):
            assert not assigned
            assert self.state.trips == before.trips
            return decision
        assert isinstance(decision.reply, Done)
        assert before.live
        assert self.now_ms < before.expires_at_ms
        assert command.transporter_id in before.offers
        if decision.reply.data["status"] == "pending":
            assert before.waiting or self.settings.dispatch_mode == "best_match"
            assert not assigned
            assert command.vehicle_id in self.pending
            assert decision.reply.data["decided_at"] == self.state.decide_at_ms
        else:
            (trip,) = assigned
            assert not before.waiting
            assert (trip.transporter_id, trip.vehicle_id, trip.driver_id, trip.vehicle_type) == (
                command.transporter_id,
                command.vehicle_id,
                command.driver_id,
                command.vehicle_type,
            )
            assert trip.request_id in {request.request_id for request in before.open_requests}
        return decision

    @rule(after=at_once, data=st.data(), far=st.dictionaries(transporters, st.floats(0, 2)))
    @precondition(lambda self: self.state.waiting)
    def match_those_who_wait(self, after: After, data: st.DataObject, far: dict[TransporterId, float]) -> None:
        before = self.state
        assert before.decide_at_ms is not None
        self.now_ms = max(self.now_ms, before.decide_at_ms)
        positions = {
            each.vehicle_id: Point(PICKUP.lat + far[each.transporter_id], PICKUP.lng)
            for each in before.waiting
            if each.transporter_id in far
        }
        first = data.draw(st.sampled_from(before.waiting))
        refused = data.draw(st.booleans())
        command = DropAccept(first.vehicle_id, Refusal.DRIVER_BUSY, positions) if refused else Match(positions)
        decision = self._do(after, command)
        assert decision.reply is None or not refused
        if self.now_ms < before.expires_at_ms and self.now_ms >= before.decide_at_ms:
            assert len(self.state.waiting) < len(before.waiting), "each step brings the end nearer"
            went_on = [effect for effect in decision.effects if isinstance(effect, fx.MatchOn)]
            assert went_on == ([fx.MatchOn(positions)] if self.state.waiting else [])

    @rule(mode=st.sampled_from([*MODES]), paused=st.booleans())
    def have_something_else_in_force(self, mode: str, paused: bool) -> None:
        settings = replace(self.settings, dispatch_mode=mode)
        self.control = TenantControl(settings, paused, self.control.version + 1)

    @rule(after=moments, transporter=transporters)
    def decline(self, after: After, transporter: TransporterId) -> None:
        decision = self._do(after, Decline(transporter))
        assert isinstance(decision.reply, Done) == (transporter in self.offered)
        assert transporter not in self.holding

    @rule(after=at_once, data=st.data())
    @precondition(lambda self: self.state.trips)
    def move_a_trip(self, after: After, data: st.DataObject) -> None:
        trip = data.draw(st.sampled_from(self.state.trips))
        status = data.draw(trip_statuses)
        decision = self._do(after, UpdateTrip(trip.driver_id, trip.trip_id, status, by_driver=True))
        allowed = status is trip.status or status in TRIP_TRANSITIONS[trip.status]
        assert isinstance(decision.reply, Done) == allowed
        moved = self.state.trip(trip.trip_id)
        assert moved is not None
        assert moved.status is (status if allowed else trip.status)

    @rule(after=moments, data=st.data())
    def update_trip(self, after: After, data: st.DataObject) -> None:
        trip_ids = [trip_id(request.request_id) for request in self.state.requests]
        self._do(after, data.draw(trip_updates([*trip_ids, trip_id(request_id(BROADCAST, 99))])))

    @rule(after=moments)
    def tick(self, after: After) -> None:
        decision = self._do(after, Tick())
        assert decision.reply is None
        self._every_deadline_is_ahead_or_served(decision)

    @rule(data=st.data())
    @precondition(lambda self: self.state.live)
    def tick_at_a_deadline(self, data: st.DataObject) -> None:
        self.now_ms = max(self.now_ms, data.draw(st.sampled_from([*self.state.deadlines()])))
        self.tick(After(0))

    @rule(after=moments, nearby=st.lists(candidates, max_size=8), more=st.booleans(), skew=st.sampled_from((0, -1, 1)))
    def send_another_wave(self, after: After, nearby: list[Candidate], more: bool, skew: int) -> None:
        self._send_wave(after, found(self.state.wave + 1 + skew, *nearby, more=more, settings=self.settings))

    @rule(after=at_once, data=st.data(), more=st.booleans(), others=st.lists(lefts_out, max_size=4))
    @precondition(lambda self: self.state.next_wave_at_ms is not None)
    def send_the_due_wave(self, after: After, data: st.DataObject, more: bool, others: list[LeftOut]) -> None:
        assert self.state.next_wave_at_ms is not None
        late_ms = max(0, self.state.next_wave_at_ms - self.now_ms) + max(0, after.ms)
        types = st.sampled_from([request.vehicle_type for request in self.state.requests])
        nearby = data.draw(st.lists(st.builds(candidate, transporters, types, distances_m), min_size=1, max_size=8))
        self._send_wave(
            After(late_ms), found(self.state.wave + 1, *nearby, more=more, left_out=others, settings=self.settings)
        )

    @rule(after=moments, command=appearances)
    def appear(self, after: After, command: Appear) -> None:
        self._do(after, command)

    # --- What always holds ---

    @invariant()
    def never_more_winners_than_trucks_and_one_trip_per_request(self) -> None:
        for request in self.state.requests:
            assert (request.trip is not None) == (request.status is RequestStatus.ASSIGNED)
            assert request.trip is None or request.trip.request_id == request.request_id
            assert request.trip is None or request.trip.vehicle_type == request.vehicle_type
        assert len({trip.trip_id for trip in self.state.trips}) == len(self.state.trips)
        assert len(self.state.trips) <= len(self.state.requests)

    @invariant()
    def what_is_live_wants_trucks_and_what_has_ended_wants_none(self) -> None:
        assert self.state.live == bool(self.state.open_requests)
        assert self.state.live == (self.state.ended_at_ms is None) == (self.state.end_reason is None)
        assert self.state.live or not [*self.state.deadlines()]

    @invariant()
    def the_screens_show_the_offer_while_it_lives_and_each_is_told_once(self) -> None:
        assert set(self.state.offers) == set(self.offered)
        declined = {transporter for transporter, offer in self.state.offers.items() if offer.declined}
        assert self.holding == (set(self.offered) - declined if self.state.live else set())
        assert self.ended <= 1

    @invariant()
    def whoever_was_told_to_wait_waits_for_a_truck_that_is_open_until_told_more(self) -> None:
        state = self.state
        assert {each.vehicle_id: each.transporter_id for each in state.waiting} == self.pending
        assert bool(state.waiting) == (state.decide_at_ms is not None)
        assert {each.vehicle_type for each in state.waiting} <= {each.vehicle_type for each in state.open_requests}
        assert self.shown_waiting == {*self.pending.values()} & self.holding
        assert state.decide_at_ms is None or state.decide_at_ms < state.expires_at_ms

    @invariant()
    def the_views_agree(self) -> None:
        view = broadcast_view(self.state)
        assert view["remaining_requests"] == offer_fill(self.state)["remaining_requests"]
        assert view["notified"] == len(self.offered)

    def teardown(self) -> None:
        if self.events:
            assert replay(self.events) == self.state
            assert len(self.events) == self.state.seq

    # --- How ---

    def _do(self, after: After, command: Command) -> Decision:
        deadline_ms = min(self.state.deadlines(), default=self.now_ms) if after.from_deadline else self.now_ms
        self.now_ms = max(deadline_ms, self.now_ms - 5) + after.ms  # a step back is small
        before = self.state
        untouched = replace(before, offers=dict(before.offers))
        decision = decide(before, command, self.control, self.now_ms)
        assert before == untouched
        assert decision == decide(untouched, command, self.control, self.now_ms)
        for event in decision.events:
            self.state = self._evolve(self.state, event)
        assert before == untouched
        self.events += decision.events
        assert len([event for event in decision.events if isinstance(event, e.TruckAssigned)]) <= 1
        self._moves_are_legal(before)
        self._effects_follow_from_events(before, command, decision)
        return decision

    def _evolve(self, state: Broadcast, event: e.Event) -> Broadcast:
        after = evolve(state, event)
        assert after.seq == state.seq + 1
        assert evolve(state, event) == after
        return after

    def _moves_are_legal(self, before: Broadcast) -> None:
        after = self.state
        assert after.status is before.status or after.status in BROADCAST_TRANSITIONS[before.status]
        assert before.live or (after.end_reason, after.ended_at_ms) == (before.end_reason, before.ended_at_ms)
        for was, now in zip(before.requests, after.requests, strict=True):
            assert now.status is was.status or now.status in REQUEST_TRANSITIONS[was.status]
            if was.trip is not None:
                assert now.trip is not None
                assert now.trip.status is was.trip.status or now.trip.status in TRIP_TRANSITIONS[was.trip.status]
                assert replace(now.trip, status=was.trip.status, updated_at_ms=was.trip.updated_at_ms) == was.trip
        for transporter, offer in before.offers.items():
            assert after.offers[transporter] in (offer, replace(offer, declined=True))

    def _effects_follow_from_events(self, before: Broadcast, command: Command, decision: Decision) -> None:
        """Keeps the book of the screens."""
        winners = {trip.transporter_id for trip in self.state.trips if trip.status is not TripStatus.CANCELLED}
        has_ended = before.live and not self.state.live
        opened = [offer for effect in decision.effects if isinstance(effect, fx.OpenOffers) for offer in effect.offers]
        assert opened == [*_offers(decision.events)]
        told: list[TransporterId] = []
        for effect in decision.effects:
            match effect:
                case fx.OpenOffers(offers):
                    assert offers
                    for offer in offers:
                        assert offer.transporter_id not in self.offered, "offered twice"
                        assert offer.wave >= 1
                        self.offered.append(offer.transporter_id)
                        self.holding.add(offer.transporter_id)
                case fx.AmendOffers(to):
                    assert self.state.live
                    assert len(to) == len(set(to))
                    assert set(to) == self.holding
                case fx.CloseOffers(to):
                    assert has_ended
                    assert not winners & {*to}, "a winner never hears that it is over"
                    told += to
                case fx.ShowWaiting(to, decided_at_ms):
                    assert {*to} <= self.holding
                    assert bool({*to} & self.shown_waiting) == (decided_at_ms is None)
                    if decided_at_ms is None:
                        assert {*to} <= self.shown_waiting
                        self.shown_waiting -= {*to}
                    else:
                        assert decided_at_ms == self.state.decide_at_ms
                        self.shown_waiting |= {*to}
                case fx.LoseAccepts(lost):
                    for each in lost:
                        assert self.pending.pop(each.vehicle_id) == each.transporter_id, "told that it is lost twice"
                case fx.DropOffers(to):
                    if isinstance(command, Decline):
                        self.shown_waiting.discard(command.transporter_id)
                    assert (has_ended and winners >= {*to}) or command == Decline(*to)
                    told += to
                case fx.ShowTrip(trip, news):
                    assert news is not fx.TripNews.TRIP_CONTINUES or (has_ended and trip.active)
                case fx.TellWatchers(news):
                    if news in (fx.CustomerNews.BROADCAST_CANCELLED, fx.CustomerNews.BROADCAST_EXPIRED):
                        assert has_ended
                        self.ended += 1
                case fx.SeekCandidates():
                    assert self.state.live
        for event in decision.events:
            if isinstance(event, e.AcceptWaiting):
                assert event.accept.vehicle_id not in self.pending
                self.pending[event.accept.vehicle_id] = event.accept.transporter_id
            elif isinstance(event, e.TruckAssigned):
                self.pending.pop(event.trip.vehicle_id, None)
            elif isinstance(event, e.Declined):
                self.pending = {each: who for each, who in self.pending.items() if who != event.transporter_id}
        assert self.shown_waiting.isdisjoint(told), "the offer goes from the screen and still says that it waits"
        assert len(told) == len(set(told)), "told twice at once"
        assert self.holding >= {*told}, "told of the end of what is not on the screen"
        self.holding -= {*told}
        assert {*_named(decision.effects), *_named(decision.reply)} <= {*self.offered}
        if has_ended:
            self._trips_go_on(before, decision)

    def _trips_go_on(self, before: Broadcast, decision: Decision) -> None:
        """Whoever has a trip under way when the broadcast is cancelled or expires hears that it continues."""
        shown = [
            effect.trip.trip_id
            for effect in decision.effects
            if isinstance(effect, fx.ShowTrip) and effect.news is fx.TripNews.TRIP_CONTINUES
        ]
        filled = any(isinstance(event, e.TruckAssigned) for event in decision.events)
        assert shown == ([] if filled else [trip.trip_id for trip in before.trips if trip.active])

    def _send_wave(self, after: After, command: SendWave) -> None:
        before = self.state
        decision = self._do(after, command)
        shuffled = replace(command, candidates=command.candidates[::-1])
        assert decide(before, shuffled, self.control, self.now_ms) == decision
        sent = [event for event in decision.events if isinstance(event, e.WaveSent)]
        alive = before.live and self.now_ms < before.expires_at_ms and not self.control.paused
        due = alive and (before.next_wave_at_ms is not None or self._reaches_farther(before))
        assert bool(sent) == (due and command.wave == before.wave + 1)
        for wave in sent:
            ranks = [(offer.distance_m, offer.transporter_id) for offer in wave.offers]
            assert ranks == sorted(ranks), "nearest first"
            assert len(ranks) <= offers_per_wave(self.settings)
            assert wave.next_wave_at_ms is None or wave.next_wave_at_ms > self.now_ms
            left = {each.transporter_id for each in command.candidates} - set(self.state.offers)
            if left or command.more:
                assert wave.next_wave_at_ms is not None, "who has been found is not forgotten"
            wanted = {request.vehicle_type for request in before.open_requests}
            assert {offer.vehicle_type for offer in wave.offers} <= wanted
            others = [each.transporter_id for each in wave.left_out]
            assert len(set(others)) == len(others), "each is left out once"
            assert not set(others) & set(self.state.offers), "nobody is both offered it and left out"
            assert list(wave.left_out) == sorted(wave.left_out), "nearest first"
            assert left <= set(others)

    def _every_deadline_is_ahead_or_served(self, decision: Decision) -> None:
        state = self.state
        if state.live:
            assert state.expires_at_ms > self.now_ms
            assert state.reminder_at_ms is None or state.reminder_at_ms > self.now_ms
            seeks = [effect for effect in decision.effects if isinstance(effect, fx.SeekCandidates)]
            if state.next_wave_at_ms is None:
                due = self._reaches_farther(state)
            else:
                due = state.next_wave_at_ms <= self.now_ms
            assert len(seeks) == (due and not self.control.paused)
            if self.control.paused and state.next_wave_at_ms is not None and due:
                assert state.wave_held
            measured = [effect for effect in decision.effects if isinstance(effect, fx.MeasureAccepts)]
            wait = tuple(each.vehicle_id for each in state.waiting)
            over = state.decide_at_ms is not None and state.decide_at_ms <= self.now_ms
            assert measured == ([fx.MeasureAccepts(wait)] if over else [])
            for seek in seeks:
                assert seek.wave == state.wave + 1
                assert seek.vehicle_types == {request.vehicle_type for request in state.open_requests}
        else:
            assert not [*state.deadlines()]

    def _reaches_farther(self, state: Broadcast) -> bool:
        """Whether what is in force would reach somebody whom no wave has reached."""
        last_km = self.settings.mode.radii_km(self.settings.wave_radii_km)[-1]
        return state.reached_m is not None and (last_km is None or last_km * 1000 > state.reached_m)


def _offers(events: Sequence[e.Event]) -> Iterator[object]:
    for event in events:
        if isinstance(event, e.WaveSent):
            yield from event.offers
        elif isinstance(event, e.Offered):
            yield event.offer


def _named(value: object) -> Iterator[str]:
    """Every transporter whose id stands anywhere in `value`."""
    if isinstance(value, str):
        if value in TRANSPORTERS:
            yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _named(key)
            yield from _named(each)
    elif isinstance(value, (tuple, list, set, frozenset)):
        for each in value:
            yield from _named(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _named(getattr(value, field.name))


TestDispatch = Dispatch.TestCase
TestDispatch.settings = profile(max_examples=250, stateful_step_count=40)
