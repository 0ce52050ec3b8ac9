"""Every key and channel that haulcast uses in Redis.

1. All begin with `hc1:`, the version of their format. Nodes that write another format use other keys.
2. What one script or command touches together has one hash tag (the part in braces), so that Redis Cluster keeps it in
   one slot: `{nodes}` for leases, the tenant for presence, the broadcast for its owner.
3. Every key has a time to live, which activity renews. It is far longer than what the key holds counts for: that is
   told by times within, and the rest is swept. The time to live is for what nobody comes to sweep any more.
4. Ids match `ID_PATTERN`: they hold no space, slash or brace, so these separate them, in names as in members.
"""

import re
from dataclasses import dataclass

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_PART = re.compile(r"<[a-z]+>")


@dataclass(frozen=True, slots=True)
class Key:
    """A family of keys. `pattern` names its variable parts as `<part>`; `ttl_ms` 0: each write tells its own."""

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
        between = map(re.escape, _PART.split(self.pattern))
        return re.fullmatch("[A-Za-z0-9_.:-]+".join(between), name) is not None


LEASES = Key(
    "hc1:nodes:{nodes}:leases",
    "sorted set: incarnation, when its lease runs out",
    "cluster",
    "the members; one whose lease has run out stays until it is condemned",
    DAY_MS,
)
DRAINING = Key("hc1:nodes:{nodes}:draining", "set: incarnation", "cluster", "members about to leave", DAY_MS)
CONDEMNED = Key(
    "hc1:nodes:{nodes}:condemned",
    "sorted set: incarnation, until when",
    "cluster",
    "tombstones: incarnations that the others have given up",
    DAY_MS,
)
OWNER = Key(
    "hc1:owner:{<tenant>/<broadcast>}",
    "string: epoch and incarnation",
    "cluster",
    "the directory: who probably owns a broadcast",
    0,
)
AT = Key(
    "hc1:presence:{<tenant>}:at:<type>",
    "geo set: vehicle, transporter and type",
    "presence",
    "where the vehicles of a type are, whether or not they can be found now",
    HOUR_MS,
)
VEHICLES = Key(
    "hc1:presence:{<tenant>}:vehicles",
    "hash: vehicle, to transporter, type, latitude, longitude, when",
    "presence",
    "the last report of each vehicle, to the last bit: a geo set rounds positions to 0.6 m",
    HOUR_MS,
)
SEEN = Key(
    "hc1:presence:{<tenant>}:seen",
    "sorted set: vehicle, transporter and type, when",
    "presence",
    "how old positions are; 0 if the vehicle is another's or of another type by now",
    HOUR_MS,
)
FLEETS = Key(
    "hc1:presence:{<tenant>}:fleets",
    "sorted set, all scores 0: transporter and vehicle",
    "presence",
    "the vehicles of each transporter, as a range",
    HOUR_MS,
)
ONLINE = Key(
    "hc1:presence:{<tenant>}:online",
    "sorted set: transporter, when last heard of",
    "presence",
    "who is online",
    HOUR_MS,
)
ENGAGED = Key(
    "hc1:presence:{<tenant>}:engaged",
    "sorted set: vehicle, since when (0: since before anybody looked)",
    "presence",
    "vehicles on a trip",
    DAY_MS,
)
TOGGLES = Key(
    "hc1:presence:{<tenant>}:toggles:<transporter>",
    "list: when, oldest first",
    "presence",
    "how often a transporter came or went lately; lives as long as the tenant's window",
    0,
)
DRIVERS = Key(
    "hc1:presence:{<tenant>}:drivers:<incarnation>",
    "set: driver",
    "presence",
    "drivers who are connected to a node; a dead node's is asked for by nobody, and ends by its time to live",
    HOUR_MS,
)

KEYS = (LEASES, DRAINING, CONDEMNED, OWNER, AT, VEHICLES, SEEN, FLEETS, ONLINE, ENGAGED, TOGGLES, DRIVERS)

DATAGRAMS = Key(
    "hc1:node:<database>:<incarnation>",
    "channel",
    "cluster",
    "datagrams to one node; channels are shared by all databases of a Redis, hence its number",
    0,
)
