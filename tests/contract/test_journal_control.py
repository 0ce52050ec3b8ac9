"""What is in force for a tenant, one version after the other, and the record of operators' commands."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from haulcast.domain.control import Announcement, Audience, TenantControl
from haulcast.domain.ids import TenantId
from haulcast.domain.replies import Json
from haulcast.domain.settings import TenantSettings
from haulcast.ports import ControlRecord, Journal, RequestKey, Role, Stale
from haulcast.storage.settings_documents import read_settings
from tests.contract.hauls import ACME, NOW_MS, OTHER, land, log_only, logged

NOBODY = TenantId("nobody")

OTHERWISE = read_settings((Path(__file__).parents[1] / "data" / "settings" / "v2_other.json").read_text())
"""No setting has its default."""


@pytest.fixture(autouse=True)
async def _tenants(journal: Journal) -> None:
    for tenant in (ACME, OTHER):
        assert await journal.create_tenant(tenant, TenantSettings())


def command(
    request: str = "r1", *, tenant: TenantId = ACME, user: str = "op1", name: str = "pause", version: int | None = None
) -> ControlRecord:
    """An operator's command, not recorded yet."""
    key = RequestKey(tenant, Role.OPERATOR, user, request)
    return ControlRecord(key, f"fingerprint of {name}", name, {"why": ["æ", None, 1.5]}, NOW_MS, version)


async def recorded(journal: Journal, record: ControlRecord, after: TenantControl | None = None) -> ControlRecord:
    """The record of a command that is not stale."""
    answer = await journal.record_control(record, after)
    assert isinstance(answer, ControlRecord)
    return answer


async def log_of(journal: Journal, tenant: TenantId = ACME) -> list[ControlRecord]:
    return await journal.read_control_log(tenant, before=None, limit=100)


def numbers(records: Iterable[ControlRecord]) -> list[int]:
    return [record.number for record in records]


def announcement(number: int, audience: Audience = Audience.DRIVER) -> Announcement:
    return Announcement(f"n{number}", audience, f"Lieferung Nr. {number} über die Ærø\n", NOW_MS, NOW_MS + number)


# --- What is in force ------------------------------------------------------------------------------------------------


async def test_a_new_tenant_is_not_paused_and_at_version_1(journal: Journal) -> None:
    assert await journal.read_tenant(ACME) == TenantControl(TenantSettings(), False, 1, ())
    assert await journal.create_tenant(NOBODY, OTHERWISE)
    assert await journal.read_tenant(NOBODY) == TenantControl(OTHERWISE)
    assert await log_of(journal) == []


async def test_what_a_command_puts_in_force_is_read_back_whole(journal: Journal) -> None:
    announced = tuple(announcement(n, audience) for n, audience in enumerate(Audience))
    second = TenantControl(OTHERWISE, True, 2, announced)
    third = TenantControl(TenantSettings(), False, 3, ())
    for after in (second, third):
        await recorded(journal, command(f"r{after.version}", version=after.version), after)
        assert await journal.read_tenant(ACME) == after
    assert await journal.read_tenant(OTHER) == TenantControl()


@pytest.mark.parametrize("version", [0, 1, 3, 100])
async def test_only_the_next_version_is_put_in_force(journal: Journal, version: int) -> None:
    assert await journal.record_control(command(), TenantControl(OTHERWISE, True, version)) == Stale()
    assert await journal.read_tenant(ACME) == TenantControl()
    assert await log_of(journal) == []
    # Nor was the key used up.
    await recorded(journal, command(), TenantControl(OTHERWISE, True, 2))


async def test_a_tenant_that_does_not_exist_is_at_no_version(journal: Journal) -> None:
    for version in (1, 2):
        assert await journal.record_control(command(tenant=NOBODY), TenantControl(version=version)) == Stale()
    assert await journal.read_tenant(NOBODY) is None
    assert await log_of(journal, NOBODY) == []


async def test_creating_a_tenant_again_takes_nothing_back(journal: Journal) -> None:
    after = TenantControl(OTHERWISE, True, 2, (announcement(1),))
    await recorded(journal, command(), after)
    assert not await journal.create_tenant(ACME, TenantSettings())
    assert await journal.read_tenant(ACME) == after


async def test_versions_are_those_of_the_tenants_that_are_asked_for_and_exist(journal: Journal) -> None:
    assert await journal.control_versions([ACME, NOBODY]) == {ACME: 1}
    await recorded(journal, command(), TenantControl(version=2))
    assert await journal.control_versions({ACME, OTHER, NOBODY}) == {ACME: 2, OTHER: 1}
    assert await journal.control_versions([OTHER]) == {OTHER: 1}
    assert await journal.control_versions([]) == await journal.control_versions([NOBODY]) == {}


# --- What is recorded ------------------------------------------------------------------------------------------------


async def test_a_record_is_read_back_as_it_was_made(journal: Journal) -> None:
    changes: dict[str, tuple[Json, Json]] = {
        "paused": (False, True),
        "wave_radii_km": ([1.0, None], [2]),
        "dispatch_mode": ("progressive", "blast"),
    }
    whole = replace(command(version=2), changes=changes, outcome={"nodes": [{"node": 1, "ok": True}]})
    first = await recorded(journal, whole, TenantControl(paused=True, version=2))
    assert first == replace(whole, number=1)
    plain = command("r2", name="drain_node")
    second = await recorded(journal, plain)
    assert second == replace(plain, number=2)
    assert await log_of(journal) == [second, first]


async def test_a_command_that_is_not_to_a_tenant_changes_none_and_needs_none(journal: Journal) -> None:
    assert (await recorded(journal, command())).number == 1
    assert await journal.read_tenant(ACME) == TenantControl()
    made = await recorded(journal, command(tenant=NOBODY))
    assert await log_of(journal, NOBODY) == [made]
    assert await journal.read_tenant(NOBODY) is None


async def test_the_same_key_again_gets_the_record_from_then_and_carries_nothing_out(journal: Journal) -> None:
    """Whatever the version and whatever is asked: that of then, or the next one, or another command."""
    after = TenantControl(OTHERWISE, True, 2)
    first = await recorded(journal, command(version=2), after)
    other = replace(command(name="resume", version=3), data={}, at_ms=NOW_MS + 1)
    for again, then in (
        (command(version=2), after),
        (command(version=3), replace(after, version=3)),
        (other, TenantControl(version=3)),
        (other, None),
    ):
        assert await journal.record_control(again, then) == first
    assert await journal.read_tenant(ACME) == after
    assert await log_of(journal) == [first]


async def test_a_key_is_all_of_its_parts(journal: Journal) -> None:
    """The same id of another user, role or tenant is another command."""
    keys = [
        RequestKey(tenant, role, user, request)
        for tenant in (ACME, OTHER)
        for role in (Role.OPERATOR, Role.ADMIN)
        for user in ("op1", "op2")
        for request in ("r1", "r2")
    ]
    made = [await recorded(journal, replace(command(), by=key)) for key in keys]
    assert [record.by for record in made] == keys
    assert numbers(made) == [*range(1, 9)] * 2


async def test_a_command_may_share_its_key_with_a_request(journal: Journal) -> None:
    reply = logged("r1", user="op1")
    await land(journal, log_only(reply))
    record = replace(command(), by=reply.origin.key)
    assert (await recorded(journal, record)).number == 1


async def test_a_purge_of_the_request_log_leaves_the_record_of_commands(journal: Journal) -> None:
    made = await recorded(journal, command(version=2), TenantControl(version=2))
    await land(journal, log_only(logged("r1"), at_ms=1))
    assert await journal.purge_requests(NOW_MS * 2) == 1
    assert await log_of(journal) == [made]
    assert await journal.record_control(command(), TenantControl(version=2)) == made


# --- Outcomes --------------------------------------------------------------------------------------------------------


async def test_a_record_is_found_by_its_key_with_what_has_become_of_it(journal: Journal) -> None:
    key = command().by
    assert await journal.read_control(key) is None
    record = await recorded(journal, command())
    assert await journal.read_control(key) == record
    assert await journal.read_control(command(tenant=OTHER).by) is None
    await journal.finish_control(ACME, record.number, {"complete": True})
    assert await journal.read_control(key) == replace(record, outcome={"complete": True})


async def test_an_outcome_is_noted_once_it_is_known_and_stays(journal: Journal) -> None:
    made = [await recorded(journal, command(f"r{n}")) for n in range(3)]
    outcome: dict[str, Json] = {"nodes": [{"node": 1, "took_ms": 1.5, "error": None}], "all": True}
    await journal.finish_control(ACME, 2, outcome)
    await journal.finish_control(ACME, 2, {"all": False})
    finished = replace(made[1], outcome=outcome)
    assert await log_of(journal) == [made[2], finished, made[0]]
    assert await journal.record_control(command("r1"), None) == finished


async def test_an_outcome_of_what_was_not_recorded_is_passed_over(journal: Journal) -> None:
    made = await recorded(journal, command())
    for tenant, number in ((ACME, 0), (ACME, -1), (ACME, 2), (OTHER, 1), (NOBODY, 1)):
        await journal.finish_control(tenant, number, {})
    assert await log_of(journal) == [made]
    assert await log_of(journal, OTHER) == await log_of(journal, NOBODY) == []


# --- The log ---------------------------------------------------------------------------------------------------------


async def test_the_log_is_read_page_by_page_newest_first(journal: Journal) -> None:
    for n in range(7):
        await recorded(journal, command(f"r{n}"))
    assert numbers(await log_of(journal)) == [7, 6, 5, 4, 3, 2, 1]
    pages, before = [], None
    while page := await journal.read_control_log(ACME, before=before, limit=3):
        pages.append(numbers(page))
        before = page[-1].number
    assert pages == [[7, 6, 5], [4, 3, 2], [1]]
    assert await journal.read_control_log(ACME, before=1, limit=3) == []
    assert numbers(await journal.read_control_log(ACME, before=1_000, limit=2)) == [7, 6]


async def test_the_log_is_read_by_commands(journal: Journal) -> None:
    for n, name in enumerate(("pause", "resume", "announce", "pause", "resume")):
        await recorded(journal, command(f"r{n}", name=name))

    async def read(*commands: str, before: int | None = None, limit: int = 9) -> list[int]:
        return numbers(await journal.read_control_log(ACME, before=before, limit=limit, commands=commands))

    assert await read("pause") == [4, 1]
    assert await read("pause", "announce") == [4, 3, 1]
    assert await read("pause", "announce", before=4) == [3, 1]
    assert await read("resume", limit=1) == [5]
    assert await read("unknown") == await read() == []


# --- Tenants apart ---------------------------------------------------------------------------------------------------


async def test_the_same_key_and_number_in_two_tenants_are_different_commands(journal: Journal) -> None:
    mine = await recorded(journal, command(version=2), TenantControl(paused=True, version=2))
    theirs = command(tenant=OTHER, name="announce", version=2)
    assert await log_of(journal, OTHER) == []
    made = await recorded(journal, theirs, TenantControl(OTHERWISE, version=2))
    assert made == replace(theirs, number=1)
    assert mine.number == 1
    await journal.finish_control(OTHER, 1, {"of": "other"})
    assert await log_of(journal) == [mine]
    assert await log_of(journal, OTHER) == [replace(made, outcome={"of": "other"})]
    assert await journal.read_tenant(ACME) == TenantControl(paused=True, version=2)
    assert await journal.read_tenant(OTHER) == TenantControl(OTHERWISE, version=2)


# --- At once ---------------------------------------------------------------------------------------------------------


async def test_of_different_commands_on_one_version_exactly_one_lands(journal: Journal) -> None:
    for version in (2, 3):
        answers = await asyncio.gather(
            *(
                journal.record_control(
                    command(f"r{version}.{n}", version=version),
                    TenantControl(TenantSettings(toggle_limit=n), True, version),
                )
                for n in range(1, 21)
            )
        )
        (landed,) = (answer for answer in answers if answer != Stale())
        assert isinstance(landed, ControlRecord)
        now = await journal.read_tenant(ACME)
        assert now is not None
        assert (now.version, landed.by.request_id) == (version, f"r{version}.{now.settings.toggle_limit}")
        assert numbers(await log_of(journal)) == [*range(version - 1, 0, -1)]


@pytest.mark.parametrize("to_tenant", [True, False])
async def test_the_same_command_many_times_at_once_is_carried_out_once(journal: Journal, to_tenant: bool) -> None:
    after = TenantControl(paused=True, version=2) if to_tenant else None
    answers = await asyncio.gather(*(journal.record_control(command(), after) for _ in range(20)))
    assert answers == [replace(command(), number=1)] * 20
    assert await log_of(journal) == [replace(command(), number=1)]
    assert await journal.read_tenant(ACME) == (after or TenantControl())


async def test_commands_at_once_get_numbers_without_a_gap(journal: Journal) -> None:
    """Those that are to the tenant and those that are not; each tenant has its own."""
    await asyncio.gather(
        journal.record_control(command("t", version=2), TenantControl(version=2)),
        *(journal.record_control(command(f"r{n}", tenant=tenant), None) for n in range(9) for tenant in (ACME, OTHER)),
    )
    assert numbers(await log_of(journal)) == [*range(10, 0, -1)]
    assert numbers(await log_of(journal, OTHER)) == [*range(9, 0, -1)]
    assert await journal.control_versions([ACME, OTHER]) == {ACME: 2, OTHER: 1}
