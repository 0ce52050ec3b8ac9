"""B8, by trying: every role asks for every topic of its own tenant and of another, over WebSocket and by GET.

The other tenant has users of the same names. What goes by such a name is what the own tenant has.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import count

import pytest

from haulcast.ports import Role
from haulcast.transport.snapshots import KINDS
from tests.acceptance.network import Network, accept_of, haul, offered
from tests.acceptance.server import Server

_numbers = count(1)

USERS = {"customer": "c1", "transporter": "t1", "driver": "t1-d", "operator": "op", "admin": "root"}
SUBJECTS = {
    "broadcast": ["c1", "c2"],  # by whose it is
    "feed": ["t1", "t2"],
    "driver": ["t1-d", "t2-d"],
    "fleet": ["t1", "t2"],
    "board": ["{tenant}"],
    "control": ["{tenant}"],
}
"""What there is in each tenant, by kind of topic."""
OWN = {("customer", "broadcast"), ("transporter", "feed"), ("transporter", "fleet"), ("driver", "driver")}
"""Which role may see which kind of topic, of its own. Operators and admins may see all of the tenant that
their token names."""


def test_every_kind_of_topic_is_tried() -> None:
    assert set(SUBJECTS) == set(KINDS)
    assert set(USERS) == set(Role)


@pytest.fixture
async def tenants(server: Server) -> AsyncIterator[list["Tenant"]]:
    """Two of them with the same users."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            network = await stack.enter_async_context(Network(server.url, f"rights{next(_numbers)}"))
            found.append(await Tenant.populated(network))
        yield found


class Tenant:
    """A network with two of everything."""

    def __init__(self, network: Network, broadcasts: dict[str, str]) -> None:
        self.network = network
        self.broadcasts = broadcasts

    @classmethod
    async def populated(cls, network: Network) -> "Tenant":
        """Two customers' broadcasts, one of them partly filled, and two transporters with a driver each."""
        transporters = [await network.transporter("t1"), await network.transporter("t2")]
        broadcasts = {}
        for customer in ("c1", "c2"):
            phone = await network.phone("customer", customer)
            broadcasts[customer] = (await phone.do("broadcast.create", haul({"truck_14ft": 2})))["broadcast_id"]
            await offered(broadcasts[customer], *transporters)
        await transporters[0].do("offer.accept", accept_of("t1", broadcasts["c1"]))
        return cls(network, broadcasts)

    def topics(self) -> Iterator[tuple[str, str, str]]:
        """All there are: kind, whose, and name."""
        for kind, subjects in SUBJECTS.items():
            for subject in subjects:
                name = self.broadcasts[subject] if kind == "broadcast" else subject.format(tenant=self.network.tenant)
                yield kind, subject, f"{kind}:{name}"


@pytest.mark.parametrize("role", USERS)
async def test_a_role_sees_what_is_its_own_and_nothing_else(tenants: list[Tenant], role: str) -> None:
    own, other = tenants
    user = USERS[role]
    may = {
        topic
        for kind, subject, topic in own.topics()
        if role in ("operator", "admin") or ((role, kind) in OWN and subject == user)
    }
    there_are = {topic for tenant in tenants for _, _, topic in tenant.topics()}
    phone = await own.network.phone(role, user)
    for topic in sorted(there_are):
        status, body = await own.network.rest("GET", f"/v1/topics/{topic}", role, user)
        reply = await phone.ask("subscribe", {"topic": topic})
        if topic in may:
            assert status == 200, (topic, body)
            assert reply["ok"], (topic, reply)
            for shown in (repr(body["data"]), repr(phone.state(topic))):
                assert not any(theirs in shown for theirs in other.broadcasts.values()), topic
        else:
            assert (status, body["error"]["code"]) == (404, "TOPIC_NOT_FOUND"), (topic, body)
            assert reply["error"]["code"] == "TOPIC_NOT_FOUND", (topic, reply)
        await phone.ask("unsubscribe", {"topic": topic})
