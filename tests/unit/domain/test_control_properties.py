"""Whatever is changed while a broadcast lives, each decision is of one `TenantControl`: the one in force then.

A machine plays the actor: it rings deadlines, looks candidates up as they are sought, and brings what was found back
later. In between the settings, the mode and the pause change at random. What each control stands for it works out by
itself, and holds every wave against that.
"""

from dataclasses import replace

from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from haulcast.domain import effects as fx
from haulcast.domain import events as e
from haulcast.domain.broadcast import Broadcast
from haulcast.domain.commands import Accept, Appear, Command, Decline, SendWave, Tick
from haulcast.domain.control import TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.decision import Decision
from haulcast.domain.evolve import evolve, replay
from haulcast.domain.ids import TransporterId
from haulcast.domain.ranking import Candidate
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import BroadcastStatus

from .strategies import NOW_MS, TRANSPORTERS, TYPES, accept, candidate, create, tenant_settings, transporters

FLEET = tuple(
    candidate(transporter, TYPES[number % 2], distance_m)
    for number, (transporter, distance_m) in enumerate(
        zip(TRANSPORTERS, (500, 7_000, 12_000, 31_000, 64_000, 118_000), strict=True)
    )
)
"""One vehicle each, from near to far."""


def reach_of(control: TenantControl, wave: int) -> float | None:
    """How far a wave goes under a control, in metres."""
    radii = control.settings.mode.radii_km(control.settings.wave_radii_km)
    radius_km = radii[min(wave, len(radii)) - 1]
    return None if radius_km is None else radius_km * 1000


def limit_of(control: TenantControl) -> int:
    return control.settings.mode.offers_per_wave(control.settings.max_offers_per_wave)


class Changing(RuleBasedStateMachine):
    """One broadcast, and what is in force for it."""

    state: Broadcast
    control: TenantControl

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW_MS
        self.events: list[e.Event] = []
        self.found: list[SendWave] = []  # looked up, and on its way

    @initialize(settings=tenant_settings())
    def begin(self, settings: TenantSettings) -> None:
        settings = replace(settings, min_expiry_s=300, default_expiry_s=300, max_expiry_s=300)
        self.control = TenantControl(settings)
        decision = decide(None, create("van", "van", "truck"), self.control, self.now_ms)
        self.state = evolve(None, *decision.events)
        self.events += decision.events
        self._look_up(decision)

    # --- What is in force ---

    @rule(settings=tenant_settings())
    def patch(self, settings: TenantSettings) -> None:
        self._put_in_force(settings)

    @rule(limit=st.integers(1, 3))
    def change_the_limit(self, limit: int) -> None:
        self._put_in_force(replace(self.control.settings, max_offers_per_wave=limit))

    @rule(radii_km=st.sampled_from(((10,), (10, 50), (1, 20, 70), (None,))))
    def change_the_radii(self, radii_km: tuple[float | None, ...]) -> None:
        self._put_in_force(replace(self.control.settings, wave_radii_km=radii_km))

    @rule(mode=st.sampled_from(("progressive", "blast", "best_match")))
    def switch(self, mode: str) -> None:
        self._put_in_force(replace(self.control.settings, dispatch_mode=mode))

    @rule()
    def pause_or_resume(self) -> None:
        self._put_in_force(self.control.settings, not self.control.paused)

    def _put_in_force(self, settings: TenantSettings, paused: bool | None = None) -> None:
        paused = self.control.paused if paused is None else paused
        self.control = TenantControl(settings, paused, self.control.version + 1)

    # --- What happens ---

    @rule(ms=st.integers(0, 20_000))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def tick(self) -> None:
        self._do(Tick())

    @rule()
    @precondition(lambda self: self.state.live)
    def ring(self) -> None:
        self.now_ms = max(self.now_ms, min(self.state.deadlines()))
        before = self.state
        self._do(Tick())
        assert before.expires_at_ms > self.now_ms or self.state.status is BroadcastStatus.EXPIRED

    @rule(data=st.data())
    @precondition(lambda self: self.found)
    def bring_what_was_found(self, data: st.DataObject) -> None:
        self._do(self.found.pop(data.draw(st.integers(0, len(self.found) - 1))))

    @rule(data=st.data())
    def appear(self, data: st.DataObject) -> None:
        self._do(Appear(data.draw(st.sampled_from(FLEET))))

    @rule(transporter=transporters, vehicle_type=st.sampled_from(TYPES[:2]))
    @precondition(lambda self: self.state.seq > 6)  # or few broadcasts would see much
    def accept(self, transporter: TransporterId, vehicle_type: str) -> None:
        self._do(accept(transporter, vehicle_type))

    @rule(transporter=transporters)
    def decline(self, transporter: TransporterId) -> None:
        self._do(Decline(transporter))

    # --- What holds ---

    @invariant()
    def it_expires_in_time_whatever_is_in_force(self) -> None:
        if self.state.live:
            assert min(self.state.deadlines()) <= self.state.expires_at_ms

    def teardown(self) -> None:
        if self.events:
            assert replay(self.events) == self.state

    def _do(self, command: Command) -> Decision:
        before = self.state
        decision = decide(before, command, self.control, self.now_ms)
        for event in decision.events:
            self.state = evolve(self.state, event)
        self.events += decision.events
        if before.live and self.now_ms >= before.expires_at_ms:
            assert isinstance(decision.events[0], e.Expired)
        for event in decision.events:
            if isinstance(event, e.WaveSent):
                self._is_of_what_is_in_force(before, command, event)
            elif isinstance(event, e.Offered):
                self._has_been_reached(before, event)
            elif isinstance(event, e.AcceptWaiting | e.TruckAssigned):
                self._is_taken_as_the_mode_takes(before, command, event)
            assert not isinstance(event, e.WaveHeld) or self.control.paused
        self._look_up(decision)
        return decision

    def _is_of_what_is_in_force(self, before: Broadcast, command: Command, sent: e.WaveSent) -> None:
        control, settings = self.control, self.control.settings
        assert not control.paused
        assert sent.wave == before.wave + 1
        reach_m, limit = reach_of(control, sent.wave), limit_of(control)
        assert sent.radius_m == reach_m
        assert isinstance(command, SendWave)
        assert (command.radius_m, command.limit) == (reach_m, limit), "looked up under something else"
        wanted = {request.vehicle_type for request in before.open_requests}
        within = [
            each
            for each in FLEET
            if each.vehicle_type in wanted
            and each.transporter_id not in before.offers
            and (reach_m is None or each.distance_m <= reach_m)
        ]
        # Who was found and is not wanted any more has taken a place, so there may be fewer.
        assert len(sent.offers) <= limit
        reached = [offer.transporter_id for offer in sent.offers]
        assert reached == [each.transporter_id for each in within][: len(reached)], "nearest first, and within reach"
        due_at_ms = self.now_ms if before.next_wave_at_ms is None else before.next_wave_at_ms
        interval_ms = round(settings.wave_interval_s * 1000)
        expected = due_at_ms + interval_ms
        if expected - self.now_ms < interval_ms / 2:
            expected = self.now_ms + interval_ms
        waves = len(settings.mode.radii_km(settings.wave_radii_km))
        left = len(within) > len(reached)
        if sent.wave < waves or left:
            assert sent.next_wave_at_ms == expected
        else:
            assert sent.next_wave_at_ms in (None, expected)

    def _has_been_reached(self, before: Broadcast, event: e.Offered) -> None:
        reaches = [self._reached_m(before)]
        due = before.next_wave_at_ms is None or before.next_wave_at_ms <= self.now_ms
        if due and not self.control.paused:
            reaches.append(reach_of(self.control, before.wave + 1))
        assert any(reach_m is None or event.offer.distance_m <= reach_m for reach_m in reaches)

    def _reached_m(self, before: Broadcast) -> float | None:
        """How far the waves have reached, by the events."""
        reaches = [event.radius_m for event in self.events[: before.seq] if isinstance(event, e.WaveSent)]
        bounded = [reach_m for reach_m in reaches if reach_m is not None]
        return None if len(bounded) < len(reaches) else max(bounded, default=-1.0)

    def _is_taken_as_the_mode_takes(
        self, before: Broadcast, command: Command, event: e.AcceptWaiting | e.TruckAssigned
    ) -> None:
        assert isinstance(command, Accept)
        settings = self.control.settings
        waits = settings.mode.accept_window_s(settings.accept_window_s) > 0 or bool(before.waiting)
        assert isinstance(event, e.AcceptWaiting) == waits
        if isinstance(event, e.AcceptWaiting) and not before.waiting:
            window_ms = round(self.control.settings.accept_window_s * 1000)
            latest_ms = before.expires_at_ms - 2_000
            assert event.decide_at_ms == max(self.now_ms, min(self.now_ms + window_ms, latest_ms))

    def _look_up(self, decision: Decision) -> None:
        """As presence finds them at this moment."""
        for effect in decision.effects:
            if isinstance(effect, fx.SeekCandidates):
                assert not self.control.paused
                assert effect.radius_m == reach_of(self.control, effect.wave)
                assert effect.limit == limit_of(self.control)
                within = [each for each in FLEET if self._matches(each, effect)]
                chosen, more = tuple(within[: effect.limit]), len(within) > effect.limit
                self.found.append(SendWave(effect.wave, effect.radius_m, effect.limit, chosen, more))
                del self.found[:-3]

    def _matches(self, each: Candidate, effect: fx.SeekCandidates) -> bool:
        return (
            each.vehicle_type in effect.vehicle_types
            and each.transporter_id not in self.state.offers
            and (effect.radius_m is None or each.distance_m <= effect.radius_m)
        )


TestChanging = Changing.TestCase
TestChanging.settings = profile(max_examples=250, stateful_step_count=40)
