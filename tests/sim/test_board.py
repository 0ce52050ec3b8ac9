"""The board of a tenant: complete over all nodes, whatever gets lost on the way."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from haulcast.client.protocol import Delta, Snapshot
from haulcast.domain.commands import Appear, Cancel, UpdateTrip
from haulcast.domain.ids import BroadcastId, CustomerId, TenantId, TransporterId
from haulcast.domain.states import TripStatus
from haulcast.errors import JournalUnavailable, RequestError
from haulcast.ports import Role
from haulcast.transport import board, hub
from haulcast.transport.auth import Principal
from haulcast.transport.board import COMPARE_EVERY_S, ENDED_SHOWN_MS, GATHERED_S, GRACE_S
from tests.sim.hubs import ACME, Hubs, Owner, Phone, Socket
from tests.sim.test_hubs import accept, candidate, check, connected, searching, wave
from tests.sim.virtual_time import START_MS

BOARD = "board:acme"


@pytest.fixture
async def world() -> AsyncIterator[Hubs]:
    world = Hubs()
    await world.add_fleet(3)
    yield world
    await world.close()


def entries(phone: Phone) -> dict[str, dict[str, object]]:
    """What the board shows, by broadcast."""
    shown: dict[str, dict[str, object]] = phone.shows()[BOARD]["broadcasts"]  # type: ignore[index]
    return shown


def drift(world: Hubs, hub: int, field: str) -> float:
    value: float = world.hubs[hub]._boards._metrics.drift.labels(field)._value.get()
    return value


async def watching(world: Hubs, user: str, hub: int) -> Phone:
    """An operator at the board, on a node."""
    phone = Phone(world, Role.OPERATOR, user, BOARD)
    await phone.connect(hub)
    return phone


async def gathered() -> None:
    await asyncio.sleep(2 * GATHERED_S)


async def test_it_shows_what_there_is_and_then_every_change_of_every_node(world: Hubs) -> None:
    one, two = await searching(world, "b1"), Owner(world, BroadcastId("b2"), 1)
    await two.create("c2")
    operators = [await watching(world, f"op{hub}", hub) for hub in (0, 1)]
    for operator in operators:
        assert entries(operator).keys() == {"b1", "b2"}
    reads = world.journal.reads
    three = Owner(world, BroadcastId("b3"), 1)
    await three.create("c3")
    await one.do(accept(1))
    await two.do(Cancel(CustomerId("c2")))
    await gathered()
    for operator in operators:
        assert {key: entry["status"] for key, entry in entries(operator).items()} == {
            "b1": "partially_filled",
            "b2": "cancelled",
            "b3": "searching",
        }
        assert [type(frame) for frame in operator.frames] == [Snapshot, Delta]
    assert world.journal.reads == reads
    await check(world, *operators)


async def test_what_changes_together_leaves_as_one_delta_with_only_what_changed(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 0)
    await owner.do(accept(1))
    await owner.do(accept(0))
    await gathered()
    _, delta = operator.frames
    assert isinstance(delta, Delta)
    assert all(at.startswith("/broadcasts/b1/") for at in delta.set)
    assert delta.set["/broadcasts/b1/status"] == "fully_filled"
    assert "/broadcasts/b1/pickup" not in delta.set
    await check(world, operator)


async def test_what_came_and_went_in_between_is_not_told(world: Hubs) -> None:
    operator = await watching(world, "op", 0)
    await Owner(world, BroadcastId("b1")).create("c1")
    world.hubs[0]._boards._boards[ACME]._drop("b1")
    await gathered()
    assert [type(frame) for frame in operator.frames] == [Snapshot]


async def test_a_snapshot_has_what_was_not_told_yet_and_nothing_is_told_twice(world: Hubs) -> None:
    owner, first = await searching(world), await watching(world, "op1", 0)
    await owner.do(accept(1))
    second = await watching(world, "op2", 0)
    await gathered()
    assert [type(frame) for frame in second.frames] == [Snapshot]
    assert first.gaps == second.gaps == 0
    await check(world, first, second)


async def test_news_that_were_lost_are_found_and_counted_by_field(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 1)
    world.links[0].cut = True
    await owner.do(accept(1))
    lost = Owner(world, BroadcastId("b2"))
    await lost.create("c2")
    with capture_logs() as logs:
        await asyncio.sleep(COMPARE_EVERY_S + GRACE_S + 1)
    await check(world, operator)
    assert sorted(line["broadcast"] for line in logs if line["event"] == "drift") == ["b1", "b2"]
    assert drift(world, 1, "trips") == 2
    assert drift(world, 1, "pickup") == 1
    assert drift(world, 0, "trips") == 0
    with capture_logs() as logs:
        await asyncio.sleep(COMPARE_EVERY_S + GRACE_S + 1)
    assert logs == []


async def test_what_was_changed_behind_its_back_is_put_right(world: Hubs) -> None:
    """A planted lost update: the version is right, and what is shown is not."""
    _, operator = await searching(world), await watching(world, "op", 0)
    store = world.hubs[0]._boards._boards[ACME]._store
    store._entities["b1"].fields["wave"] = 7
    await asyncio.sleep(COMPARE_EVERY_S + 1)
    assert entries(operator)["b1"]["wave"] == 1
    assert drift(world, 0, "wave") == 1


async def test_what_is_still_on_its_way_is_no_drift(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 1)
    await asyncio.sleep(COMPARE_EVERY_S - 0.1)
    await owner.do(accept(1), stall=True)
    asyncio.get_running_loop().call_later(0.1 + GRACE_S / 2, owner.tell)
    with capture_logs() as logs:
        await asyncio.sleep(GRACE_S + 2)
    assert logs == []
    assert drift(world, 1, "trips") == 0
    await check(world, operator)


async def test_what_changes_while_the_journal_is_compared_stays(world: Hubs) -> None:
    """What was read is older by then."""
    owner, operator = await searching(world), await watching(world, "op", 0)
    comparing = asyncio.create_task(world.hubs[0]._boards._boards[ACME].compare())
    await asyncio.sleep(0.003)  # it has been read, and not yet looked at
    await owner.do(accept(1))
    await comparing
    await gathered()
    assert entries(operator)["b1"]["status"] == "partially_filled"
    assert drift(world, 0, "status") == 0
    await check(world, operator)


async def test_what_ended_unheard_long_ago_goes(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 1)
    world.links[0].cut = True
    await owner.do(Cancel(CustomerId("c1")))
    world.journal.away = True
    await asyncio.sleep(ENDED_SHOWN_MS / 1000)
    world.journal.away = False
    await asyncio.sleep(2 * COMPARE_EVERY_S)
    assert entries(operator) == {}
    assert drift(world, 1, "status") == 1


async def test_news_that_do_not_follow_have_their_broadcast_read_again(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 1)
    world.links[0].cut = True
    await owner.do(Appear(candidate(2)))
    world.links[0].cut = False
    world.journal.away = True
    await owner.do(accept(1))
    await asyncio.sleep(3)
    assert entries(operator)["b1"]["status"] == "searching"
    world.journal.away = False
    await asyncio.sleep(2)
    await check(world, operator)


async def test_who_comes_back_goes_on_from_what_they_hold(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 0)
    operator.disconnect()
    await owner.do(accept(1))
    await gathered()
    reads = world.journal.reads
    await operator.connect(0)
    assert [type(frame) for frame in operator.frames] == [Snapshot, Delta]
    assert world.journal.reads == reads
    await check(world, operator)


async def test_what_has_ended_goes_ten_minutes_later(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 0)
    await owner.do(Cancel(CustomerId("c1")))
    world.hubs[0].sweep()
    await gathered()
    assert entries(operator).keys() == {"b1"}
    await asyncio.sleep(ENDED_SHOWN_MS / 1000)
    world.hubs[0].sweep()
    await gathered()
    assert entries(operator) == {}
    assert world.hubs[0].board_size == 0
    await check(world, operator)


async def test_there_are_only_so_many_and_ended_ones_go_first(world: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "MAX_SHOWN", 2)
    operator = await watching(world, "op", 0)
    first, second, third = (Owner(world, BroadcastId(f"b{number}")) for number in range(3))
    await first.create("c0")
    await second.create("c1")
    await second.do(Cancel(CustomerId("c1")))
    await gathered()
    await third.create("c2")
    await gathered()
    assert entries(operator).keys() == {"b0", "b2"}
    assert operator.gaps == 0


async def test_a_node_without_an_operator_does_nothing_for_it(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 0)
    assert world.hubs[1].board_size == 0
    operator.disconnect()
    world.hubs[0].sweep()
    assert world.hubs[0].board_size == 1
    world.hubs[0].sweep()
    assert world.hubs[0].board_size == 0
    await asyncio.sleep(0)
    reads = world.journal.reads
    await owner.do(accept(1))
    await asyncio.sleep(2 * COMPARE_EVERY_S)
    assert world.journal.reads == reads


async def test_it_is_read_page_by_page(world: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "PAGE", 2)
    for number in range(5):
        owner = Owner(world, BroadcastId(f"b{number}"))
        await owner.create(f"c{number}")
    operator = await watching(world, "op", 0)
    assert len(entries(operator)) == 5
    await check(world, operator)


async def test_while_it_is_read_it_follows_already(world: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "PAGE", 1)
    owners = [Owner(world, BroadcastId(f"b{number}")) for number in range(4)]
    for number, owner in enumerate(owners):
        await owner.create(f"c{number}")
    operator = Phone(world, Role.OPERATOR, "op", BOARD)
    connecting = asyncio.create_task(operator.connect(0))
    for owner in owners:
        await asyncio.sleep(0.002)
        await owner.do(wave(owner, 0, 1))
    await connecting
    await gathered()
    assert operator.gaps == 0
    await check(world, operator)


async def test_of_two_who_come_at_once_both_get_it_and_it_is_read_once(world: Hubs) -> None:
    await searching(world)
    operators = [Phone(world, Role.OPERATOR, f"op{number}", BOARD) for number in range(2)]
    reads = world.journal.reads
    await asyncio.gather(*(operator.connect(0) for operator in operators))
    assert world.journal.reads == reads + 1
    await check(world, *operators)


async def test_a_journal_that_is_away_is_told_and_asked_again(world: Hubs) -> None:
    await searching(world)
    operator = await connected(world, Role.TRANSPORTER, "t0", 0)
    socket = Socket(operator, Principal(ACME, Role.OPERATOR, "op", START_MS * 2))
    operator._socket = socket
    world.hubs[0].attach(socket)
    world.journal.away = True
    with pytest.raises(JournalUnavailable):
        await world.hubs[0].subscribe(socket, BOARD)
    world.journal.away = False
    await world.hubs[0].subscribe(socket, BOARD)
    assert entries(operator).keys() == {"b1"}


async def test_who_polls_sees_the_same_and_keeps_it_for_a_while(world: Hubs) -> None:
    owner, operator = await searching(world), Principal(ACME, Role.OPERATOR, "op", START_MS * 2)
    first = await world.hubs[0].read(operator, BOARD)
    await owner.do(accept(1))
    reads = world.journal.reads
    assert await world.hubs[0].read(operator, BOARD) != first
    assert world.journal.reads == reads
    phone = await watching(world, "op", 0)
    await check(world, phone)
    phone.disconnect()
    world.hubs[0].sweep()
    await world.hubs[0].read(operator, BOARD)
    world.hubs[0].sweep()
    assert world.hubs[0].board_size == 1
    world.hubs[0].sweep()
    assert world.hubs[0].board_size == 0


async def test_what_was_read_is_not_told_as_if_it_had_changed(world: Hubs) -> None:
    await searching(world)
    operator = await watching(world, "op", 0)
    await gathered()
    assert [type(frame) for frame in operator.frames] == [Snapshot]
    assert len(world.hubs[0]._subscriptions.topics[ACME, BOARD].ring) == 0


async def test_a_trip_that_goes_on_does_not_bring_back_what_ended_long_ago(world: Hubs) -> None:
    owner = await searching(world)
    await owner.do(accept(1))
    await owner.do(accept(0))
    operator = await watching(world, "op", 0)
    await asyncio.sleep(ENDED_SHOWN_MS / 1000 + 5)
    world.hubs[0].sweep()
    assert owner.state is not None
    reads = world.journal.reads
    assert await owner.do(UpdateTrip(TransporterId("t1"), owner.state.trips[0].trip_id, TripStatus.EN_ROUTE))
    await asyncio.sleep(1)
    assert entries(operator) == {}
    assert world.journal.reads == reads


async def test_whoever_suspects_that_something_was_lost_has_it_compared(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 1)
    world.links[0].cut = True
    await owner.do(accept(1))
    world.hubs[1].refresh()
    await asyncio.sleep(GRACE_S + 1)
    await check(world, operator)
    assert operator.gaps == 0
    assert not any(isinstance(frame, Snapshot) for frame in operator.frames[1:])


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("tenant", ["acme", "zenith"])
async def test_only_operators_and_admins_of_the_tenant_have_it(world: Hubs, role: Role, tenant: str) -> None:
    await searching(world)
    principal = Principal(TenantId(tenant), role, "u1", START_MS * 2)
    if role in (Role.OPERATOR, Role.ADMIN) and tenant == "acme":
        assert b"b1" in await world.hubs[0].read(principal, BOARD)
        return
    phone = Phone(world, role, "u1")
    socket = phone._socket = Socket(phone, principal)
    world.hubs[0].attach(socket)
    for attempt in (world.hubs[0].read(principal, BOARD), world.hubs[0].subscribe(socket, BOARD)):
        with pytest.raises(RequestError, match="TOPIC_NOT_FOUND"):
            await attempt
    assert phone.frames == []


async def test_the_end_waits_for_a_comparison_under_way(world: Hubs) -> None:
    owner = await searching(world)
    await watching(world, "op", 1)
    world.links[0].cut = True
    await owner.do(accept(1))
    comparing = asyncio.create_task(world.hubs[1]._boards._boards[ACME].compare())
    await asyncio.sleep(0.001)
    await world.hubs[1].close()
    assert comparing.done()
    assert drift(world, 1, "trips") == 1


async def test_a_board_that_is_closing_says_nothing_to_those_of_the_next(
    world: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a comparison, and what it gathered meanwhile is old by then."""
    monkeypatch.setattr(board, "GATHERED_S", 0.5)
    owner, first = await searching(world), await watching(world, "op1", 0)
    comparing = asyncio.create_task(world.hubs[0]._boards._boards[ACME].compare())
    await asyncio.sleep(0.001)
    await owner.do(accept(1))
    first.disconnect()
    world.hubs[0].sweep()
    world.hubs[0].sweep()
    await owner.do(accept(0))
    second = await watching(world, "op2", 0)
    await comparing
    await asyncio.sleep(3)
    assert entries(second)["b1"]["status"] == "fully_filled"
    await check(world, second)


async def test_a_topic_that_was_made_by_polling_is_not_gone_on_from(world: Hubs) -> None:
    phone = await watching(world, "op", 0)
    phone.disconnect()
    world.hubs[0].sweep()
    world.hubs[0].sweep()
    await searching(world)
    await world.hubs[0].read(Principal(ACME, Role.OPERATOR, "op2", START_MS * 2), BOARD)
    await phone.connect(0)
    await check(world, phone)


async def test_a_very_large_change_is_no_reason_to_close_and_is_not_kept(
    world: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_STEP_BYTES", 100)
    owner, operator = await searching(world), await watching(world, "op", 0)
    assert operator._socket is not None
    allowed: list[bool] = []
    send = operator._socket.send

    def note(frames: bytes, *, snapshot: bool = False, yielding: bool = False) -> None:
        allowed.append(snapshot)
        send(frames, snapshot=snapshot, yielding=yielding)

    operator._socket.send = note  # type: ignore[method-assign]
    await owner.do(accept(1))
    await gathered()
    assert allowed == [True]
    assert len(world.hubs[0]._subscriptions.topics[ACME, BOARD].ring) == 0
    operator.disconnect()
    await owner.do(accept(0))
    await gathered()
    await operator.connect(0)
    await check(world, operator)


async def test_a_comparison_keeps_nobody_who_lacks_something_waiting(world: Hubs) -> None:
    owner, operator = await searching(world), await watching(world, "op", 1)
    feed = await connected(world, Role.TRANSPORTER, "t2", 1)
    world.links[0].cut = True
    await owner.do(Appear(candidate(2)))
    world.hubs[1].refresh()
    await asyncio.sleep(GRACE_S / 2)
    await check(world, feed)
    await asyncio.sleep(GRACE_S + 1)
    await check(world, operator)


async def test_a_change_that_cannot_be_applied_is_read_again(world: Hubs) -> None:
    """A node of an earlier version shows less of a broadcast."""
    owner, operator = await searching(world), await watching(world, "op", 0)
    store = world.hubs[0]._boards._boards[ACME]._store
    del store._entities["b1"].fields["trips"]
    await owner.do(accept(1))
    await asyncio.sleep(1)
    assert entries(operator)["b1"]["status"] == "partially_filled"
    await check(world, operator)


async def test_who_polls_does_not_wait_for_those_who_subscribe_nor_they_for_them(world: Hubs) -> None:
    operator = Principal(ACME, Role.OPERATOR, "op", START_MS * 2)
    polling = [asyncio.create_task(world.hubs[0].read(operator, f"feed:x{number}")) for number in range(1_000)]
    await asyncio.sleep(0)
    began_s = asyncio.get_running_loop().time()
    feed = await connected(world, Role.TRANSPORTER, "t0", 0)
    assert asyncio.get_running_loop().time() - began_s < 0.1
    await asyncio.gather(*polling)
    await check(world, feed)
