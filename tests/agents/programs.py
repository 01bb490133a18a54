"""Programs of others, as npm has installed them, run as their users would."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

MODULES = Path(os.environ["AGENTS_NODE_MODULES"]).resolve()
_SECONDS = 90


async def run(command: list[str], *, cwd: Path, **environ: str) -> tuple[str, str]:
    """What a command writes to its output and to its errors; it must succeed."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), **environ}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, (out.decode()[-2000:], err.decode()[-2000:])
    return out.decode(), err.decode()


def binary(name: str) -> str:
    """The path of a program."""
    return str(MODULES / ".bin" / name)
