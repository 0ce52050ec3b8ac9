"""What `fleet:{transporter}` shows: a transporter's drivers and whether they are online, its vehicles, and their trips.

1. It gathers what three stores know, so it is not changed by what happens but read anew whenever something may have:
   drivers who come or go, a trip, a put, a node that comes or goes, news that were missed; and once a minute anyway.
2. What may have changed within `GATHERED_S` is read once. The difference to what was shown leaves as one delta; what
   makes no difference leaves nothing. A fleet without a topic at this node costs nothing.
3. A driver or vehicle concerns the fleet that shows it and the one that has it now. Messages name the latter alone.
4. The reads of one fleet come one after the other, each whole, so that no older one replaces a newer one. A read that
   fails is tried again, and what was shown stays.
5. Who subscribes while it is not known who is connected to other nodes is shown what is known.
"""

import asyncio
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass, field
from functools import partial

from haulcast.domain.delta import difference
from haulcast.domain.ids import DriverId, TenantId, TransporterId
from haulcast.errors import ClusterUnavailable

from .attendance import Attendance
from .codec import dumps
from .fleet_cache import Changed
from .news import News
from .snapshots import Fleet, Online, Snapshots
from .staleness import Staleness
from .topics import TopicKey, encode_delta, fleet_topic

GATHERED_S = 0.05


@dataclass(slots=True)
class _View:
    """A fleet that has a topic here."""

    shown: Fleet | None = None  # what its subscribers have; None before the first read
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def concerned(self, kind: str, ids: Collection[str]) -> bool:
        """Whether it shows any of these. One that is still being read for the first time may."""
        return self.shown is None or not self.shown[kind].keys().isdisjoint(ids)


class Fleets:
    """The fleets' topics of this node. `tell` is called with a topic and the data of its delta, encoded."""

    def __init__(self, snapshots: Snapshots, attendance: Attendance, tell: Callable[[TopicKey, bytes], None]) -> None:
        self._snapshots = snapshots
        self._attendance = attendance
        self._tell = tell
        self._views: dict[TenantId, dict[str, _View]] = {}
        self._suspected: dict[TopicKey, None] = {}
        self._gathering: asyncio.TimerHandle | None = None
        # Apart from what the hub has to read again: a Redis that is away keeps no other topic from its turn.
        self._stale = Staleness(self._read_again)

    def __len__(self) -> int:
        """How many are to be read again."""
        return len(self._suspected) + len(self._stale)

    async def open(self, key: TopicKey) -> bytes:
        """The content, encoded. Whoever had an older one has been told. Raises `JournalUnavailable`."""
        view = self._views.setdefault(key[0], {}).setdefault(key[1], _View())
        try:
            shown = await self._read(key, view, self._attendance.online)
        except ClusterUnavailable:
            self._stale.mark([key])
            shown = await self._read(key, view, partial(self._known, view))
        return dumps(shown)

    # --- What may have changed a fleet ---

    def take(self, news: News) -> None:
        """A broadcast of the tenant has changed, perhaps by a trip."""
        if news.tenant_id in self._views:
            self.suspect((news.tenant_id, name) for name in news.fleets())

    def drivers_moved(self, tenant_id: TenantId, drivers: Collection[DriverId]) -> None:
        """These have come or gone, here or at another node."""
        views = self._views.get(tenant_id, {})
        self.suspect((tenant_id, name) for name, view in views.items() if view.concerned("drivers", drivers))

    def put(self, changed: Changed) -> None:
        """Vehicles or drivers have been put."""
        tenant_id, now = changed.tenant_id, {fleet_topic(transporter_id) for transporter_id in changed.transporters}
        self.suspect(
            (tenant_id, name)
            for name, view in self._views.get(tenant_id, {}).items()
            if name in now or view.concerned("drivers", changed.drivers) or view.concerned("vehicles", changed.vehicles)
        )

    def suspect_all(self) -> None:
        """Something may have been missed, or it is another set of nodes that lives."""
        self.suspect((tenant_id, name) for tenant_id, views in self._views.items() for name in views)

    def suspect(self, keys: Iterable[TopicKey]) -> None:
        """Have these read again soon, as far as they have a topic here."""
        self._suspected.update((key, None) for key in keys if key[1] in self._views.get(key[0], ()))
        if self._suspected and self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHERED_S, self._gathered)

    # --- Care ---

    def sweep(self, wanted: Container[TopicKey]) -> None:
        """Forget all fleets but those whose topics are wanted, and have these compared with the stores."""
        for tenant_id, views in [*self._views.items()]:
            for name in [*views]:
                if (tenant_id, name) not in wanted:
                    del views[name]
            if not views:
                del self._views[tenant_id]
        self.suspect_all()

    async def close(self) -> None:
        """End what is under way. Nothing is read again any more."""
        self._views.clear()
        if self._gathering is not None:
            self._gathering.cancel()
        await self._stale.close()

    # --- Reading ---

    def _gathered(self) -> None:
        self._gathering = None
        suspected, self._suspected = self._suspected, {}
        self._stale.mark(suspected)

    async def _read_again(self, key: TopicKey) -> None:
        view = self._views.get(key[0], {}).get(key[1])
        if view is not None:
            await self._read(key, view, self._attendance.online)

    async def _read(self, key: TopicKey, view: _View, online: Online) -> Fleet:
        async with view.reading:
            before = view.shown
            transporter_id = TransporterId(key[1].partition(":")[2])
            view.shown = await self._snapshots.fleet_view(key[0], transporter_id, online)
            if before is not None and (delta := difference(before, view.shown)):
                self._tell(key, encode_delta(delta))
            return view.shown

    async def _known(self, view: _View, tenant_id: TenantId, drivers: Collection[DriverId]) -> set[DriverId]:
        """Who is online as far as this node knows: who is connected to it, and who was shown as online last."""
        before = {} if view.shown is None else view.shown["drivers"]
        return self._attendance.here(tenant_id, drivers) | {
            driver_id for driver_id in drivers if driver_id in before and before[driver_id]["online"]
        }
