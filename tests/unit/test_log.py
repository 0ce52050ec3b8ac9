"""The log must not become a reason to fail."""

import subprocess
import sys

WRITES_TO_A_BROKEN_PIPE = """
import structlog, sys
from haulcast import log
log.configure()
sys.stdin.readline()
for _ in range(3):
    structlog.get_logger().error("commit_failed", exc_info=ValueError("why"))
sys.stdout.write("went on")
sys.stdout.flush()
"""


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    """Its reader has gone; a full disk is the same to whoever writes."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITES_TO_A_BROKEN_PIPE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stderr.close()
        writer.stdin.write("go\n")
        writer.stdin.flush()
        assert writer.stdout.read() == "went on"
