"""The README's example, run as it stands there."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.network import Network, haul, sign

README = Path(__file__).parents[2] / "README.md"


async def test_the_example_in_the_readme_wins_a_haul(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    await network.hire("t1", {"truck-1": "mini"}, ["ravi"])
    customer = await network.client("customer", "c1")
    driving = asyncio.create_task(names["drive"](network.url, sign(network.tenant, "transporter", "t1")))
    created = await customer.request("broadcast.create", haul({"mini": 1}))
    async with asyncio.timeout(10):
        await driving
    assert f"won {created['broadcast_id']}" in capsys.readouterr().out
