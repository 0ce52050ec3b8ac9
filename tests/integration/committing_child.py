"""A process that commits until it is killed: prints the id of each write once it was told that the write landed.

python -m tests.integration.committing_child DATABASE
"""

import asyncio
import sys
from itertools import count
from pathlib import Path

from haulcast.ports import Landed
from haulcast.storage.sqlite import SqliteJournal
from tests.contract.hauls import another, log_only, logged

BATCH = 20


async def main(path: Path) -> None:
    journal = await SqliteJournal.open(path)
    incarnation = await journal.next_incarnation()
    for batch in count():
        writes = []
        for number in range(batch * BATCH, (batch + 1) * BATCH):
            haul = another(number)
            haul.incarnation = incarnation
            reply = logged(f"r{number}", user=haul.customer_id)
            writes += [haul.step(haul.created(), reply=reply), haul.step(haul.wave("t1", "t2"))]
            writes.append(log_only(logged(f"log{number}")))
        outcomes = await journal.commit(writes)
        assert outcomes == [Landed()] * len(writes)
        print(*range(batch * BATCH, (batch + 1) * BATCH), sep="\n", flush=True)


asyncio.run(main(Path(sys.argv[1])))
