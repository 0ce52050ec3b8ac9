"""A haulcast server as a process of its own: started, killed and stopped as an operator would.

1. It is run as users run it, `python -m haulcast serve`, and configured by environment variables alone.
2. The first start takes a free port; every later one takes the same again, as a server behind a name does.
3. What it writes is kept in one log over all its starts. `check_log` refuses errors that the test has not allowed, and
   whatever is not a log line: a traceback that went past the log is an error too.
4. Everything here blocks; a test with an event loop calls `start` and `stop` by `asyncio.to_thread`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.acceptance.books import SqliteTables, Tables

START_WITHIN_S = 20.0
STOP_WITHIN_S = 20.0
_POLL_S = 0.005

COMMAND = (sys.executable, "-m", "haulcast", "serve")


def environment(**settings: str) -> dict[str, str]:
    """The environment of a server: this one's without what would change how the server behaves, and `settings`.

    asyncio's debug mode is for the tests; the server keeps the deadlines that the tests look at.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HAULCAST_") and name != "PYTHONASYNCIODEBUG"
    }
    return {**inherited, **settings}


def run_to_its_end(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to refuse to start."""
    return subprocess.run(
        COMMAND, env=environment(**settings), capture_output=True, text=True, timeout=START_WITHIN_S, check=False
    )


class Server:
    """One data directory and the process that serves it, over any number of starts."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.data_dir = directory / "data"
        self.port = 0
        self._settings = settings
        self._log_path = directory / "server.log"
        self._log_path.touch()
        self._launched_at_bytes = 0  # of the log, where the lines of the last start begin
        self._checked_bytes = 0  # of the log, up to which `check_log` has looked
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, the same from the first start on."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def journal(self) -> Tables:
        """Its journal, which may be read whether it runs or not."""
        return SqliteTables(self.data_dir / "haulcast.sqlite3")

    def start(self) -> None:
        """Start it and wait until it is ready for clients."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start it, without waiting for what becomes of it."""
        assert self._process is None, "it runs already"
        self._launched_at_bytes = self._log_path.stat().st_size
        env = environment(HAULCAST_PORT=str(self.port), HAULCAST_DATA_DIR=str(self.data_dir), **self._settings)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(COMMAND, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def await_ready(self) -> None:
        """Wait until it is ready for clients."""
        assert self._process is not None
        give_up_at = time.monotonic() + START_WITHIN_S
        while not (self._has_port(self._launched_at_bytes) and self._is_ready()):
            assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{self.log_text()}"
            assert time.monotonic() < give_up_at, f"not ready within {START_WITHIN_S} s:\n{self.log_text()}"
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_WITHIN_S)
        self._process = None
        log = self._log_path.read_bytes()
        os.truncate(self._log_path, log.rfind(b"\n") + 1)  # a line that it was killed over

    def suspend(self) -> None:
        """SIGSTOP: it stands still, and its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting for what becomes of it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def ended(self) -> None:
        """Wait until it has ended by itself, with exit code 0."""
        assert self._process is not None
        code = self._process.wait(STOP_WITHIN_S)
        self._process = None
        assert code == 0, f"it ended with {code}:\n{self.log_text()}"

    def stop(self) -> None:
        """SIGTERM, and the graceful end that has to follow."""
        self.terminate()
        self.ended()

    def end(self) -> None:
        """Whatever has happened: leave no process behind."""
        if self._process is not None:
            self.kill()

    # --- The log ---

    def log_text(self) -> str:
        """All that it has written."""
        return self._log_path.read_text()

    def log(self) -> list[Mapping[str, Any]]:
        """All lines of the log that are complete."""
        return [json.loads(line) for line in self.log_text().splitlines(keepends=True) if line.endswith("\n")]

    def check_log(self, *allowed: str) -> None:
        """Nothing went wrong since the last look, but for errors whose `event` is in `allowed`."""
        with self._log_path.open("rb") as file:
            file.seek(self._checked_bytes)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        self._checked_bytes += sum(map(len, lines))
        bad = [line.decode() for line in lines if not _fine(line, allowed)]
        assert not bad, "in the server's log:\n" + "".join(bad)

    def _has_port(self, since_bytes: int) -> bool:
        with self._log_path.open("rb") as file:
            file.seek(since_bytes)
            for line in file:
                if line.endswith(b"\n") and b'"listening"' in line:
                    self.port = int(json.loads(line)["url"].rpartition(":")[2])
                    return True
        return False

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/health/ready", timeout=1.0) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False


def _fine(line: bytes, allowed: tuple[str, ...]) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return record.get("level") not in ("error", "critical") or record.get("event") in allowed
