"""The first worker: forked before the supervisor runs, to try out the configuration that it then serves with."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.serving.worker_process import fork_worker

if TYPE_CHECKING:
    from gateway_middleware.serving.tell import Tell

_BEGIN = b"b"


class Findings(msgspec.Struct, frozen=True):
    """What came of the trial: complaints, for which nothing may begin, and warnings."""

    complaints: list[str] = []
    warnings: list[str] = []


_decode = msgspec.json.Decoder(Findings).decode


class FirstWorker:
    """Runs `prepare` in a child at once, and `work` when it is told to begin.

    So what takes long, imports above all, is done once, and the process that made this one stays small. `work` returns
    the exit status, as for the workers of a supervisor. Where there are complaints the child ends.
    """

    def __init__(self, prepare: Callable[[], Findings], work: Callable[[socket.socket], int], *, tell: Tell) -> None:
        self._prepare = prepare
        self._work = work
        pid, control = fork_worker(self._run, tell=tell)
        self.pid = pid
        self._control = control

    def findings(self) -> Findings:
        """What `prepare` has returned. Blocks. Raises `SystemExit` where it failed: it has told why."""
        told = b""
        while not told.endswith(b"\n"):
            part = self._control.recv(65536)
            if not part:
                os.waitpid(self.pid, 0)
                raise SystemExit(1)
            told += part
        return _decode(told)

    def begin(self) -> tuple[int, socket.socket]:
        """Let it work; returns its number and our end of its socket, which are the caller's from now on."""
        try:
            self._control.sendall(_BEGIN)
        except OSError:  # it has died: whoever watches the process hears of it
            pass
        return self.pid, self._control

    def _run(self, control: socket.socket) -> int:
        findings = self._prepare()
        try:
            control.sendall(msgspec.json.encode(findings) + b"\n")
            may_begin = control.recv(1) == _BEGIN
        except OSError:  # the parent has left in the meantime
            return 1
        if findings.complaints or not may_begin:
            return 1
        return self._work(control)
