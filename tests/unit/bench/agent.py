"""What a crew's processes do in the tests."""

import asyncio
import os
from time import process_time

from bench.kit.histogram import Histogram


class Agent:
    """What the tests have done elsewhere."""

    def __init__(self, number: int, greeting: str) -> None:
        if greeting == "wrong":
            raise ValueError("no such greeting")
        self._number = number
        self._greeting = greeting

    async def greet(self, name: str) -> tuple[int, str]:
        """Tell who it is."""
        return self._number, f"{self._greeting} {name}"

    async def measure(self) -> Histogram:
        """Something that is merged."""
        return Histogram([0.001])

    async def fail(self) -> None:
        """Raise."""
        raise LookupError("nothing here")

    async def work(self, seconds: float) -> None:
        """Use so much CPU time."""
        until_s = process_time() + seconds
        while process_time() < until_s:
            pass

    async def rest(self, seconds: float) -> None:
        """Use none."""
        await asyncio.sleep(seconds)

    async def end(self) -> None:
        """Take the process along."""
        os._exit(7)
