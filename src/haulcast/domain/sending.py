"""Whom a broadcast is offered, in waves and in between.

A wave is decided twice: that it is due, and, when its candidates have been found, to whom it goes. What is in force may
change in between. Then nothing is sent, and candidates are sought under what is in force now: every wave is of one
`TenantControl`.
"""

from dataclasses import replace

from . import commands as c
from . import effects as fx
from . import events as e
from .broadcast import Broadcast, Offer
from .control import TenantControl
from .decision import Decision
from .ranking import Candidate, LeftOutReason, over_limit, rank
from .settings import TenantSettings
from .waves import MAX_LEFT_OUT, farther, next_wave_at, offers_per_wave, radius_m, wave_due_at


def seek(state: Broadcast, settings: TenantSettings) -> fx.SeekCandidates:
    """That candidates are wanted for the next wave."""
    wave = state.wave + 1
    return fx.SeekCandidates(
        wave,
        radius_m(settings, wave),
        frozenset(request.vehicle_type for request in state.open_requests),
        offers_per_wave(settings),
    )


def send_wave(state: Broadcast, command: c.SendWave, control: TenantControl, now_ms: int) -> Decision:
    """Offer it to those found."""
    settings = control.settings
    due_at_ms = wave_due_at(state, control, now_ms) if state.live and not control.paused else None
    if due_at_ms is None or command.wave != state.wave + 1:
        return Decision()
    sought = seek(state, settings)
    if (command.radius_m, command.limit) != (sought.radius_m, sought.limit):
        return Decision(effects=(sought,))
    wanted = sought.vehicle_types
    chosen = rank(
        (candidate for candidate in command.candidates if candidate.vehicle_type in wanted),
        state.offers,
        sought.limit,
    )
    offers = tuple(_offer(candidate, command.wave, now_ms) for candidate in chosen)
    # Found and still without the offer: no place left, or the vehicle found is of a type no longer wanted and another
    # one of theirs may do.
    offered = {*state.offers, *(offer.transporter_id for offer in offers)}
    passed_over = [candidate for candidate in command.candidates if candidate.transporter_id not in offered]
    left_out = rank([*map(over_limit, passed_over), *command.left_out], offered, MAX_LEFT_OUT)
    sent = e.WaveSent(
        now_ms,
        command.wave,
        offers,
        next_wave_at(settings, command.wave, due_at_ms, now_ms, command.more or bool(passed_over)),
        sought.radius_m,
        tuple(
            each if each.vehicle_type in wanted else replace(each, reason=LeftOutReason.TYPE_FILLED)
            for each in left_out
        ),
    )
    return Decision((sent,), (fx.OpenOffers(offers),) if offers else ())


def appear(state: Broadcast, command: c.Appear, control: TenantControl, now_ms: int) -> Decision:
    """Offer it to one who came late, unless the next wave is to reach them."""
    candidate = command.candidate
    if not state.live or candidate.transporter_id in state.offers:
        return Decision()
    wave, reach_m = state.wave, state.reached_m
    # A wave that is due may have been looked up just before the transporter appeared: it counts as sent.
    due_at_ms = None if control.paused else wave_due_at(state, control, now_ms)
    if due_at_ms is not None and due_at_ms <= now_ms:
        wave += 1
        due_m = radius_m(control.settings, wave)
        reach_m = due_m if farther(due_m, reach_m) else reach_m
    if wave == 0 or farther(candidate.distance_m, reach_m):
        return Decision()
    if all(request.vehicle_type != candidate.vehicle_type for request in state.open_requests):
        return Decision()
    offer = _offer(candidate, wave, now_ms)
    return Decision((e.Offered(now_ms, offer),), (fx.OpenOffers((offer,)),))


def _offer(candidate: Candidate, wave: int, now_ms: int) -> Offer:
    return Offer(
        candidate.transporter_id,
        wave,
        candidate.vehicle_id,
        candidate.vehicle_type,
        candidate.distance_m,
        now_ms,
    )
