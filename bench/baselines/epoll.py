"""The C sender, compiled when it is wanted: see epoll.c."""

import asyncio
import shutil
from pathlib import Path

from bench.kit.servers import BaselineFailed, Missing

SOURCE = Path(__file__).with_name("epoll.c")


async def compiled(directory: Path) -> tuple[str, str]:
    """The program, in `directory`, and the compiler's name and version. Raises `Missing`, `BaselineFailed`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing("there is no C compiler: cc is not in PATH (Debian, Ubuntu: apt install gcc libc6-dev)")
    program = str(directory / "epoll")
    if said := await _output(compiler, "-O2", "-o", program, str(SOURCE)):
        raise BaselineFailed(f"{SOURCE.name} was not compiled without a word: {said}")
    return program, (await _output(compiler, "--version")).split("\n")[0]


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    return (await process.communicate())[0].decode(errors="replace").strip()
