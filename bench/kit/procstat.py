"""What processes cost, read from /proc: CPU time to the nanosecond, and memory. Linux only.

1. CPU time is that of all threads, user and kernel. On loopback the kernel's work for a packet is billed to its sender.
2. A family is a process with all its descendants: Postgres answers from children of its postmaster.
3. What a thread or a child had used is lost when it ends, so measure while all of them live.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_KIB = 1024


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for member in found:
        for children in _of_threads(member, "children"):
            found += map(int, children.split())
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds that these processes and their descendants have used so far."""
    total_ns = 0
    for pid in pids:
        for member in family(pid):
            for schedstat in _of_threads(member, "schedstat"):
                total_ns += int(schedstat.split()[0])
    return total_ns / 1e9


def _of_threads(pid: int, name: str) -> list[str]:
    """What this file says of each thread. A thread, or the whole process, may end while it is looked at."""
    said = []
    with suppress(OSError):
        for path in _PROC.glob(f"{pid}/task/*/{name}"):
            with suppress(OSError):
                said.append(path.read_text())
    return said


def memory_bytes(pid: int) -> int:
    """The memory that is the process' own: neither shared code nor files."""
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * _KIB
    raise OSError(f"the kernel tells no Pss_Anon of process {pid}")
