"""At which server, and as whom."""

import base64
import time
from dataclasses import dataclass, field
from getpass import getuser
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from haulcast.config import Config, Environment
from haulcast.domain.ids import is_id
from haulcast.errors import ConfigError
from haulcast.ports import Role
from haulcast.transport.auth import KeyRing

LIFETIME_S = 600
"""How long a token that is signed here is good."""


@dataclass(frozen=True, slots=True)
class Access:
    """The address of a server, without a slash at its end, and a token for it. `tenant` is whom the token names,
    unverified: it is for people to read."""

    url: str
    token: str = field(repr=False)
    tenant: str | None = None


def find_access(
    config: Config, role: Role, url: str | None, token_file: Path | None, tenant: str | None, user: str | None
) -> Access:
    """What the configuration and the arguments say. Raises `ConfigError`. No message has a token in it."""
    address = (url or config.url or "").rstrip("/")
    if not address:
        if not config.port:
            raise ConfigError("HAULCAST_PORT is 0, so where the server listens is not known; give --url")
        address = f"http://127.0.0.1:{config.port}"
    token = _token(config, address, role, token_file, tenant, user)
    return Access(address, token, _tenant_of(token))


def _token(config: Config, url: str, role: Role, file: Path | None, tenant: str | None, user: str | None) -> str:
    token = config.token
    if file is not None:
        try:
            token = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigError(f"cannot read the token in {file.absolute()}: {why}") from None
    if token is None:
        if not _is_this_machine(url):
            raise ConfigError(f"{url} is not this machine and needs a token: a file as --token-file, or HAULCAST_TOKEN")
        return _signed(config, role, tenant, user)
    if not token.isascii() or not token.isprintable() or len(token.split()) != 1:
        raise ConfigError(f"what is in {file.absolute() if file else 'HAULCAST_TOKEN'} is no token")
    theirs = _tenant_of(token)
    if tenant is not None and theirs not in (None, tenant):
        raise ConfigError(f"the token is for the tenant {theirs}, not for {tenant}: a token speaks for one tenant")
    return token


def _signed(config: Config, role: Role, tenant: str | None, user: str | None) -> str:
    if config.environment is not Environment.DEVELOPMENT:
        raise ConfigError("give a token: a file with one as --token-file, or HAULCAST_TOKEN")
    if tenant is None:
        raise ConfigError("give --tenant, for example acme; or a token, as --token-file or HAULCAST_TOKEN")
    try:
        return KeyRing(config.keys, config.audience).sign(
            tenant=tenant,
            role=role,
            user=user or _login(),
            now_ms=time.time_ns() // 1_000_000,
            lifetime_s=LIFETIME_S,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _is_this_machine(url: str) -> bool:
    """Whoever is there is not handed a token that everybody else's development server would take."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _login() -> str:
    """Whoever sits here, so that the audit names them."""
    try:
        name = getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "operator"
    return name if is_id(name) else "operator"


def _tenant_of(token: str) -> str | None:
    """The tenant that a token names, unverified; None if that cannot be read."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return None
    tenant = claims.get("tenant") if isinstance(claims, dict) else None
    return tenant if isinstance(tenant, str) else None
