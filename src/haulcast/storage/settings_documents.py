"""How a tenant's settings become a document and settings again, whichever version of haulcast wrote it.

1. A document says its version under the key `version`, but for those of the first, which do not; it is migrated from
   one version to the next until it is of this code's. Nothing is rewritten by being read.
2. All settings are written, those at their default too: what a tenant has does not change with the defaults. So a
   migration gives what is new the value that was in force when there was no such setting.
3. A document is read strictly: a version that is newer than this code, a key that is no setting of the document's
   version, and a value that is not allowed are refused. A key that is missing has its default.
4. Settings of another shape are a new version: one more function in `SETTINGS_MIGRATIONS`, and a document of the new
   version in `tests/data/settings`.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import msgspec
import orjson

from haulcast.domain.settings import TenantSettings

from .documents import Unreadable, decoded

Document: TypeAlias = dict[str, Any]
"""Settings by name, as JSON has them, without the version."""


def write_settings(settings: TenantSettings) -> str:
    """All settings, as a document of the newest version."""
    named = {name: getattr(settings, name) for name in _SETTINGS}
    return orjson.dumps({_VERSION: SETTINGS_VERSION, **named}).decode()


def read_settings(document: str) -> TenantSettings:
    """A tenant's settings, by a document of any version that is known. Raises `Unreadable`."""
    given = decoded("settings", _OBJECT.decode, document)
    version = given.pop(_VERSION, 1)
    if type(version) is not int or version < 1:
        raise Unreadable(f"settings: {version!r} is no version")
    if version > SETTINGS_VERSION:
        raise Unreadable(f"settings: version {version} is not known; the newest that is known is {SETTINGS_VERSION}")
    for earlier in range(version, SETTINGS_VERSION):
        given = SETTINGS_MIGRATIONS[earlier](given)
    if unknown := sorted(given.keys() - _SETTINGS):
        raise _no_setting(unknown[0])

    def typed(given: Document) -> TenantSettings:
        return msgspec.convert(given, TenantSettings)

    return decoded("settings", typed, given)


def rewrite_settings(stored: str, settings: TenantSettings) -> str:
    """The document that is to replace `stored`: the same one if it says the same, in whatever version.

    So the version of haulcast before this one goes on reading it until a setting is changed. Raises `Unreadable`.
    """
    return stored if read_settings(stored) == settings else write_settings(settings)


def _from_1(given: Document) -> Document:
    return _with_new(
        given,
        dispatch_mode="progressive",
        accept_window_s=3.0,
        active_broadcast_policy="reject",
        requests_per_s=None,
        request_burst=None,
        announcements_per_hour=20,
    )


def _with_new(given: Document, **new: object) -> Document:
    """The document with settings that came later. Raises `Unreadable` if it has one of them already."""
    if unknown := sorted(given.keys() & new):
        raise _no_setting(unknown[0])
    return {**given, **new}


def _no_setting(name: str) -> Unreadable:
    return Unreadable(f"settings: there is no setting {name!r}")


SETTINGS_MIGRATIONS: Mapping[int, Callable[[Document], Document]] = {1: _from_1}
"""From each version to the next. Each may raise `Unreadable`."""

SETTINGS_VERSION = 1 + len(SETTINGS_MIGRATIONS)
"""The newest version, which is the one that is written."""

_VERSION = "version"
_SETTINGS = tuple(field.name for field in fields(TenantSettings))
_OBJECT = msgspec.json.Decoder(Document)
