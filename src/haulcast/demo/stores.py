"""Postgres and Redis of one's own: real servers on free loopback ports, for the cluster demo and for tests.

1. They are the binaries that the machine has, found in PATH or where Debian keeps Postgres'; `scripts/stores.sh`
   installs them. What they write goes into the directory that they are given, and next to it into a log.
2. They listen on 127.0.0.1 alone, have no Unix socket, and ask for a password that was drawn for this directory: other
   users of the machine stay outside.
3. Postgres refuses to run as root, so root runs it as somebody else, who has to be able to reach the directory.
4. A second `start` takes the same port. Postgres then has its data, also after `kill`; Redis is empty, by its settings.
5. Both are leashed. Postgres' postmaster alone is enough: on SIGQUIT it ends its children at once, and they end by
   themselves when it is gone. What ends the leash is the end of a thread, so all are started from one that never ends.
6. Everything here blocks.
"""

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from haulcast.leash import leashed

OLDEST_POSTGRES = 14
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
INSTALL = "scripts/stores.sh in haulcast's repository installs it (as root; Debian, Ubuntu)"
START_WITHIN_S = 30.0
STOP_WITHIN_S = 20.0
LOG_LINES_SHOWN = 15
_POLL_S = 0.01
_USER = "haulcast"

_starter = ThreadPoolExecutor(1, thread_name_prefix="stores")


class StoreFailed(Exception):
    """A store is not installed, or has not done what it was told. The message says what to do, or where its log is."""


class _Store:
    """What both have in common: a process, its port, its log."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.port = 0
        """Where it listens, the same from the first start on."""
        self.log_path = directory / f"{name}.log"
        self._directory = directory
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, and not ended, from here."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it takes connections. Raises `StoreFailed`."""
        assert self._process is None, f"{self.name} runs already"
        self.port = self.port or free_port()
        command = self._prepare()
        process = self._process = self._spawn(command)
        give_up_at = time.monotonic() + START_WITHIN_S
        while not self._ready(process.pid):
            if process.poll() is not None:
                self._process = None
                raise self._failed(f"{self.name} has not started (exit code {process.returncode})")
            if time.monotonic() >= give_up_at:
                self.kill()
                raise self._failed(f"{self.name} was not ready within {START_WITHIN_S:g} s")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it as an operator would; whoever is connected is disconnected. Nothing if it does not run."""
        if self._process is None:
            return
        self._process.send_signal(self._stop_signal())
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failed(f"{self.name} has not stopped within {STOP_WITHIN_S:g} s and was killed") from None
        self._process = None

    def kill(self) -> None:
        """SIGKILL: as if the power had failed, but for what the operating system has yet to write. Nothing if it does
        not run."""
        if self._process is None:
            return
        family = [self._process.pid]
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGSTOP)  # from now on it has no more children
            family += _children(self._process.pid)
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        while any(_runs(pid) for pid in family):
            time.sleep(_POLL_S)

    def _prepare(self) -> Sequence[str]:
        """Make what it needs in the directory; the command that runs it."""
        raise NotImplementedError

    def _ready(self, pid: int) -> bool:
        raise NotImplementedError

    def _stop_signal(self) -> signal.Signals:
        raise NotImplementedError

    def _spawn(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        with self.log_path.open("ab") as log:
            return _starter.submit(
                subprocess.Popen,
                command,
                cwd=self._directory,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for whoever uses the store
            ).result()

    def _failed(self, what: str) -> StoreFailed:
        lines = self.log_path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return StoreFailed("\n".join([f"{what}; its log is {self.log_path}", *lines]))


class PrivatePostgres(_Store):
    """A Postgres whose data is in `directory`. With `fsync=False` it is faster, and keeps its promises only as long as
    the machine does not crash; being killed it survives either way."""

    def __init__(self, directory: Path, *, fsync: bool = True) -> None:
        super().__init__("postgres", directory)
        self._fsync = fsync
        self._data = directory / "postgres"

    @property
    def url(self) -> str:
        """Its address, as a superuser."""
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self.port}/postgres"

    def _prepare(self) -> Sequence[str]:
        binaries = _postgres_binaries()
        user = _postgres_user()
        if user is not None:
            _open_way(self._directory, user)
        if not self._data.exists():
            self._initialise(binaries, user)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
            "track_commit_timestamp": "on",  # for whoever asks afterwards what was written first
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return leashed([str(binaries / "postgres"), "-D", str(self._data), *options], signal.SIGQUIT, user)

    def _initialise(self, binaries: Path, user: str | None) -> None:
        """Make an empty database. Not synced to disk: there is nothing in it that could be lost."""
        self._data.mkdir(mode=0o700)
        password_file = self._directory / "postgres.password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if user is not None:
            for path in (self._data, password_file):
                shutil.chown(path, user)
        options = ["--username", _USER, "--pwfile", str(password_file), "--auth", "scram-sha-256"]
        options += ["--encoding", "UTF8", "--locale", "C", "--no-sync"]
        process = self._spawn(
            leashed([str(binaries / "initdb"), "-D", str(self._data), *options], signal.SIGKILL, user)
        )
        code = process.wait()
        password_file.unlink()
        if code:
            shutil.rmtree(self._data)
            raise self._failed(f"initdb has ended with {code}")

    def _ready(self, pid: int) -> bool:
        """What it says in its `postmaster.pid`: its own id in line 1, its state in line 8."""
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _stop_signal(self) -> signal.Signals:
        return signal.SIGINT  # "fast": SIGTERM would wait for the clients to leave


class PrivateRedis(_Store):
    """A Redis that keeps nothing."""

    def __init__(self, directory: Path) -> None:
        super().__init__("redis", directory)

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def _prepare(self) -> Sequence[str]:
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            raise StoreFailed(f"Redis' server is not installed (redis-server is not in PATH): {INSTALL}")
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self._password,
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
        }
        path = self._directory / "redis.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return leashed([binary, str(path)], signal.SIGKILL)

    def _ready(self, pid: int) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
            connection.sendall(f"AUTH {self._password}\r\nPING\r\nQUIT\r\n".encode())
            answer = b""
            while part := connection.recv(1024):
                answer += part
            return b"+PONG" in answer
        return False

    def _stop_signal(self) -> signal.Signals:
        return signal.SIGTERM


# --- Postgres' binaries and its user ----------------------------------------------------------------------------------


def _postgres_binaries() -> Path:
    """The directory with `postgres` and `initdb`: of PATH, or else the newest of Debian's."""
    in_path = shutil.which("postgres")
    debian = sorted(DEBIAN_POSTGRES.glob("[0-9]*/bin"), key=lambda path: _number(path.parent.name), reverse=True)
    candidates = [Path(in_path).resolve().parent, *debian] if in_path else debian
    for directory in candidates:
        if (directory / "initdb").exists() and _version(directory / "postgres") >= OLDEST_POSTGRES:
            return directory
    raise StoreFailed(
        f"PostgreSQL {OLDEST_POSTGRES} or newer is not installed (postgres and initdb are neither in PATH nor in "
        f"{DEBIAN_POSTGRES}/*/bin): {INSTALL}"
    )


def _version(binary: Path) -> int:
    """The major version of a `postgres`; 0 if it does not run."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return _number(said)


def _number(text: str) -> int:
    """The first whole number in a text; 0 without any."""
    found = re.search(r"\d+", text)
    return int(found[0]) if found else 0


def _postgres_user() -> str | None:
    """As whom to run Postgres; None: as whoever this is."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise StoreFailed("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")


def _open_way(directory: Path, user: str) -> None:
    """Let `user` pass through to `directory`, but only where temporary files are: pytest keeps its own closed."""
    temporary = Path(tempfile.gettempdir()).resolve()
    for path in (directory.resolve(), *directory.resolve().parents):
        mode = path.stat().st_mode
        if mode & 0o001:
            continue
        if temporary not in path.parents:
            raise StoreFailed(f"{user}, as whom root runs PostgreSQL, cannot reach {directory}: {path} is closed to it")
        path.chmod(mode & 0o7777 | 0o001)


# --- Processes and ports ----------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port of this machine that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(parent: int) -> Iterator[int]:
    """The children of a process, where the system shows them."""
    for path in Path("/proc").glob("[0-9]*"):
        state = _stat(int(path.name))
        if state is not None and state[1] == parent:
            yield int(path.name)


def _runs(pid: int) -> bool:
    """Whether a process does anything any more: one that nobody has asked for its exit code does not."""
    state = _stat(pid)
    return state is not None and state[0] != "Z"


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, or None without such a process (proc(5), after the name in parentheses)."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return state, int(parent)
