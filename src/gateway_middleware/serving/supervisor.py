"""The parent of the worker processes: starts them, replaces dead ones, hands on what signals ask for."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gateway_middleware.serving.crew import Crew, Ending, Slot
from gateway_middleware.serving.keeper_process import KeeperChild, NoKeeper
from gateway_middleware.serving.rolling_reload import RollingReload
from gateway_middleware.serving.worker_process import fork_worker

if TYPE_CHECKING:
    from types import FrameType

    from gateway_middleware.serving.first_worker import FirstWorker
    from gateway_middleware.serving.tell import Tell

DRAIN, HURRY, RELOAD = b"d", b"h", b"r"
"""What a supervisor asks of a worker: leave; leave at once; read the configuration again."""
READY, TAKEN, REFUSED = b"R", b"t", b"x"
"""What a worker says: it takes calls; it has taken the configuration, or not."""
WATCHED = b"w"
"""Somebody has asked for readiness: a worker says so, and hears it before it is to leave."""
_LEAVING = (signal.SIGTERM, signal.SIGINT)
_WATCHED = (*_LEAVING, signal.SIGHUP, signal.SIGCHLD)
_LAST_SECONDS = 1.6
"""What a worker may need after its waiting, for last words and the journal. It is killed after that."""
_KEEPER_SECONDS = 0.3
"""What the keeper has at least after that, for what the workers have left."""

_NO_KEEPER = NoKeeper()

Work = Callable[[socket.socket, bool], int]
"""What a worker does, given its end of the control socket and whether it replaces another; returns its exit status."""


class Supervisor:
    """Runs `work` in `size` forked processes until SIGTERM or SIGINT.

    It must be made and run in the main thread of a process without other threads. A first SIGTERM or SIGINT lets the
    workers end their calls, a second one does not; SIGHUP has them read the configuration again, one after the other.
    Workers may wait `leave_seconds` for their calls, and are killed where they are not gone two seconds later: nothing
    that has hung holds the end. A supervisor that is killed takes its workers with it. The `keeper` runs beside the
    workers, and ends after them. A `first` worker may be there already, and waits for its beginning.
    """

    def __init__(
        self,
        work: Work,
        *,
        size: int,
        tell: Tell,
        leave_seconds: float,
        keeper: KeeperChild | NoKeeper = _NO_KEEPER,
        first: FirstWorker | None = None,
    ) -> None:
        self._work = work
        self._first = first
        self._keeper = keeper
        self._tell = tell
        self._leave_seconds = leave_seconds
        self._crew = Crew(size, now=time.monotonic())
        self._controls: dict[int, socket.socket] = {}
        self._reload = RollingReload()
        self._signals: list[int] = []
        self._leaves_until: float | None = None
        self._ends_by = 0.0  # of the keeper
        self._status = 0
        self._is_watched = False

    def run(self) -> int:
        """Returns the exit status: 0 after a requested end, 1 when workers cannot start."""
        with _signals_to(self._signals) as wakeup:
            while not (self._crew.is_leaving and not self._crew.pids):
                for slot in self._crew.due(time.monotonic()):
                    self._start(slot)
                if self._crew.has_served:  # until then it would only compete with the workers for the processor
                    self._keeper.start_if_due(time.monotonic())
                self._ask_for_reload()
                self._wait(wakeup)
                self._handle_signals(wakeup)
            self._keeper.stop(max(_KEEPER_SECONDS, self._ends_by - time.monotonic()))
        return self._status

    def _wait(self, wakeup: socket.socket) -> None:
        now = time.monotonic()
        pauses = [self._crew.next_due(now), self._reload.seconds_left(now)]
        if self._crew.has_served:
            pauses.append(self._keeper.seconds_left(now))
        if self._leaves_until is not None:
            pauses.append(max(self._leaves_until - now, 0.0))
        known = [pause for pause in pauses if pause is not None]
        readable, _, _ = select.select([wakeup, *self._controls.values()], [], [], min(known) if known else None)
        for pid, control in list(self._controls.items()):
            if control in readable:
                self._hear(pid, control)
        if self._leaves_until is not None and time.monotonic() >= self._leaves_until:
            self._kill()

    def _hear(self, pid: int, control: socket.socket) -> None:
        try:
            words = control.recv(64)
        except ConnectionError:  # it died with a word of ours unread
            words = b""
        if READY in words:
            was_ready = self._crew.is_ready
            self._crew.ready(pid)
            if self._crew.is_ready and not was_ready:
                self._tell("serving", message=f"{len(self._crew.slots)} worker(s) take calls")
        if WATCHED in words:
            self._is_watched = True
        if TAKEN in words or REFUSED in words:
            self._reload_answered(pid, is_taken=REFUSED not in words)
        if not words:
            self._controls.pop(pid).close()

    def _handle_signals(self, wakeup: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            wakeup.recv(4096)
        while self._signals:  # taken one by one: another one may come between any two steps of this
            number = self._signals.pop(0)
            if number in _LEAVING:
                self._leave(signal.Signals(number).name)
            elif number == signal.SIGHUP:
                self._reload.begin(self._crew.pids)
        self._reap()

    def _leave(self, reason: str) -> None:
        is_second = self._crew.is_leaving
        self._crew.leave()
        self._reload.stop()
        self._leave_within(_LAST_SECONDS + (0.0 if is_second else self._leave_seconds))
        self._ask_all(HURRY if is_second else (WATCHED if self._is_watched else b"") + DRAIN)
        what = "the rest is cut off" if is_second else "calls under way may end"
        self._tell("stopping", message=f"{reason}: the gateway leaves, {what}", signal=reason)

    def _leave_within(self, seconds: float) -> None:
        """A further signal never makes the end later."""
        until = time.monotonic() + seconds
        self._ends_by = min(self._ends_by or math.inf, until + _KEEPER_SECONDS)
        self._leaves_until = until if self._leaves_until is None else min(until, self._leaves_until)

    def _ask_all(self, word: bytes) -> None:
        for control in self._controls.values():
            with contextlib.suppress(OSError):
                control.sendall(word)

    def _ask_for_reload(self) -> None:
        """One worker after the other. Signals and deaths are seen to while one takes its time."""
        now = time.monotonic()
        if (silent := self._reload.silent(now)) is not None:
            self._reload_answered(silent, is_taken=False)
        if (worker := self._reload.next(now)) is not None and worker in self._controls:
            with contextlib.suppress(OSError):
                self._controls[worker].sendall(RELOAD)

    def _reload_answered(self, pid: int, *, is_taken: bool) -> None:
        self._reload.answered(pid, is_taken=is_taken)
        if not is_taken:
            self._tell("reload_refused", level="error", message=f"Worker {pid} did not take the configuration")

    def _kill(self) -> None:
        for pid in self._crew.pids:
            self._tell("worker_killed", level="error", message=f"Worker {pid} did not leave in time: killed")
            os.kill(pid, signal.SIGKILL)
        self._leaves_until = None

    def _reap(self) -> None:
        """Collect every child that has ended: as process 1 of a container also those of others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, code: int) -> None:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        if self._keeper.ended(pid, how, time.monotonic()):
            return
        ending = self._crew.ended(pid, time.monotonic())
        self._reload.gone(pid)
        control = self._controls.pop(pid, None)
        if control is not None:
            control.close()
        if ending is Ending.REPLACED:
            self._tell("worker_died", level="error", message=f"Worker {pid} died {how}: it is replaced", pid=pid)
        elif ending is Ending.FATAL:
            self._status = 1
            self._tell("worker_failed", level="error", message=f"Worker {pid} could not start: it ended {how}", pid=pid)
            self._crew.leave()
            self._ask_all(HURRY)
            self._leave_within(_LAST_SECONDS)

    def _start(self, slot: Slot) -> None:
        first, self._first = self._first, None
        pid, control = first.begin() if first is not None else self._fork(is_replacement=slot.is_replacement)
        self._controls[pid] = control
        self._crew.started(slot, pid, time.monotonic())

    def _fork(self, *, is_replacement: bool) -> tuple[int, socket.socket]:
        return fork_worker(lambda control: self._work(control, is_replacement), tell=self._tell, let_go=self._let_go)

    def _let_go(self) -> None:
        """In a child: what belongs to the supervisor and its other children."""
        for other in self._controls.values():
            other.close()
        self._keeper.let_go()


@contextlib.contextmanager
def _signals_to(arrived: list[int]) -> Iterator[socket.socket]:
    """Collects signals; the socket becomes readable when one comes. Afterwards they are ignored: the process ends."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def note(number: int, _: FrameType | None) -> None:
        arrived.append(number)

    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in _WATCHED:
        signal.signal(number, note)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup)
        for number in _WATCHED:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
        reader.close()
        writer.close()
