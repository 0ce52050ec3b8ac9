"""Prometheus' own judge of configurations, rules and their tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PROMTOOL = shutil.which("promtool", path=Path(sys.prefix) / "bin") or shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    _PROMTOOL is None, reason="promtool is not installed: scripts/promtool.sh gets it, on Debian and Ubuntu"
)


def promtool(*arguments: str | Path) -> None:
    """Run it; a test fails with what it says if it finds something wrong."""
    assert _PROMTOOL is not None
    done = subprocess.run([_PROMTOOL, *arguments], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
