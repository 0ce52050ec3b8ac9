"""The address of a PostgreSQL or a Redis, as far as haulcast looks into it: where it leads, and who could listen.

The libraries that connect read the whole of it. This reads what they share (RFC 3986, with several hosts separated by
commas, as PostgreSQL allows), and never repeats a password: not in errors, not in what it shows.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs

_FORM = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<user>[^:@/?#\s]*)(?::[^@/?#\s]*)?@)?"
    r"(?P<hosts>[^@/?#\s]*)"
    r"(?P<path>/[^@?#\s]*)?"
    r"(?:\?(?P<query>[^#\s]*))?"
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_ENCRYPTED_MODES = frozenset({"require", "verify-ca", "verify-full"})
"""The values of PostgreSQL's `sslmode` that never fall back to a connection without TLS."""


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """An address without its password. `hosts` are names or addresses, or directories of a Unix socket."""

    scheme: str
    hosts: tuple[str, ...]
    encrypted: bool
    shown: str
    """What may be printed and logged."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError that says what is wrong and quotes nothing that may be secret."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(
                "it does not have the form scheme://user:password@host:port/name "
                "(in a password write %40 for @, %2F for /, %3F for ?, %23 for #)"
            )
        query = parse_qs(found["query"] or "")
        hosts = (
            tuple(_host(part) for part in found["hosts"].split(",")) if found["hosts"] else tuple(query.get("host", ()))
        )
        if not hosts:
            raise ValueError("it names no host")
        user = f"{found['user']}@" if found["user"] else ""
        return cls(
            scheme=found["scheme"],
            hosts=hosts,
            encrypted=found["scheme"] == "rediss" or query.get("sslmode", [""])[-1] in _ENCRYPTED_MODES,
            shown=f"{found['scheme']}://{user}{found['hosts']}{found['path'] or ''}",
        )

    @property
    def exposed(self) -> bool:
        """Whether what goes there crosses a network in plain text."""
        return not self.encrypted and not all(_is_local(host) for host in self.hosts)


def _host(text: str) -> str:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found["port"] or 1) <= 65_535:
        raise ValueError("its host and port do not have the form host:port")
    return found["name"].strip("[]")


def _is_local(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
