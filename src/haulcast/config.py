"""What a deployment chooses, by environment variables. Every problem is found at the start and said in one sentence."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from .errors import ConfigError
from .store_url import StoreUrl
from .transport.auth import Algorithm, Key
from .transport.tiles import Tiles

DEVELOPMENT_KEY = Key("development", Algorithm.HS256, "haulcast-development-key-never-for-production")
"""Known to everybody who can read this: whoever holds it is anybody. Production refuses it."""

VARIABLES: Mapping[str, str] = {
    "HAULCAST_ENV": "development (default) or production; production refuses development defaults",
    "HAULCAST_HOST": "the address to listen on (default 127.0.0.1)",
    "HAULCAST_PORT": "the port to listen on (default 8080; 0 takes a free one)",
    "HAULCAST_NODE_PORT": (
        "a second port of this node alone, for operators, where nodes share HAULCAST_PORT (default 0: none)"
    ),
    "HAULCAST_DATA_DIR": "where the embedded journal lives (default var/)",
    "HAULCAST_DATABASE_URL": (
        "the PostgreSQL that the nodes of a cluster share, postgresql://USER:PASSWORD@HOST:PORT/DATABASE "
        "(default: none, the node is on its own with the embedded journal)"
    ),
    "HAULCAST_REDIS_URL": "the Redis that they share, redis://:PASSWORD@HOST:PORT/0 or rediss:// (both or none)",
    "HAULCAST_OSRM_URL": (
        "the OSRM server that knows the roads, http://HOST:PORT or https:// (default: none, distances are straight)"
    ),
    "HAULCAST_JWT_KEYS": (
        'the keys that tokens are signed with: a JSON list of {"kid", "alg": HS256|RS256|ES256, and one of "secret", '
        '"secret_file", "pem_file"}, or @FILE with such a list'
    ),
    "HAULCAST_JWT_AUDIENCE": "what the `aud` claim of a token must name, if it has one (default: none may have one)",
    "HAULCAST_ORIGINS": "origins of web pages that may connect, separated by commas; * is any (default in development)",
    "HAULCAST_TILES_URL": (
        "the background of the console's map, an address like https://tiles.example.com/{z}/{x}/{y}.png "
        "(default: none, the map is drawn without)"
    ),
    "HAULCAST_TILES_ATTRIBUTION": "whom the map has to name for its tiles",
    "HAULCAST_LOG_LEVEL": "debug, info (default), warning or error",
    "HAULCAST_URL": (
        "the server that `haulcast settings` and `haulcast control` talk to, http://HOST:PORT or https://HOST "
        "(default: http://127.0.0.1 at HAULCAST_PORT)"
    ),
    "HAULCAST_TOKEN": (
        "the token that they say who they are with (default in development, for this machine: one that they sign)"
    ),
}

_DATABASE_SCHEMES = ("postgres", "postgresql")
_REDIS_SCHEMES = ("redis", "rediss")
_SERVER = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?(?:/[^\s?#@]*)?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s@]+")


class Environment(StrEnum):
    """How strict the server is with its own configuration."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that can be started."""

    environment: Environment
    host: str
    port: int
    data_dir: Path
    keys: tuple[Key, ...]
    audience: str | None
    origins: frozenset[str]
    log_level: str
    database_url: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    node_port: int | None = None
    osrm_url: str | None = field(default=None, repr=False)
    tiles: Tiles | None = None
    url: str | None = None
    """The server that operators' commands go to; None: the one that this configuration starts."""
    token: str | None = field(default=None, repr=False)
    """Whose commands those are."""
    reuse_port: bool = False
    """Whether other nodes on this machine listen on `port` too. Not for users: `serve --nodes` asks it of its nodes."""

    @property
    def journal_path(self) -> Path:
        """The embedded journal."""
        return self.data_dir / "haulcast.sqlite3"

    @property
    def clustered(self) -> bool:
        """Whether the journal is in PostgreSQL, shared with other nodes."""
        return self.database_url is not None

    @property
    def exposed(self) -> tuple[str, ...]:
        """The variables whose store is reached over a network without TLS."""
        given = {"HAULCAST_DATABASE_URL": self.database_url, "HAULCAST_REDIS_URL": self.redis_url}
        return tuple(name for name, url in given.items() if url is not None and StoreUrl.parse(url).exposed)


class _KeyEntry(msgspec.Struct, forbid_unknown_fields=True):
    kid: str
    alg: Algorithm
    secret: str | None = None
    secret_file: str | None = None
    pem_file: str | None = None


def load(environ: Mapping[str, str] | None = None) -> Config:
    """The configuration that the environment describes. Raises `ConfigError`."""
    env = os.environ if environ is None else environ
    unknown = sorted(
        name
        for name in env
        if name.startswith("HAULCAST_") and not name.startswith("HAULCAST_TEST_") and name not in VARIABLES
    )
    if unknown:
        raise ConfigError(f"{unknown[0]} is not a setting of haulcast; there are {', '.join(VARIABLES)}")
    environment = _choice(env, "HAULCAST_ENV", Environment.DEVELOPMENT, tuple(Environment))
    config = Config(
        environment=Environment(environment),
        host=env.get("HAULCAST_HOST", "127.0.0.1"),
        port=_port(env, "HAULCAST_PORT", "8080"),
        data_dir=Path(env.get("HAULCAST_DATA_DIR", "var")),
        keys=_keys(env["HAULCAST_JWT_KEYS"]) if env.get("HAULCAST_JWT_KEYS") else (DEVELOPMENT_KEY,),
        audience=env.get("HAULCAST_JWT_AUDIENCE") or None,
        origins=_origins(env.get("HAULCAST_ORIGINS", "*")),
        log_level=_choice(env, "HAULCAST_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
        database_url=_store_url(env, "HAULCAST_DATABASE_URL", _DATABASE_SCHEMES),
        redis_url=_store_url(env, "HAULCAST_REDIS_URL", _REDIS_SCHEMES),
        node_port=_port(env, "HAULCAST_NODE_PORT", "0") or None,
        osrm_url=_service_url(env, "HAULCAST_OSRM_URL"),
        tiles=_tiles(env.get("HAULCAST_TILES_URL", ""), env.get("HAULCAST_TILES_ATTRIBUTION", "")),
        url=server_url("HAULCAST_URL", env["HAULCAST_URL"]) if env.get("HAULCAST_URL") else None,
        token=env.get("HAULCAST_TOKEN", "").strip() or None,
    )
    if (config.database_url is None) != (config.redis_url is None):
        given, missing = ("HAULCAST_DATABASE_URL", "HAULCAST_REDIS_URL")[:: 1 if config.clustered else -1]
        raise ConfigError(f"{given} is set and {missing} is not: a cluster needs both, a node on its own neither")
    if config.node_port is not None and config.node_port == config.port:
        raise ConfigError(f"HAULCAST_NODE_PORT is {config.node_port}, as HAULCAST_PORT is; give another")
    if config.environment is Environment.PRODUCTION:
        _refuse_development(config)
    return config


def _refuse_development(config: Config) -> None:
    if any(key.kid == DEVELOPMENT_KEY.kid or key.material == DEVELOPMENT_KEY.material for key in config.keys):
        raise ConfigError(
            "production needs keys of its own, not the development key that everybody knows: set HAULCAST_JWT_KEYS"
        )
    if "*" in config.origins:
        raise ConfigError(
            "production needs a list of allowed origins, not any: set HAULCAST_ORIGINS (empty for none but apps)"
        )


def _choice(env: Mapping[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = env.get(name, default)
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; give {', '.join(allowed)}")
    return value


def _port(env: Mapping[str, str], name: str, default: str) -> int:
    text = env.get(name, default)
    if not text.isdecimal() or int(text) > 65_535:
        raise ConfigError(f"{name} is {text!r}; give a number from 0 to 65535")
    return int(text)


def _store_url(env: Mapping[str, str], name: str, schemes: tuple[str, ...]) -> str | None:
    """Never quotes what it was given: there may be a password in it."""
    text = env.get(name)
    if not text:
        return None
    try:
        url = StoreUrl.parse(text)
    except ValueError as error:
        raise ConfigError(f"{name} is no address: {error}") from None
    if url.scheme not in schemes:
        raise ConfigError(f"{name} does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    return text


def _service_url(env: Mapping[str, str], name: str) -> str | None:
    """One server, and perhaps a path there. Never quotes what it was given."""
    text = _store_url(env, name, ("http", "https"))
    if text is not None and ("?" in text or "," in text):
        raise ConfigError(f"{name} is no address of one server: give http://host:port or https://host:port/path")
    return text


def server_url(name: str, text: str) -> str:
    """The address of a haulcast server, as `name` gives it. Never quotes it. Raises `ConfigError`."""
    found = _SERVER.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65_535:
        raise ConfigError(f"{name} is no address of a server: give http://host:port or https://host:port/path")
    return text


def _origins(text: str) -> frozenset[str]:
    origins = frozenset(filter(None, (part.strip() for part in text.split(","))))
    for origin in origins - {"*"}:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"HAULCAST_ORIGINS: {origin!r} is no origin; give scheme://host or scheme://host:port")
    return origins


def _tiles(url: str, attribution: str) -> Tiles | None:
    """Does not quote the address: there may be a key in it."""
    if not url:
        return None
    try:
        return Tiles.parse(url, attribution)
    except ValueError as error:
        raise ConfigError(f"HAULCAST_TILES_URL {error}") from None


def _keys(text: str) -> tuple[Key, ...]:
    """Never quotes what it was given: that may be a secret."""
    try:
        entries = msgspec.json.decode(_read(text[1:]) if text.startswith("@") else text, type=list[_KeyEntry])
    except msgspec.DecodeError as error:
        raise ConfigError(f"HAULCAST_JWT_KEYS: {error}; give {VARIABLES['HAULCAST_JWT_KEYS']}") from None
    if not entries:
        raise ConfigError("HAULCAST_JWT_KEYS has no key in it")
    return tuple(Key(entry.kid, entry.alg, _material(entry)) for entry in entries)


def _material(entry: _KeyEntry) -> str:
    given = [value for value in (entry.secret, entry.secret_file, entry.pem_file) if value is not None]
    fits = entry.pem_file is None if entry.alg is Algorithm.HS256 else entry.pem_file is not None
    if len(given) != 1 or not fits:
        wanted = '"secret" or "secret_file"' if entry.alg is Algorithm.HS256 else '"pem_file"'
        raise ConfigError(f"HAULCAST_JWT_KEYS: the {entry.alg} key {entry.kid!r} takes {wanted} and nothing else")
    return entry.secret if entry.secret is not None else _read(given[0]).strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"HAULCAST_JWT_KEYS: cannot read {Path(path).absolute()}: {why}") from None
