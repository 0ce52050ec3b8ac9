"""The baselines on Node, in node/. npm installs their packages into var/bench/node when they are first wanted."""

import asyncio
import json
import shutil
from pathlib import Path

from bench.kit.servers import Missing

SOURCES = Path(__file__).with_name("node")
INSTALLED = Path("var/bench/node")
_MARK = INSTALLED / "installed.json"
"""A copy of package.json as it was when all of it had been installed."""
_INSTALL_WITHIN_S = 150.0


async def packages() -> dict[str, str]:
    """See to it that the packages are there; their versions, and Node's. Raises `Missing`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("Node is not installed: node and npm have to be in PATH (Debian, Ubuntu: apt install nodejs npm)")
    wanted = (SOURCES / "package.json").read_text()
    if not _is_installed(wanted):
        _prepare(wanted)
        await _install(npm)
        _MARK.write_text(wanted)
    process = await asyncio.create_subprocess_exec(node, "--version", stdout=asyncio.subprocess.PIPE)
    version = (await process.communicate())[0].decode().strip()
    found = json.loads(wanted)["dependencies"]
    return {"node": version, **{name: found[name] for name in ("ws", "socket.io", "@socket.io/redis-adapter")}}


def script(name: str) -> list[str]:
    """The command that runs one of them, with `environ`."""
    return ["node", str(SOURCES / name)]


def environ() -> dict[str, str]:
    """What they need in their environment besides `PORT`."""
    return {"NODE_PATH": str((INSTALLED / "node_modules").absolute()), "NODE_ENV": "production"}


def _is_installed(wanted: str) -> bool:
    return _MARK.exists() and _MARK.read_text() == wanted


def _prepare(wanted: str) -> None:
    INSTALLED.mkdir(parents=True, exist_ok=True)
    (INSTALLED / "package.json").write_text(wanted)


async def _install(npm: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(npm, "install", "--no-package-lock", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"),
        cwd=INSTALLED,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_INSTALL_WITHIN_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.terminate()
        await process.wait()
        raise Missing(f"npm has not installed the packages within {_INSTALL_WITHIN_S:g} s") from None
    if process.returncode:
        lines = said.decode(errors="replace").strip().split("\n")
        raise Missing(f"npm could not install the packages: {lines[0]}")
