"""New broadcast ids: ULIDs (github.com/ulid/spec), so that they sort by time and stay together in an index."""

import secrets

from .domain.ids import BroadcastId
from .ports import Clock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80


def new_broadcast_id(clock: Clock) -> BroadcastId:
    """26 characters: 48 bits of time and 80 of chance, in Crockford's base 32 in lower case."""
    number = (clock.now_ms() << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    return BroadcastId("".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)))
