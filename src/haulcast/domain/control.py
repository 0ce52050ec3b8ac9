"""What is in force for a tenant, and what operators can do to it while it runs.

1. A `TenantControl` is a frozen value with a version that each command raises by one: whoever has the newest version
   has all of it, however many commands it missed.
2. `apply(control, command, now_ms)` gives the next one, or says why not. It knows no clock and no I/O; the journal
   writes its result only on top of the version that it was given.
3. A command that finds things as it wants them (pausing what is paused) is carried out like any other: it changes
   nothing and is recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, TypeAlias

from .replies import Json, Refusal, Refused
from .settings import TenantSettings

MAX_ANNOUNCEMENTS = 100
"""How many announcements can be valid at once."""
HOUR_MS = 3_600_000


class Audience(StrEnum):
    """Whom an announcement is for."""

    CUSTOMER = "customer"
    TRANSPORTER = "transporter"
    DRIVER = "driver"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an operator has to say to everybody of one role, also to those who connect before it expires."""

    announcement_id: str
    audience: Audience
    text: str
    at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class TenantControl:
    """What holds for a tenant at one version. `announcements`: those that are valid or less than an hour old."""

    settings: TenantSettings = field(default_factory=TenantSettings)
    paused: bool = False
    version: int = 1
    announcements: tuple[Announcement, ...] = ()

    def announced(self, audience: Audience, now_ms: int) -> tuple[Announcement, ...]:
        """What there is to be told to somebody of that role who comes now, oldest first."""
        return tuple(each for each in self.announcements if each.audience is audience and now_ms < each.expires_at_ms)


@dataclass(frozen=True, slots=True)
class Pause:
    """No new broadcasts and no new waves."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on where it was paused."""


@dataclass(frozen=True, slots=True)
class ReloadSettings:
    """Have every node read again what the journal says."""


@dataclass(frozen=True, slots=True)
class SwitchMode:
    """Dispatch in another way from now on."""

    mode: str


@dataclass(frozen=True, slots=True)
class PatchSettings:
    """Change some settings: `changes` by the names of `TenantSettings`, each of the type of its field."""

    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Announce:
    """Say something to everybody of one role."""

    announcement_id: str
    audience: Audience
    text: str
    lifetime_s: int


ControlCommand: TypeAlias = Pause | Resume | ReloadSettings | SwitchMode | PatchSettings | Announce

Changes: TypeAlias = Mapping[str, tuple[Json, Json]]
"""What a command changed: by name, what it was and what it is."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What holds after a command, and what differs."""

    control: TenantControl
    changes: Changes


def apply(control: TenantControl, command: ControlCommand, now_ms: int) -> Applied | Refused:
    """`command` carried out on `control`. Raises `InvalidSetting`."""
    after = replace(control, version=control.version + 1)
    match command:
        case Pause() | Resume():
            after = replace(after, paused=isinstance(command, Pause))
        case ReloadSettings():
            pass
        case SwitchMode(mode):
            after = replace(after, settings=replace(control.settings, dispatch_mode=mode))
        case PatchSettings(changes):
            after = replace(after, settings=replace(control.settings, **changes))
        case Announce():
            recent = [each for each in control.announcements if now_ms - each.at_ms < HOUR_MS]
            limit = control.settings.announcements_per_hour
            if len(recent) >= limit:
                wait_ms = recent[-limit].at_ms + HOUR_MS - now_ms
                return Refused(Refusal.TOO_MANY_ANNOUNCEMENTS, {"retry_after_ms": wait_ms})
            kept = [each for each in control.announcements if each in recent or now_ms < each.expires_at_ms]
            if len(kept) >= MAX_ANNOUNCEMENTS:
                wait_ms = min(max(each.at_ms + HOUR_MS, each.expires_at_ms) for each in kept) - now_ms
                return Refused(Refusal.TOO_MANY_ANNOUNCEMENTS, {"retry_after_ms": wait_ms})
            expires_at_ms = now_ms + command.lifetime_s * 1000
            new = Announcement(command.announcement_id, command.audience, command.text, now_ms, expires_at_ms)
            after = replace(after, announcements=(*kept, new))
    return Applied(after, _changes(control, after))


def settings_view(settings: TenantSettings) -> dict[str, Json]:
    """All settings as JSON has them, by name."""
    return {each.name: _plain(getattr(settings, each.name)) for each in fields(settings)}


def changes_view(changes: Changes) -> dict[str, Json]:
    """What a command changed, as operators are shown it."""
    return {name: {"from": was, "to": now} for name, (was, now) in changes.items()}


def _changes(before: TenantControl, after: TenantControl) -> Changes:
    was = {"paused": before.paused, **settings_view(before.settings)}
    now = {"paused": after.paused, **settings_view(after.settings)}
    return {name: (was[name], now[name]) for name in was if was[name] != now[name]}


def _plain(value: Any) -> Json:
    return list(value) if isinstance(value, tuple) else value
