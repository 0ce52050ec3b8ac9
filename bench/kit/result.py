"""A run's result, as it stands in its JSON file. `compare` and the report read nothing else.

A figure has one value for each repetition, and its median is what counts. What is compared was measured in turns within
one run: the machine's speed drifts, and a ratio within a repetition does not.
"""

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import haulcast

FORMAT = 1


class Figure(msgspec.Struct):
    """One quantity of one variant, by repetition."""

    unit: str
    values: list[float] = []

    @property
    def median(self) -> float:
        """The value that counts."""
        return median(self.values)


class Target(msgspec.Struct):
    """What was to be reached, and what was. `kind`: `at most` or `at least`. `value` is None if it was not measured."""

    text: str
    kind: str
    bound: float
    value: float | None
    met: bool
    why_not: str = ""
    """Why it was not measured."""


class Variant(msgspec.Struct):
    """What was measured of one subject. `curves`: latencies in milliseconds by percentile."""

    figures: dict[str, Figure] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    skipped: str = ""
    """Why it was left out."""


class ScenarioResult(msgspec.Struct):
    """What one scenario found."""

    about: str
    options: dict[str, Any]
    took_s: float = 0.0
    variants: dict[str, Variant] = {}
    notes: list[str] = []
    """What a reader has to know, above all that the client was the bottleneck."""
    failed: str = ""


class Result(msgspec.Struct):
    """A whole run."""

    command: str
    profile: str
    started_at: str
    machine: dict[str, Any]
    versions: dict[str, str]
    url: str | None = None
    """The server that was given."""
    format: int = FORMAT
    took_s: float = 0.0
    scenarios: dict[str, ScenarioResult] = {}
    targets: dict[str, Target] = {}

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read such a file. Raises `ValueError` that says what is wrong with it."""
        try:
            result = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path} is not a result of the bench: {error}") from None
        if result.format != FORMAT:
            raise ValueError(f"{path}: is of format {result.format}, this reads {FORMAT}")
        return result


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of what is always there; scenarios add what they use."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "haulcast": haulcast.__version__,
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
    }


def now() -> str:
    """The time, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _cpu_name() -> str:
    lines: Mapping[str, str] = dict(
        line.split("\t: ", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if "\t: " in line
    )
    return lines.get("model name", platform.machine())
