"""`python -m tests.sim.schedules`: many schedules over all cores, or some of them again with all that happened in them.

The exit code is 1 if what was promised did not hold in any of them.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from tests.sim.cluster_schedule import Result, play

_PROGRESS_EVERY = 50
_SHOWN = 10
"""So many violations of a schedule are printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.schedules", description="Simulate clusters with faults.")
    parser.add_argument("--schedules", type=int, default=1_000, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first; the next follow (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: cores)")
    parser.add_argument("--trace", action="store_true", help="print everything that happens, in one process")
    chosen = parser.parse_args(arguments)
    seeds = range(chosen.seed, chosen.seed + chosen.schedules)
    if chosen.trace:
        return report(_told(map(play, seeds)), len(seeds))
    if min(chosen.jobs, chosen.schedules) <= 1:
        return report(map(play, seeds), len(seeds))
    with ProcessPoolExecutor(chosen.jobs) as pool:
        return report(pool.map(_play_untraced, seeds, chunksize=5), len(seeds))


def report(results: Iterable[Result], total: int) -> int:
    """Print what came of the schedules as they end. The exit code."""
    started_s = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[int] = []
    for number, result in enumerate(results, start=1):
        counts.update(result.counts)
        if result.violations:
            failed.append(result.seed)
            print(f"seed {result.seed}: {len(result.violations)} violations")
            for violation in result.violations[:_SHOWN]:
                print(f"  {violation}")
            print(f"  again: python -m tests.sim.schedules --schedules 1 --seed {result.seed} --trace", flush=True)
        if number % _PROGRESS_EVERY == 0 or number == total:
            rate = number / (time.monotonic() - started_s)
            print(f"{number}/{total} schedules, {len(failed)} with violations, {rate:.1f}/s", flush=True)
    print(", ".join(f"{number} {what}" for what, number in counts.items()))
    return 1 if failed else 0


def _play_untraced(seed: int) -> Result:
    """A schedule whose trace need not travel from process to process."""
    return replace(play(seed), trace=[])


def _told(results: Iterable[Result]) -> Iterable[Result]:
    for result in results:
        for entry in result.trace:
            print(*entry)
        print(f"seed {result.seed}: {len(result.trace)} entries, digest {result.digest}")
        yield result


if __name__ == "__main__":
    sys.exit(main())
