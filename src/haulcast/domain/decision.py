"""What a decision is, and what several of them have in common: what users hear when something is over."""

from collections.abc import Sequence
from dataclasses import dataclass

from . import effects as fx
from . import events as e
from .broadcast import Broadcast, WaitingAccept
from .ids import TransporterId
from .replies import Refusal, Refused, Reply
from .states import BroadcastStatus


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen. `reply` is None for commands that nobody waits for."""

    events: tuple[e.Event, ...] = ()
    effects: tuple[fx.Effect, ...] = ()
    reply: Reply | None = None


def ending(after: Broadcast) -> tuple[fx.Effect, ...]:
    """What the transporters hear when the broadcast has ended: winners keep their trips, offers to others close."""
    winners = after.winners
    had_it = holding(after)
    effects: list[fx.Effect] = []
    if won := tuple(transporter for transporter in had_it if transporter in winners):
        effects.append(fx.DropOffers(won))
    if lost := tuple(transporter for transporter in had_it if transporter not in winners):
        effects.append(fx.CloseOffers(lost))
    if after.status is not BroadcastStatus.FULLY_FILLED:
        effects += [fx.ShowTrip(trip, fx.TripNews.TRIP_CONTINUES) for trip in after.trips if trip.active]
    return tuple(effects)


def waited(before: Broadcast, after: Broadcast, lost: Sequence[WaitingAccept], code: Refusal) -> tuple[fx.Effect, ...]:
    """What the transporters hear whose accepts do not wait any more; `lost` are those that have not won, for `code`."""
    had = {accept.transporter_id for accept in before.waiting}
    have = {accept.transporter_id for accept in after.waiting}
    effects: list[fx.Effect] = []
    if shown := tuple(transporter for transporter in holding(after) if transporter in had - have):
        effects.append(fx.ShowWaiting(shown, None))
    if lost:
        effects.append(fx.LoseAccepts(tuple(lost), code))
    return tuple(effects)


def holding(state: Broadcast) -> tuple[TransporterId, ...]:
    """The transporters who still have the offer on their screens."""
    return tuple(offer.transporter_id for offer in state.offers.values() if not offer.declined)


def taken(state: Broadcast) -> Refused:
    """The refusal for an accept that came after the last truck of its type was won."""
    return Refused(Refusal.REQUEST_ALREADY_TAKEN, {"remaining_requests": len(state.open_requests)})


def over(state: Broadcast) -> Refused:
    """The refusal for a command that came after the end."""
    if state.status is BroadcastStatus.FULLY_FILLED:
        return Refused(Refusal.BROADCAST_FULLY_FILLED)
    if state.status is BroadcastStatus.CANCELLED:
        return Refused(Refusal.BROADCAST_CANCELLED)
    return Refused(Refusal.BROADCAST_EXPIRED)
