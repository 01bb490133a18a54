"""Forks a worker process, which works and never comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from gateway_middleware.serving.tell import Tell

_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SOFTWARE_FAULT = 70


def fork_worker(
    work: Callable[[socket.socket], int], *, tell: Tell, let_go: Callable[[], None] = lambda: None
) -> tuple[int, socket.socket]:
    """Have `work` done in a child, given its end of a socket; returns the child's number and the other end.

    What `work` returns is its exit status. Before it, `let_go` closes in the child what belongs to others. The child
    ignores signals that ask to leave, and ends with this process.
    """
    ours, theirs = socket.socketpair()
    _flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _become_worker(work, theirs, parent, tell=tell, let_go=let_go)
    theirs.close()
    return pid, ours


def _become_worker(
    work: Callable[[socket.socket], int], control: socket.socket, parent: int, *, tell: Tell, let_go: Callable[[], None]
) -> NoReturn:
    status = _SOFTWARE_FAULT
    try:
        signal.set_wakeup_fd(-1)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        let_go()
        _die_with(parent)
        status = work(control)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001  # nothing of the child may run the parent's code
        message, trace = f"Worker {os.getpid()} failed: {error!r}", traceback.format_exc()
        tell("worker_fault", level="error", message=message, traceback=trace)
    finally:
        _flush()
        os._exit(status)


def _flush() -> None:
    """What is buffered would be written by parent and child. A stream may have lost its reader, or be None: closed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, where it can (Linux: PR_SET_PDEATHSIG, prctl(2))."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(_SOFTWARE_FAULT)
