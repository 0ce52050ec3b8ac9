"""Topics as the client holds them: snapshots, deltas, and the events that a snapshot makes up for.

1. A snapshot replaces the state. A delta is applied only to the very version it builds on; one that is not newer than
   the state is skipped; any other is a gap, and the topic has to be subscribed to again.
2. A state is never changed in place: whoever holds one keeps what it was.
3. Events are not sent again after a reconnect, but what they tell is in the snapshot. A topic notes what its user has
   been told; when a snapshot says more, `take_snapshot` returns the events that were missed, marked `replayed`. A first
   snapshot therefore tells of every open offer, active trip and confirmed truck. What has left the state without a
   trace (a trip that ended meanwhile) is not told of. The event itself may still follow, and is then passed over.
4. A closed offer is dropped ten minutes after it closed, and a broadcast that is over when `OVER_TOPICS` others are.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from enum import Enum

from .pointer import PatchError, patch
from .protocol import Delta, Event, JsonObject, Snapshot, Version

CLOSED_OFFER_SHOWN_MS = 600_000
OVER_TOPICS = 32
_ENDED_TRIP = frozenset({"delivered", "cancelled"})
_ENDED_BROADCAST = {"cancelled": "broadcast_cancelled", "expired": "broadcast_expired"}


MAX_RESUMED = 32
"""Topics that a hello may name."""


class Applied(Enum):
    """What became of a delta."""

    DONE = "done"
    OLD = "old"
    GAP = "gap"


class Topic:
    """One topic: its `state`, of which `version`, and whether it is `stale` (a gap was found and a snapshot is due)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: JsonObject = {}
        self.version = Version(0, 0)
        self.stale = True
        self._told: dict[tuple[str, str], str] = {}  # ("offer" | "trip" | "broadcast", id) -> the status last told

    def __repr__(self) -> str:
        return f"<Topic {self.name} {tuple(self.version)}{' stale' if self.stale else ''}>"

    @property
    def kind(self) -> str:
        """What comes before the colon: `feed`, `broadcast`, `driver`."""
        return self.name.partition(":")[0]

    @property
    def over(self) -> bool:
        """Whether nothing can change any more: a broadcast that has ended, with all its trips."""
        return self.state.get("ended_at") is not None and all(
            trip["status"] in _ENDED_TRIP for trip in self._trips().values()
        )

    def take_snapshot(self, snapshot: Snapshot) -> list[Event]:
        """Replace the state; returns the events that the user missed."""
        self.state, self.version, self.stale = snapshot.data, snapshot.version, False
        missed = [
            Event(self.name, event, data, snapshot.version, snapshot.server_time_ms, replayed=True)
            for event, data in self._untold()
        ]
        self._told = self._facts()
        return missed

    def take_delta(self, delta: Delta) -> Applied:
        """Apply the delta if it follows on the state held."""
        if self.stale or delta.version <= self.version:
            return Applied.OLD
        try:
            if delta.base != self.version:
                raise PatchError("a delta is missing")
            self.state = patch(self.state, delta.set, delta.delete)
        except PatchError:
            self.stale = True
            return Applied.GAP
        self.version = delta.version
        self._forget()
        return Applied.DONE

    def take_event(self, event: Event) -> list[Event]:
        """The event for the user, with all that is known of an offer; none if a snapshot told of it before."""
        if self._has_told(event):
            return []
        offer, trip, trip_status = (event.data.get(key, "") for key in ("broadcast_id", "trip_id", "status"))
        if event.event == "offer":
            self._told["offer", offer] = "open"
        elif event.event == "offer_closed":
            self._told.pop(("offer", offer), None)
        elif event.event in _ENDED_BROADCAST.values():
            self._told["broadcast", self.name] = event.event
        elif trip and (self.kind == "broadcast" or trip_status not in _ENDED_TRIP):
            self._told["trip", trip] = trip_status
        known = self.state.get("offers", {}).get(offer, {}) if event.event == "offer" else {}
        return [replace(event, data={**known, **event.data}) if known else event]

    def drop_closed(self, now_ms: int) -> None:
        """Drop the offers that closed more than ten minutes before `now_ms` (the server's time)."""
        old = [
            key
            for key, offer in self.state.get("offers", {}).items()
            if offer.get("closed_at") is not None and now_ms - offer["closed_at"] >= CLOSED_OFFER_SHOWN_MS
        ]
        if old:
            offers = {key: offer for key, offer in self.state["offers"].items() if key not in old}
            self.state = {**self.state, "offers": offers}

    def _has_told(self, event: Event) -> bool:
        offer, trip = ("offer", event.data.get("broadcast_id", "")), ("trip", event.data.get("trip_id", ""))
        match event.event:
            case "offer":
                return offer in self._told
            case "offer_closed":
                return offer not in self._told
            case "truck_confirmed" | "trip_assigned" | "trip_updated":
                return trip in self._told and self._told[trip] == event.data.get("status")
            case _:
                return self._told.get(("broadcast", self.name)) == event.event

    def _untold(self) -> Iterator[tuple[str, JsonObject]]:
        """What is true now and the user does not know, as (event, data)."""
        told, facts = self._told, self._facts()
        offers: JsonObject = self.state.get("offers", {})
        trips = self._trips()
        won = {trip.get("broadcast_id") for trip in trips.values()}
        for (what, key), status in facts.items():
            if told.get((what, key)) == status:
                continue
            if what == "offer":
                yield "offer", offers[key]
            elif what == "broadcast":
                yield status, {"reason": self.state.get("end_reason"), "assigned": len(trips)}
            elif (what, key) in told:
                yield "trip_updated", trips[key]
            elif self.kind == "broadcast":
                yield "truck_confirmed", {**trips[key], "remaining_requests": self.state.get("remaining_requests")}
            else:
                yield "trip_assigned", trips[key]
        for what, key in told.keys() - facts.keys():
            if what == "offer" and key not in won:
                yield "offer_closed", {"broadcast_id": key, "reason": offers.get(key, {}).get("reason")}

    def _facts(self) -> dict[tuple[str, str], str]:
        facts = {
            ("offer", key): "open"
            for key, offer in self.state.get("offers", {}).items()
            if offer.get("status") == "open"
        }
        facts |= {("trip", key): trip["status"] for key, trip in self._trips().items()}
        if self.state.get("status") in _ENDED_BROADCAST:
            facts["broadcast", self.name] = _ENDED_BROADCAST[self.state["status"]]
        return facts

    def _forget(self) -> None:
        """Of offers and trips that have left a feed there is nothing more to tell."""
        if self.kind != "broadcast":
            for what, key in [*self._told]:
                if key not in self.state.get(f"{what}s", {}):
                    del self._told[what, key]

    def _trips(self) -> dict[str, JsonObject]:
        """The trips in the state, by id."""
        trips: dict[str, JsonObject] = self.state.get("trips", {})
        return trips


class Subscriptions:
    """All topics of one client, over all its connections."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self._wanted: dict[str, None] = {}  # in order of first use; a topic can be wanted before its state is there
        self._over: deque[str] = deque()  # in `topics`, but nothing can follow
        self._left: deque[str] = deque(maxlen=64)  # lately unsubscribed from: a snapshot under way is not for us
        self._unacked: dict[str, Version] = {}

    def want(self, names: Iterable[str]) -> None:
        """These are subscribed to, and shall be again after a reconnect."""
        for name in names:
            self._wanted[name] = None
            if name in self._left:
                self._left.remove(name)

    def leave(self, name: str) -> None:
        """This one is not wanted any more."""
        self._wanted.pop(name, None)
        self.topics.pop(name, None)
        self._unacked.pop(name, None)
        self._left.append(name)

    def resume(self) -> dict[str, list[int]]:
        """The versions held, for a hello; of more than it takes, the latest."""
        held = [name for name in self._wanted if name in self.topics]
        return {name: [*self.topics[name].version] for name in held[-MAX_RESUMED:]}

    def missing(self, subscribed: Collection[str]) -> list[str]:
        """The topics to subscribe to again on a connection that has `subscribed` ones already."""
        return [name for name in self._wanted if name not in subscribed]

    def take(self, frame: Snapshot | Delta | Event) -> tuple[list[Event], bool]:
        """Handle what the server says of a topic: the events for the user, and whether a gap was found."""
        topic = self.topics.get(frame.topic)
        if isinstance(frame, Event):
            return [frame] if topic is None else topic.take_event(frame), False
        if isinstance(frame, Snapshot):
            if frame.topic in self._left:
                return [], False
            self._wanted[frame.topic] = None
            topic = self.topics.setdefault(frame.topic, Topic(frame.topic))
            missed = topic.take_snapshot(frame)
            self._moved(topic)
            return missed, False
        if topic is None:
            return [], False
        applied = topic.take_delta(frame)
        if applied is Applied.DONE:
            self._moved(topic)
        return [], applied is Applied.GAP

    def take_unacked(self) -> dict[str, Version]:
        """What the server has not been told of yet: the newest version applied of each topic."""
        unacked, self._unacked = self._unacked, {}
        return unacked

    def drop_closed(self, name: str, now_ms: int) -> None:
        """Drop the offers of a topic that have been closed for long enough."""
        if name in self.topics:
            self.topics[name].drop_closed(now_ms)

    def _moved(self, topic: Topic) -> None:
        if not topic.over:
            self._unacked[topic.name] = topic.version
            return
        # The server has dropped it as well, so there is nothing to acknowledge.
        self._unacked.pop(topic.name, None)
        self._wanted.pop(topic.name, None)
        if topic.name not in self._over:
            self._over.append(topic.name)
            if len(self._over) > OVER_TOPICS:
                self.topics.pop(self._over.popleft(), None)
