"""The Lua scripts: one per operation, in `lua/`, each atomic. What KEYS and ARGV are is told at its top.

1. A script's first argument is what time it is: '' for the store's own clock, which is the rule. Several nodes write
   the same times and compare them, and their own clocks may differ by more than what counts. A test, which wants time
   to stand still, gives a number.
2. So the times of a deployment are its Redis' wall clock. If that is set forward by more than a lease lasts, all leases
   have run out, and the nodes find out as they would had they been cut off; set back, what is noted lasts longer.
3. A script is called by its digest. A Redis that does not know it (new, flushed, another after a failover) says so, and
   is sent the whole text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

_DIRECTORY = Path(__file__).parent / "lua"
_PRELUDE = (_DIRECTORY / "prelude.lua").read_text()


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script."""

    script: "Script"
    keys: Sequence[str]
    arguments: Sequence[Argument]

    def by_digest(self) -> Command:
        """As a command that a Redis understands that has seen the script."""
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.arguments)

    def in_full(self) -> Command:
        """As a command that every Redis understands."""
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.arguments)


class Script:
    """`lua/<name>.lua`. Calling it makes a `Call`."""

    def __init__(self, name: str) -> None:
        self.text = _PRELUDE + (_DIRECTORY / f"{name}.lua").read_text()
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], *arguments: Argument) -> Call:
        """`keys` and `arguments` as the file tells."""
        return Call(self, keys, arguments)
