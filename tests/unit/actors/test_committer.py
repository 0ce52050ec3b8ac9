"""What the theory of operation of the committer promises."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from haulcast.actors.committer import MAX_BATCH_WRITES, Committer
from haulcast.domain.ids import BroadcastId
from haulcast.domain.replies import Done
from haulcast.metrics import Metrics
from haulcast.ports import Duplicate, Landed, LoggedReply, Origin, RequestKey, Role, Write
from tests.sim.faults import FaultyJournal
from tests.sim.virtual_time import VirtualClock
from tests.sim.world import ACME


class Bench:
    """A committer over a journal that can be made to fail."""

    def __init__(self) -> None:
        self.journal = FaultyJournal()
        self.metrics = Metrics()
        self.committer = Committer(self.journal, VirtualClock(), self.metrics.actors)

    @property
    def batches(self) -> list[list[str]]:
        """The ids of the writes of each attempt to commit."""
        return [[write.write_id for write in batch] for batch in self.journal.batches]

    @property
    def landed(self) -> list[str]:
        """The ids of what is durable, in order."""
        return [write.write_id for write in self.journal.landed]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.committer.start()
    with capture_logs():
        yield bench
        await bench.committer.close()


def reply(write_id: str, request: str | None = None) -> Write:
    """A write that logs a reply."""
    origin = Origin(RequestKey(ACME, Role.CUSTOMER, "c1", request or write_id), "")
    return Write(write_id, 0, ACME, BroadcastId("b1"), logged=LoggedReply(origin, Done({"of": write_id})))


async def test_what_is_submitted_in_one_tick_is_one_commit(bench: Bench) -> None:
    futures = [bench.committer.submit(reply(f"w{n}")) for n in range(10)]
    assert await asyncio.gather(*futures) == [Landed()] * 10
    assert bench.batches == [[f"w{n}" for n in range(10)]]


async def test_whatever_gathers_during_a_commit_goes_with_the_next_without_a_pause(bench: Bench) -> None:
    with bench.journal.slow(before_s=1):
        first = bench.committer.submit(reply("w0"))
        await asyncio.sleep(0.2)
        others = []
        for n in range(1, 6):
            others.append(bench.committer.submit(reply(f"w{n}")))
            await asyncio.sleep(0.1)
        await first
        assert not any(future.done() for future in others)
        started_s = asyncio.get_running_loop().time()
        await asyncio.gather(*others)
        assert asyncio.get_running_loop().time() - started_s == pytest.approx(1)
    assert bench.batches == [["w0"], ["w1", "w2", "w3", "w4", "w5"]]


async def test_a_commit_takes_at_most_256_writes_and_keeps_their_order(bench: Bench) -> None:
    futures = [bench.committer.submit(reply(f"w{n}")) for n in range(600)]
    await asyncio.gather(*futures)
    assert [len(batch) for batch in bench.batches] == [256, 256, 88]
    assert bench.landed == [f"w{n}" for n in range(600)]
    assert MAX_BATCH_WRITES == 256


async def test_each_write_gets_its_own_outcome(bench: Bench) -> None:
    outcomes = await asyncio.gather(
        *[
            bench.committer.submit(reply(write_id, request))
            for write_id, request in (("a", "r"), ("b", "r"), ("c", "s"))
        ]
    )
    assert outcomes == [Landed(), Duplicate("", Done({"of": "a"})), Landed()]


async def test_a_journal_that_is_away_is_asked_again_for_the_same_batch_before_anything_newer(bench: Bench) -> None:
    with bench.journal.unavailable(times=3):
        first = bench.committer.submit(reply("w0"))
        await asyncio.sleep(0.1)
        second = bench.committer.submit(reply("w1"))
        await asyncio.sleep(0.1)
        assert not first.done()
        await asyncio.gather(first, second)
    assert bench.batches == [["w0"]] * 4 + [["w1"]]
    assert bench.metrics.registry.get_sample_value("haulcast_commit_failures_total") == 3


async def test_the_pause_between_tries_grows_to_two_seconds_and_no_further(bench: Bench) -> None:
    with bench.journal.unavailable():
        future = bench.committer.submit(reply("w0"))
        await asyncio.sleep(60)
        tries = len(bench.batches)
        assert not future.done()
    assert 30 <= tries <= 40
    await asyncio.sleep(2)
    assert future.result() == Landed()


async def test_a_commit_whose_answer_was_lost_is_recognised(bench: Bench) -> None:
    with bench.journal.losing_answers(times=2):
        outcomes = await asyncio.gather(*[bench.committer.submit(reply(f"w{n}")) for n in range(3)])
    assert outcomes == [Landed()] * 3
    assert bench.landed == ["w0", "w1", "w2"]


async def test_a_write_that_the_journal_chokes_on_fails_alone_and_the_others_keep_their_order(bench: Bench) -> None:
    with bench.journal.poisoned(lambda write: write.write_id in ("w1", "w3")):
        futures = [bench.committer.submit(reply(f"w{n}")) for n in range(5)]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Landed, RuntimeError, Landed, RuntimeError, Landed]
    assert bench.landed == ["w0", "w2", "w4"]
    assert await bench.committer.submit(reply("w5")) == Landed()


async def test_a_caller_that_no_longer_waits_does_not_take_its_write_back_nor_disturb_others(bench: Bench) -> None:
    with bench.journal.slow(before_s=1):
        first = bench.committer.submit(reply("w0"))
        await asyncio.sleep(0.5)
        second, third = bench.committer.submit(reply("w1")), bench.committer.submit(reply("w2"))
        first.cancel()
        second.cancel()
        assert await third == Landed()
    assert bench.landed == ["w0", "w1", "w2"]


async def test_finishing_waits_until_everything_is_written(bench: Bench) -> None:
    with bench.journal.slow(before_s=1):
        futures = [bench.committer.submit(reply(f"w{n}")) for n in range(600)]
        await bench.committer.finish(timeout_s=10)
    assert all(future.done() and future.result() == Landed() for future in futures)
    await bench.committer.finish(timeout_s=10)


async def test_a_journal_that_stays_away_is_given_up_and_nobody_waits_for_ever(bench: Bench) -> None:
    with bench.journal.unavailable():
        futures = [bench.committer.submit(reply(f"w{n}")) for n in range(300)]
        started_s = asyncio.get_running_loop().time()
        await bench.committer.finish(timeout_s=3)
        assert asyncio.get_running_loop().time() - started_s == pytest.approx(3)
        assert not any(future.done() for future in futures)
        await bench.committer.close()
    assert all(future.cancelled() for future in futures)
    assert bench.landed == []
