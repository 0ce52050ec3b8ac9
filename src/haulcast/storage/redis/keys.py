"""Every key and channel that haulcast uses in Redis.

1. All begin with `PREFIX`, which has the number of their format. Nodes that write another format use other keys: they
   see nothing of each other here, and have only the journal in common.
2. What one script or command touches together has one hash tag (the part in braces), so that Redis Cluster keeps it in
   one slot: `{nodes}` for leases, the tenant for presence, the broadcast for its owner.
3. Every key has a time to live, which activity renews. It is far longer than what the key holds counts for: that is
   told by times within, and the rest is swept. The time to live is for what nobody comes to sweep any more.
4. Ids match `ID_PATTERN`: they hold no space, slash or brace, so these separate them, in names as in members.
"""

import re
from dataclasses import dataclass
from functools import cache

FORMAT = 1
"""Raised by a version that gives a key or a channel another meaning. One that only adds families leaves it."""
PREFIX = f"hc{FORMAT}:"

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_PART = re.compile(r"<[a-z]+>")
_FORMAT = re.compile(r"hc([0-9]{1,9}):")


@dataclass(frozen=True, slots=True)
class Key:
    """A family of keys. `pattern` names its variable parts as `<part>`; `ttl_ms` 0: each write tells its own. Operators
    are shown what `purpose` says before a semicolon."""

    pattern: str
    holds: str
    owner: str
    purpose: str
    ttl_ms: int

    def __call__(self, *parts: str | int) -> str:
        """The key with these parts, in the order of the pattern."""
        given = iter(parts)
        return _PART.sub(lambda _: str(next(given)), self.pattern)

    def matches(self, name: str) -> bool:
        """Whether `name` is one of this family."""
        return _form(self.pattern).fullmatch(name) is not None


@cache
def _form(pattern: str) -> re.Pattern[str]:
    """What the names of a family look like."""
    return re.compile("[A-Za-z0-9_.:-]+".join(map(re.escape, _PART.split(pattern))))


def _family(name: str, holds: str, owner: str, purpose: str, ttl_ms: int) -> Key:
    """A family of this format."""
    return Key(PREFIX + name, holds, owner, purpose, ttl_ms)


LEASES = _family(
    "nodes:{nodes}:leases",
    "sorted set: incarnation, when its lease runs out",
    "cluster",
    "the members; one whose lease has run out stays until it is condemned",
    DAY_MS,
)
DRAINING = _family("nodes:{nodes}:draining", "set: incarnation", "cluster", "members about to leave", DAY_MS)
CONDEMNED = _family(
    "nodes:{nodes}:condemned",
    "sorted set: incarnation, until when",
    "cluster",
    "tombstones: incarnations that the others have given up",
    DAY_MS,
)
OWNER = _family(
    "owner:{<tenant>/<broadcast>}",
    "string: epoch and incarnation",
    "cluster",
    "the directory: who probably owns a broadcast",
    0,
)
AT = _family(
    "presence:{<tenant>}:at:<type>",
    "geo set: vehicle, transporter and type",
    "presence",
    "where the vehicles of a type are, whether or not they can be found now",
    HOUR_MS,
)
VEHICLES = _family(
    "presence:{<tenant>}:vehicles",
    "hash: vehicle, to transporter, type, latitude, longitude, when",
    "presence",
    "the last report of each vehicle; to the last bit, where a geo set rounds positions to 0.6 m",
    HOUR_MS,
)
SEEN = _family(
    "presence:{<tenant>}:seen",
    "sorted set: vehicle, transporter and type, when",
    "presence",
    "how old positions are; 0 if the vehicle is another's or of another type by now",
    HOUR_MS,
)
FLEETS = _family(
    "presence:{<tenant>}:fleets",
    "sorted set, all scores 0: transporter and vehicle",
    "presence",
    "the vehicles of each transporter, as a range",
    HOUR_MS,
)
ONLINE = _family(
    "presence:{<tenant>}:online",
    "sorted set: transporter, when last heard of",
    "presence",
    "who is online",
    HOUR_MS,
)
ENGAGED = _family(
    "presence:{<tenant>}:engaged",
    "sorted set: vehicle, since when (0: since before anybody looked)",
    "presence",
    "vehicles on a trip",
    DAY_MS,
)
TOGGLES = _family(
    "presence:{<tenant>}:toggles:<transporter>",
    "list: when, oldest first",
    "presence",
    "how often a transporter came or went lately; lives as long as the tenant's window",
    0,
)
DRIVERS = _family(
    "presence:{<tenant>}:drivers:<incarnation>",
    "set: driver",
    "presence",
    "drivers who are connected to a node; a dead node's is asked for by nobody, and ends by its time to live",
    HOUR_MS,
)

KEYS = (LEASES, DRAINING, CONDEMNED, OWNER, AT, VEHICLES, SEEN, FLEETS, ONLINE, ENGAGED, TOGGLES, DRIVERS)

DATAGRAMS = _family(
    "node:<database>:<incarnation>",
    "channel",
    "cluster",
    "datagrams to one node; channels are shared by all databases of a Redis, hence its number",
    0,
)


def format_of(name: str) -> int | None:
    """The format that a key or a channel is of, this or another; None if it is not haulcast's."""
    found = _FORMAT.match(name)
    return None if found is None else int(found[1])


def family_of(name: str) -> Key | None:
    """The family of keys that a name belongs to; None if it is of none, or of another format."""
    return next((key for key in KEYS if key.matches(name)), None)
