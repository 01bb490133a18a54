"""Real processes for drills: started with a clean environment, their lines collected, ended at the end of the drill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

_FOREIGN = ("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_")
_MAX_LINE = 1 << 20
_START_SECONDS = 20.0
_END_SECONDS = 15.0


class UnplayableError(Exception):
    """This machine lacks what a drill needs; the text says what."""


class Program:
    """A process that runs, and its output. `lines` is what it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> None:
        self._process = process
        self._output = output
        self.lines: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while line := await self._output.readline():
            self.lines.append(line.decode(errors="replace").rstrip())

    async def line(self, text: str) -> str:
        """The first line that contains a text. Raises `UnplayableError` where none comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while not self._reader.done():
                    for line in self.lines:
                        if text in line:
                            return line
                    await asyncio.sleep(0.02)
        raise UnplayableError(f"a process did not say {text!r}, but: {self.lines[-3:]}")

    async def wait(self) -> int:
        """Until it ends by itself; its exit status."""
        status = await self._process.wait()
        await self._reader
        return status

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit status. One that does not end is killed."""
        self.send(number)
        self.send(signal.SIGCONT)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
        status = await self._process.wait()
        await self._reader
        return status


async def start(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Program:
    """Start a program; settings of the caller's own gateway are not handed on."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=inherited | dict(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=_MAX_LINE,
    )
    if process.stdout is None:
        raise UnplayableError("a process was started without its output")
    return Program(process, process.stdout)


async def start_module(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Program:
    """Start `python -m` of one of our modules."""
    return await start([sys.executable, "-m", module, *arguments], environment)


@contextlib.asynccontextmanager
async def running(program: Program) -> AsyncIterator[Program]:
    """Ends with the block."""
    try:
        yield program
    finally:
        await program.stop()


def free_port() -> int:
    """A port below those that the kernel gives out, so that nobody else gets it meanwhile."""
    while True:
        port = random.randrange(12_000, 32_000)  # noqa: S311 - not for secrets
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition came true in time."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(0.02)
    return True
