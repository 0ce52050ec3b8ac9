"""Looks through the keys of a Redis: how many there are of each family of the registry, and which should not be there.

Nothing is changed. What may be removed is left to the operator, with the command that does it.
"""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic

from redis.asyncio import Redis, SSLConnection

from haulcast.storage.redis.keys import DATAGRAMS, DAY_MS, FORMAT, HOUR_MS, KEYS, PREFIX, Key, family_of, format_of

from .finding import Finding

SUBJECT = "keys"
MOST_KEYS = 100_000
"""No more are looked at, whosever they are."""
WITHIN_S = 3.0
"""Nor is looked for longer."""
_AT_ONCE = 1_000
_NAMED = 3
_OURS = "hc[0-9]*"


@dataclass(slots=True)
class _Odd:
    """Keys to tell of: how many, the first few, and in how long the last of them ends."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    ends_in_ms: int = 0

    def add(self, name: str, ttl_ms: int) -> None:
        self.count += 1
        self.ends_in_ms = max(self.ends_in_ms, ttl_ms)
        if len(self.names) < _NAMED:
            self.names.append(name)

    @property
    def shown(self) -> str:
        """Their names, for a shell and a terminal, whatever is in them."""
        quoted = [shlex.quote(name) if name.isprintable() else ascii(name) for name in self.names]
        return ", ".join(quoted) + (", ..." if self.count > len(self.names) else "")


@dataclass(frozen=True, slots=True)
class _Cli:
    """How to call `redis-cli` for the same database, and what to say about its password. Not with the address: there
    may be a password in it, and `redis-cli` up to 7 takes none from there that comes without a user."""

    call: str
    password: str

    def __str__(self) -> str:
        return self.call

    @classmethod
    def of(cls, redis: Redis) -> "_Cli":
        """For what this is connected to."""
        there = redis.connection_pool.connection_kwargs
        options: list[object] = ["redis-cli"]
        if "path" in there:
            options += ["-s", there["path"]]
        else:
            options += ["-h", there.get("host", "localhost"), "-p", there.get("port", 6379)]
        if issubclass(redis.connection_pool.connection_class, SSLConnection):
            options.append("--tls")
        if there.get("username"):
            options += ["--user", there["username"]]
        call = shlex.join(map(str, [*options, "-n", there.get("db") or 0]))
        return cls(call, ", with the password in REDISCLI_AUTH" if there.get("password") else "")


class _Census:
    """All keys that were looked at."""

    def __init__(self) -> None:
        self.families: Counter[Key] = Counter()
        self.others: dict[int, _Odd] = {}  # by format
        self.unknown = _Odd()
        self.endless = _Odd()
        self.whole = False

    def add(self, name: str, ttl_ms: int) -> None:
        """Count a key. `ttl_ms` as Redis tells it: -1 if it has none."""
        written = format_of(name)
        if written is None:
            return
        if ttl_ms < 0:
            self.endless.add(name, 0)
        family = family_of(name)
        if written != FORMAT:
            self.others.setdefault(written, _Odd()).add(name, ttl_ms)
        elif family is None:
            self.unknown.add(name, ttl_ms)
        else:
            self.families[family] += 1


async def look_at_keys(redis: Redis) -> list[Finding]:
    """What there is to say about them. Of what is found first, at most `MOST_KEYS` and for `WITHIN_S`."""
    census, cli = await _counted(redis), _Cli.of(redis)
    channels = [str(name) for name in await redis.pubsub_channels(f"{_OURS}:node:*")]
    listening = Counter(number for number in map(format_of, channels) if number is not None)
    database = redis.connection_pool.connection_kwargs.get("db") or 0
    here = sum(name.startswith(DATAGRAMS(database, "")) for name in channels)
    owners: Counter[str] = Counter()
    for key, count in census.families.items():
        owners[key.owner] += count
    counts = ", ".join(f"{count:,} {owner}" for owner, count in sorted(owners.items())) or "none yet"
    findings = [
        Finding(
            SUBJECT,
            f"{counts} (format {FORMAT})" + ("" if census.whole else "; there are more than were looked at"),
            details=tuple(_listed(census.families, here)),
        )
    ]
    findings += [
        _of_another_format(number, odd, listening[number], cli) for number, odd in sorted(census.others.items())
    ]
    findings += [
        Finding(
            SUBJECT,
            f"none of format {number}, of which {listening[number]} nodes listen, on this database or another",
            _both_run(number),
        )
        for number in sorted(listening)
        if number != FORMAT and number not in census.others
    ]
    if census.unknown.count:
        findings.append(_of_no_family(census.unknown, cli))
    if census.endless.count:
        findings.append(_without_end(census.endless, cli))
    return findings


async def _counted(redis: Redis) -> _Census:
    census, seen = _Census(), set[str]()
    give_up_at_s = monotonic() + WITHIN_S
    cursor = 0
    for _ in range(MOST_KEYS // _AT_ONCE):
        cursor, found = await redis.scan(cursor, match=_OURS, count=_AT_ONCE)
        names = [name for name in dict.fromkeys(map(str, found)) if name not in seen]  # SCAN may tell one twice
        seen.update(names)
        async with redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.pttl(name)
            for name, ttl_ms in zip(names, await pipeline.execute(), strict=True):
                if ttl_ms != -2:  # it has ended meanwhile
                    census.add(name, ttl_ms)
        if cursor == 0:
            census.whole = True
            break
        if monotonic() >= give_up_at_s:
            break
    return census


def _listed(families: Counter[Key], listening: int) -> Iterator[str]:
    """Every family of the registry, by owner: how many, its pattern, how long each lives, what it is for."""
    rows = [(key, families[key]) for key in KEYS] + [(DATAGRAMS, listening)]
    width = max(len(key.pattern) for key, _ in rows)
    for owner in dict.fromkeys(key.owner for key, _ in rows):
        yield f"{owner}:"
        for key, count in rows:
            if key.owner == owner:
                lives = "channel" if key is DATAGRAMS else _duration(key.ttl_ms) if key.ttl_ms else "varies"
                yield f"{count:>9,}  {key.pattern:{width}}  {lives:7}  {key.purpose.partition(';')[0]}"


def _of_another_format(number: int, odd: _Odd, listening: int, cli: _Cli) -> Finding:
    found = f"{odd.count:,} of format {number}, which this version does not use: {odd.shown}"
    if listening:
        return Finding(SUBJECT, f"{found}; {listening} nodes listen, on this database or another", _both_run(number))
    version = "an older" if number < FORMAT else "a newer"
    ends = f", the last in {_duration(odd.ends_in_ms)}" if odd.ends_in_ms else ""
    return Finding(
        SUBJECT,
        found,
        f"left by {version} version: they end by their time to live once none of its nodes runs{ends}; "
        f"to remove them by hand{cli.password}: {cli} --scan --pattern 'hc{number}:*'"
        f" | tr '\\n' '\\0' | xargs -0r {cli} unlink",
    )


def _both_run(number: int) -> str:
    older, newer = sorted((number, FORMAT))
    return (
        "nodes of two formats see nothing of each other, and where they share a PostgreSQL they take each other's "
        f"broadcasts again and again: stop all of format {older}, then only those of format {newer} run"
    )


def _of_no_family(odd: _Odd, cli: _Cli) -> Finding:
    return Finding(
        SUBJECT,
        f"{odd.count:,} begin with {PREFIX} and are of no family: {odd.shown}",
        "nothing of this version reads them. Written by a newer version, they end by themselves; written by somebody "
        f"else, have that use another Redis. To remove one{cli.password}: {cli} unlink NAME",
    )


def _without_end(odd: _Odd, cli: _Cli) -> Finding:
    return Finding(
        SUBJECT,
        f"{odd.count:,} without a time to live: {odd.shown}",
        "every key that haulcast writes has one, so somebody else wrote or changed them, and they stay for ever. "
        f"To have one end in a day{cli.password}: {cli} pexpire NAME {DAY_MS}",
    )


def _duration(ms: int) -> str:
    """About how long, in the largest unit that fits."""
    for unit, name in ((DAY_MS, "day"), (HOUR_MS, "hour"), (60_000, "minute")):
        if ms >= unit:
            return f"{ms // unit} {name}{'s' if ms // unit > 1 else ''}"
    return f"{-(-ms // 1000)} s"
