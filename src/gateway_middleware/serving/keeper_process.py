"""The keeper as a child of the supervisor: started by exec, so that it shares none of the supervisor's memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_middleware.serving.tell import Tell

_STEADY_SECONDS = 10.0
"""A keeper that has lived for so long is replaced at once when it dies."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class NoKeeper:
    """Nobody beside the workers keeps anything."""

    def seconds_left(self, now: float) -> float | None:
        """Never."""
        return None

    def start_if_due(self, now: float) -> None:
        """Nothing is."""

    def ended(self, pid: int, how: str, now: float) -> bool:
        """It was not this one."""
        return False

    def let_go(self) -> None:
        """There is nothing to let go."""

    def stop(self, seconds: float) -> None:
        """There is nothing to stop."""


class KeeperChild:
    """Runs `python -m gateway_middleware.serving.keeper_main` and gives it `config`, one line of JSON.

    It ends when this process closes the pipe, or is gone. All times are monotonic seconds.
    """

    def __init__(self, config: bytes, *, tell: Tell, now: float) -> None:
        self._config = config
        self._tell = tell
        self._due: float | None = now
        self._started = 0.0
        self._failures = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    def seconds_left(self, now: float) -> float | None:
        """Until one is to be started; None where one runs."""
        return None if self._due is None else max(0.0, self._due - now)

    def start_if_due(self, now: float) -> None:
        """Start one where it is time."""
        if self._due is None or now < self._due:
            return
        self._due, self._started = None, now
        command = [sys.executable, "-m", "gateway_middleware.serving.keeper_main"]
        reader, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(command, stdin=reader)  # noqa: S603  # nothing of it comes from outside
        finally:
            os.close(reader)
        with contextlib.suppress(BrokenPipeError):  # it is dead already: the supervisor hears of that
            _write_all(self._pipe, self._config + b"\n")

    def ended(self, pid: int, how: str, now: float) -> bool:
        """A child has ended. Says whether it was this one, and has another one started."""
        process = self._process
        if process is None or process.pid != pid:
            return False
        self._forget()
        is_steady = now - self._started >= _STEADY_SECONDS
        self._failures = 0 if is_steady else self._failures + 1
        pause = 0.0 if is_steady else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10))
        self._due = now + pause
        self._tell("keeper_died", level="error", message=f"Keeper {pid} died {how}: it is replaced", pid=pid)
        return True

    def let_go(self) -> None:
        """In another child of the supervisor: do not hold the keeper's pipe open."""
        if self._process is not None:
            self._forget()

    def stop(self, seconds: float) -> None:
        """Have it take in what is left, and wait for its end, for so long; the next server does what it has not."""
        process = self._process
        self._due = None
        if process is None:
            return
        self._forget()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._tell("keeper_killed", level="error", message=f"Keeper {process.pid} did not end in time: killed")

    def _forget(self) -> None:
        self._process = None
        pipe, self._pipe = self._pipe, -1
        os.close(pipe)


def _write_all(fd: int, content: bytes) -> None:
    while content:
        content = content[os.write(fd, content) :]
