"""Lines of Python's `logging` in the format of the gateway's own log: one output, one format."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_middleware.edge.access_log import AccessLog

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"))


class LogEventHandler(logging.Handler):
    """Writes each record as an event `log`: `logger`, `message`, and `traceback` where there is more than one line."""

    def __init__(self, log: AccessLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. What cannot be written is told as `logging` tells it: on the standard error output."""
        try:
            message, _, more = record.getMessage().partition("\n")
            if record.exc_info is not None and record.exc_info[1] is not None:
                more += "".join(traceback.format_exception(record.exc_info[1]))
            extra = {"traceback": more} if more else {}
            self._log.event_now("log", level=_level(record.levelno), logger=record.name, message=message, **extra)
        except Exception:  # noqa: BLE001  # as every handler of `logging` does it
            self.handleError(record)


def _level(number: int) -> str:
    return next((name for least, name in _LEVELS if number >= least), "info")


@contextmanager
def logging_to(log: AccessLog) -> Iterator[None]:
    """Have everything that is logged in this process from warnings up, Python's own warnings too, go to this log.

    Of the gateway's own logger everything from `info` up.
    """
    root, own = logging.getLogger(), logging.getLogger("gateway_middleware")
    before, level = root.handlers[:], own.level
    root.handlers[:] = [LogEventHandler(log)]
    own.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = before
        own.setLevel(level)
