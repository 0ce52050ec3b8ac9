"""What the theory of operation of the mailbox promises."""

import asyncio

import pytest

from haulcast.actors.mailbox import Mailbox


async def take(mailbox: Mailbox[int], number: int) -> list[int]:
    return [await mailbox.get() for _ in range(number)]


async def test_first_in_is_first_out_whoever_sent_it() -> None:
    mailbox = Mailbox[int]()
    mailbox.offer(1)
    mailbox.offer_control(2)
    mailbox.offer(3)
    assert len(mailbox) == 3
    assert await take(mailbox, 3) == [1, 2, 3]
    assert len(mailbox) == 0


async def test_clients_are_refused_at_capacity_and_the_system_has_its_reserve_beyond() -> None:
    mailbox = Mailbox[int](capacity=3, reserved=2)
    assert [mailbox.offer(n) for n in range(4)] == [True, True, True, False]
    assert [mailbox.offer_control(n) for n in (10, 11, 12)] == [True, True, False]
    assert not mailbox.offer(4)
    assert await take(mailbox, 5) == [0, 1, 2, 10, 11]
    assert mailbox.offer(5)


async def test_the_system_does_not_use_up_the_room_of_clients_by_its_reserve_alone() -> None:
    mailbox = Mailbox[int](capacity=2, reserved=1)
    assert mailbox.offer_control(0)
    assert mailbox.offer(1)
    assert not mailbox.offer(2)
    assert mailbox.offer_control(3)


async def test_a_message_given_back_is_read_next_even_when_the_mailbox_is_full() -> None:
    mailbox = Mailbox[int](capacity=2, reserved=0)
    mailbox.offer(1)
    mailbox.offer(2)
    first = await mailbox.get()
    mailbox.offer(3)
    mailbox.give_back(first)
    assert not mailbox.offer(4)
    assert await take(mailbox, 3) == [1, 2, 3]


@pytest.mark.parametrize("put", ["offer", "offer_control", "give_back"])
async def test_a_reader_that_waits_is_woken_by_any_message(put: str) -> None:
    mailbox = Mailbox[int]()
    reader = asyncio.create_task(mailbox.get())
    await asyncio.sleep(1)
    assert not reader.done()
    {"offer": mailbox.offer, "offer_control": mailbox.offer_control, "give_back": mailbox.give_back}[put](7)
    mailbox.offer(8)
    assert await reader == 7
    assert await mailbox.get() == 8


async def test_a_reader_that_is_cancelled_takes_no_message_along() -> None:
    mailbox = Mailbox[int]()
    reader = asyncio.create_task(mailbox.get())
    await asyncio.sleep(1)
    mailbox.offer(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert len(mailbox) == 1
    assert await mailbox.get() == 1


async def test_draining_takes_out_everything_that_waits() -> None:
    mailbox = Mailbox[int](capacity=2, reserved=1)
    mailbox.offer(1)
    mailbox.offer(2)
    mailbox.offer_control(3)
    assert list(mailbox.drain()) == [1, 2, 3]
    assert len(mailbox) == 0
    assert mailbox.offer(4)
