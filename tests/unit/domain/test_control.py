"""What operators' commands lead to."""

from dataclasses import replace

import pytest

from haulcast.domain.control import (
    HOUR_MS,
    MAX_ANNOUNCEMENTS,
    Announce,
    Applied,
    Audience,
    ControlCommand,
    PatchSettings,
    Pause,
    ReloadSettings,
    Resume,
    SwitchMode,
    TenantControl,
    apply,
)
from haulcast.domain.modes import MODES
from haulcast.domain.replies import Refusal, Refused
from haulcast.domain.settings import InvalidSetting, TenantSettings

NOW_MS = 1_790_000_000_000
CONTROL = TenantControl(version=7)
COMMANDS: tuple[ControlCommand, ...] = (
    Pause(),
    Resume(),
    ReloadSettings(),
    SwitchMode("blast"),
    PatchSettings({"wave_interval_s": 20.0}),
    Announce("a1", Audience.DRIVER, "Snow", 60),
)


def applied(control: TenantControl, command: ControlCommand, now_ms: int = NOW_MS) -> Applied:
    found = apply(control, command, now_ms)
    assert isinstance(found, Applied)
    return found


def announce(number: int, audience: Audience = Audience.TRANSPORTER, lifetime_s: int = 60) -> Announce:
    return Announce(f"a{number}", audience, "Snow", lifetime_s)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_raises_the_version_by_one_whatever_it_changes(command: ControlCommand) -> None:
    once = applied(CONTROL, command).control
    assert once.version == 8
    if not isinstance(command, Announce):
        twice = applied(once, command)
        assert twice.control == replace(once, version=9)
        assert twice.changes == {}


def test_what_a_command_changed_is_told_by_name() -> None:
    assert applied(CONTROL, Pause()).changes == {"paused": (False, True)}
    assert applied(CONTROL, SwitchMode("blast")).changes == {"dispatch_mode": ("progressive", "blast")}
    patch = PatchSettings({"wave_radii_km": (5.0, None), "wave_interval_s": 15.0})
    assert applied(CONTROL, patch).changes == {"wave_radii_km": ([10.0, 25.0, 50.0, 75.0, None], [5.0, None])}


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    patched = applied(replace(CONTROL, paused=True), PatchSettings({"min_expiry_s": 30})).control
    assert patched.settings == replace(TenantSettings(), min_expiry_s=30)
    assert patched.paused


@pytest.mark.parametrize(
    ("command", "field", "allowed"),
    [
        (SwitchMode("teleport"), "dispatch_mode", f"one of {', '.join(MODES)}"),
        (PatchSettings({"min_expiry_s": 500, "max_expiry_s": 400}), "max_expiry_s", "500 to 604800"),
        (PatchSettings({"default_expiry_s": 5}), "default_expiry_s", "10 to 86400"),
    ],
)
def test_what_cannot_work_is_named_with_what_can(command: ControlCommand, field: str, allowed: str) -> None:
    with pytest.raises(InvalidSetting) as error:
        apply(CONTROL, command, NOW_MS)
    assert (error.value.field, error.value.allowed) == (field, allowed)


def test_an_announcement_is_told_to_its_role_until_it_expires() -> None:
    control = applied(CONTROL, announce(1)).control
    (told,) = control.announced(Audience.TRANSPORTER, NOW_MS + 59_999)
    assert (told.announcement_id, told.text, told.expires_at_ms) == ("a1", "Snow", NOW_MS + 60_000)
    assert control.announced(Audience.TRANSPORTER, NOW_MS + 60_000) == ()
    assert control.announced(Audience.CUSTOMER, NOW_MS) == ()


def test_announcements_are_limited_by_the_hour() -> None:
    """The limit is the tenant's, over all roles; whoever is refused is told how long to wait, and that is enough."""
    control = replace(CONTROL, settings=replace(TenantSettings(), announcements_per_hour=2))
    control = applied(control, announce(1)).control
    control = applied(control, announce(2, Audience.DRIVER), NOW_MS + 1_000).control
    wait_ms = HOUR_MS - 2_000
    refused = apply(control, announce(3), NOW_MS + 2_000)
    assert refused == Refused(Refusal.TOO_MANY_ANNOUNCEMENTS, {"retry_after_ms": wait_ms})
    assert isinstance(apply(control, announce(3), NOW_MS + 2_000 + wait_ms - 1), Refused)
    later = applied(control, announce(3), NOW_MS + 2_000 + wait_ms).control
    assert [each.announcement_id for each in later.announcements] == ["a2", "a3"]


def test_there_is_a_bound_to_what_is_announced_at_once() -> None:
    """Those that last long are kept, and there are never too many of them."""
    control = replace(CONTROL, settings=replace(TenantSettings(), announcements_per_hour=100))
    now_ms = NOW_MS
    for number in range(MAX_ANNOUNCEMENTS):
        control = applied(control, announce(number, lifetime_s=604_800), now_ms).control
        now_ms += 60_000
    assert len(control.announcements) == MAX_ANNOUNCEMENTS
    refused = apply(control, announce(1_000), now_ms)
    assert isinstance(refused, Refused)
    wait_ms = refused.data["retry_after_ms"]
    assert isinstance(wait_ms, int)
    assert isinstance(apply(control, announce(1_000), now_ms + wait_ms), Applied)
