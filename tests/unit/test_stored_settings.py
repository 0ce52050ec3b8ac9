"""Settings that any version has stored are read by this one.

`tests/data/settings` has documents as each version has written them. None is ever changed or taken away: settings of
another shape are a new version, with a migration from the one before and documents of its own.
"""

from dataclasses import fields, replace
from pathlib import Path

import orjson
import pytest

from haulcast.domain.settings import ActiveBroadcastPolicy, InvalidSetting, TenantSettings
from haulcast.storage import settings_documents
from haulcast.storage.documents import Unreadable
from haulcast.storage.settings_documents import (
    SETTINGS_MIGRATIONS,
    SETTINGS_VERSION,
    read_settings,
    rewrite_settings,
    write_settings,
)

STORED = {path.name: path.read_text() for path in (Path(__file__).parents[1] / "data" / "settings").iterdir()}

MEANT = {
    "v1_default.json": TenantSettings(),
    "v1_other.json": TenantSettings(
        wave_radii_km=(5.0, 12.5, 40.0),
        wave_interval_s=7.5,
        max_offers_per_wave=50,
        default_expiry_s=600,
        min_expiry_s=30,
        max_expiry_s=7_200,
        reminder_lead_s=45,
        toggle_limit=20,
        toggle_window_s=600,
    ),
    "v2_default.json": TenantSettings(),
    "v2_other.json": TenantSettings(
        wave_radii_km=(2.5, 40.0, None),
        wave_interval_s=0.5,
        max_offers_per_wave=7,
        default_expiry_s=61,
        min_expiry_s=60,
        max_expiry_s=62,
        reminder_lead_s=5,
        toggle_limit=3,
        toggle_window_s=4,
        dispatch_mode="best_match",
        accept_window_s=1.5,
        active_broadcast_policy=ActiveBroadcastPolicy.REPLACE,
        requests_per_s=9.5,
        request_burst=8,
        announcements_per_hour=6,
    ),
}
"""What each document says."""

NEWEST = [name for name in sorted(STORED) if name.startswith(f"v{SETTINGS_VERSION}_")]


@pytest.mark.parametrize("name", sorted(STORED | MEANT))
def test_every_document_is_read_as_it_was_meant(name: str) -> None:
    assert read_settings(STORED[name]) == MEANT[name]


def test_there_are_documents_of_every_version_and_migrations_from_all_but_the_newest() -> None:
    versions = {orjson.loads(document).get("version", 1) for document in STORED.values()}
    assert versions == {int(name[1 : name.index("_")]) for name in STORED} == set(range(1, SETTINGS_VERSION + 1))
    assert set(SETTINGS_MIGRATIONS) == set(range(1, SETTINGS_VERSION))


def test_what_is_written_today_is_of_the_newest_version() -> None:
    """Whoever changes the shape of settings changes the version."""
    assert write_settings(TenantSettings()) == STORED[f"v{SETTINGS_VERSION}_default.json"]
    for name in NEWEST:
        assert write_settings(read_settings(STORED[name])) == STORED[name]


def test_of_the_newest_version_there_is_a_document_in_which_no_setting_has_its_default() -> None:
    default, other = TenantSettings(), read_settings(STORED[f"v{SETTINGS_VERSION}_other.json"])
    assert [each.name for each in fields(default) if getattr(default, each.name) == getattr(other, each.name)] == []


@pytest.mark.parametrize("version", range(1, SETTINGS_VERSION))
def test_a_migration_gives_every_setting_of_the_next_version_a_value(version: int) -> None:
    """So that none has whatever is the default by then."""
    given = orjson.loads(STORED[f"v{version}_other.json"])
    given.pop("version", None)
    following = orjson.loads(STORED[f"v{version + 1}_default.json"])
    assert SETTINGS_MIGRATIONS[version](given).keys() == following.keys() - {"version"}


def test_migrations_are_done_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version to come adds one function."""

    def from_2(given: settings_documents.Document) -> settings_documents.Document:
        return {**given, "announcements_per_hour": given["announcements_per_hour"] + 1}

    monkeypatch.setattr(settings_documents, "SETTINGS_MIGRATIONS", {**SETTINGS_MIGRATIONS, SETTINGS_VERSION: from_2})
    monkeypatch.setattr(settings_documents, "SETTINGS_VERSION", SETTINGS_VERSION + 1)
    assert read_settings(STORED["v1_default.json"]).announcements_per_hour == 21
    assert read_settings(STORED["v2_other.json"]).announcements_per_hour == 7
    written = write_settings(TenantSettings())
    assert orjson.loads(written)["version"] == SETTINGS_VERSION + 1
    assert read_settings(written) == TenantSettings()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b'{"version":3}', "version 3 is not known; the newest that is known is 2"),
        (b'{"version":0}', "0 is no version"),
        (b'{"version":"2"}', "'2' is no version"),
        (b'{"version":true}', "True is no version"),
        (b'{"version":null}', "None is no version"),
        (b'{"version":2,"colour":"red"}', "no setting 'colour'"),
        (b'{"colour":"red"}', "no setting 'colour'"),
        (b'{"dispatch_mode":"blast"}', "no setting 'dispatch_mode'"),  # not in version 1
        (b'{"version":2,"toggle_limit":"many"}', r"int.*\$\.toggle_limit"),
        (b'{"version":2,"dispatch_mode":"fastest"}', "dispatch_mode: 'fastest'.* one of progressive"),
        (b'{"version":2,"active_broadcast_policy":"both"}', "active_broadcast_policy"),
        (b'{"wave_interval_s":0}', "wave_interval_s: 0.0 is not allowed; give 0.1 to 3600"),
        (b"[]", "settings"),
        (b"{", "settings"),
        (b"", "settings"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(document: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        read_settings(document.decode())


def test_a_value_that_is_not_allowed_any_more_is_told_by_the_setting_itself() -> None:
    with pytest.raises(Unreadable) as raised:
        read_settings(STORED["v2_default.json"].replace('"announcements_per_hour":20', '"announcements_per_hour":0'))
    assert raised.value.__cause__ is not None
    cause = raised.value.__cause__.__cause__
    assert isinstance(cause, InvalidSetting)
    assert cause.field == "announcements_per_hour"


@pytest.mark.parametrize("name", sorted(STORED))
def test_a_document_is_replaced_only_when_it_says_something_else(name: str) -> None:
    """So that the version before goes on reading it."""
    settings = read_settings(STORED[name])
    assert rewrite_settings(STORED[name], settings) == STORED[name]
    changed = replace(settings, toggle_limit=99)
    assert rewrite_settings(STORED[name], changed) == write_settings(changed)


def test_a_document_that_cannot_be_read_is_not_replaced() -> None:
    with pytest.raises(Unreadable):
        rewrite_settings('{"version":99}', TenantSettings())
