"""Looks at everything in turn: the configuration, the stores, the port."""

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.error import URLError
from urllib.request import urlopen

from haulcast import __version__, config
from haulcast.config import DEVELOPMENT_KEY, Config
from haulcast.errors import ConfigError
from haulcast.storage.sqlite.migrate import pending

from .finding import Finding

LOW_DISK_BYTES = 1 << 30


def examine(show: Callable[[str], None] = print) -> int:
    """Look at everything; 1 if something would keep the server from starting."""
    findings = list(_findings())
    for finding in findings:
        mark = "FAIL" if finding.fatal else "note" if finding.advice else "ok"
        show(
            f"{mark:4}  {finding.subject:14} {finding.found}"
            + (f"\n      -> {finding.advice}" if finding.advice else "")
            + "".join(f"\n      {line}" for line in finding.details)
        )
    return 1 if any(finding.fatal for finding in findings) else 0


def _findings() -> Iterator[Finding]:
    yield Finding(
        "version", f"haulcast {__version__}, Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}"
    )
    try:
        settings = config.load()
    except ConfigError as error:
        yield Finding("configuration", "cannot be used", str(error), fatal=True)
        return
    named = ", ".join(sorted(name for name in config.VARIABLES if name in os.environ)) or "all defaults"
    yield Finding("configuration", f"{settings.environment} ({named})")
    yield _keys(settings)
    yield _origins(settings)
    if settings.database_url is None or settings.redis_url is None:
        yield _data_dir(settings)
        yield from _journal(settings)
    else:
        from .postgres import look_at_postgres
        from .redis import look_at_redis

        yield from asyncio.run(look_at_postgres(settings.database_url))
        yield from asyncio.run(look_at_redis(settings.redis_url))
    if settings.osrm_url is not None:
        from .osrm import look_at_osrm

        yield asyncio.run(look_at_osrm(settings.osrm_url))
    yield _port(settings)


def _keys(settings: Config) -> Finding:
    shown = ", ".join(f"{key.kid} ({key.algorithm})" for key in settings.keys)
    if DEVELOPMENT_KEY in settings.keys:
        return Finding("token keys", shown, "the development key: anybody can sign with it; set HAULCAST_JWT_KEYS")
    return Finding("token keys", shown)


def _origins(settings: Config) -> Finding:
    if "*" in settings.origins:
        return Finding("origins", "any web page may connect", "set HAULCAST_ORIGINS before going to production")
    return Finding("origins", ", ".join(sorted(settings.origins)) or "no web pages, only apps")


def _data_dir(settings: Config) -> Finding:
    path = settings.data_dir.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "data", str(path), "cannot be written to: change HAULCAST_DATA_DIR or its permissions", fatal=True
        )
    free = shutil.disk_usage(existing).free
    shown = f"{path} ({free >> 20:,} MiB free)"
    if free < LOW_DISK_BYTES:
        return Finding("data", shown, "little room: when the disk is full nothing can be confirmed")
    return Finding("data", shown)


def _journal(settings: Config) -> Iterator[Finding]:
    path = settings.journal_path
    if not path.exists():
        yield Finding("journal", f"SQLite, {path} (not there yet: the server creates it)")
        return
    try:
        missing = pending(path)
        if missing:
            yield Finding("journal", f"SQLite, {path}", f"revisions {', '.join(missing)} are applied at the next start")
            return
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            (health,) = connection.execute("PRAGMA quick_check").fetchone()
            live, tenants = (
                connection.execute(query).fetchone()[0]
                for query in (
                    "SELECT count(*) FROM broadcasts WHERE ended_at_ms IS NULL",
                    "SELECT count(*) FROM tenants",
                )
            )
    except (ConfigError, sqlite3.Error) as error:
        yield Finding("journal", f"SQLite, {path}", str(error), fatal=True)
        return
    if health != "ok":
        yield Finding("journal", f"SQLite, {path}", f"damaged ({health}): restore a backup", fatal=True)
        return
    yield Finding("journal", f"SQLite, {path}: {tenants} tenants, {live} live broadcasts")


def _port(settings: Config) -> Finding:
    at = f"{settings.host}:{settings.port}"
    if settings.port == 0:
        return Finding("port", f"{at} (a free one is taken at start)")
    probe = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
    try:
        with urlopen(f"http://{probe}:{settings.port}/health/detailed", timeout=2) as answer:
            health = json.load(answer)
        return Finding("server", f"running at {at}: {health['status']}, version {health['version']}")
    except (URLError, OSError, ValueError, KeyError):
        pass
    try:
        with socket.create_server((settings.host, settings.port)):
            return Finding("server", f"not running; {at} is free")
    except OSError as error:
        return Finding(
            "server", f"{at}: {error.strerror}", "another program has the port: set HAULCAST_PORT", fatal=True
        )
