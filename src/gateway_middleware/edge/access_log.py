"""The log: one line for each call and each provider failure, written in batches, never waited for."""

from __future__ import annotations

import asyncio
import os
import select
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway_middleware.edge.fd_sink import FdSink
from gateway_middleware.edge.log_line import Form, HumanForm, JsonForm, call_line, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.errors import UpstreamError
    from gateway_middleware.core.record import Attempt, CallRecord

_BATCH = 64
_MAX_TEXT = 1024
_MAX_TRACEBACK_LINES = 200
_PROBES = frozenset({"healthz", "readyz", "health", "metrics"})
_FAILED = 400


class AccessLog:
    """Collects lines and hands them to `write` after `delay` seconds, or when there are 64, or at `close`.

    `write` gets whole lines and should not block; what it refuses by raising is dropped and counted. `scrub` removes
    secrets from the texts of events. With `omits_probes` probes and scrapes that were answered well have no line. To
    be used in one event loop at a time, but for `event_now`.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        form: Form | None = None,
        scrub: Callable[[str], str] | None = None,
        wall: Clock = time.time,
        delay: float = 0.05,
        omits_probes: bool = False,
    ) -> None:
        self._write = write
        self._form = form or JsonForm()
        self._scrub = scrub
        self._wall = wall
        self._delay = delay
        self._omits_probes = omits_probes
        self._lines: list[bytes | CallRecord] = []
        self._timer: asyncio.TimerHandle | None = None
        self._refused = 0

    @classmethod
    def to_fd(
        cls,
        fd: int,
        *,
        log_format: str | None = None,
        scrub: Callable[[str], str] | None = None,
        omits_probes: bool = False,
    ) -> AccessLog:
        """A log to a file descriptor. `log_format` is `json` or `human`; None: for people when it is a terminal."""
        return cls(FdSink(fd), form=_form(log_format, fd), scrub=scrub, omits_probes=omits_probes)

    @classmethod
    def to_fd_at_once(
        cls, fd: int, *, log_format: str | None = None, scrub: Callable[[str], str] | None = None
    ) -> AccessLog:
        """A log for a process without an event loop: each line is written when it is logged, without a thread.

        What the reader has no room for is dropped.
        """
        return cls(lambda lines: _write_if_ready(fd, lines), form=_form(log_format, fd), scrub=scrub)

    @property
    def dropped(self) -> int:
        """Lines that were lost because the sink was slower than the gateway, or failed."""
        return self._refused + (self._write.dropped if isinstance(self._write, FdSink) else 0)

    def call(self, record: CallRecord) -> None:
        """Log a call that has ended. The record must not change any more: its line is made with the batch."""
        if self._omits_probes and record.endpoint in _PROBES and (record.status or _FAILED) < _FAILED:
            return
        self._add(record)

    def event(self, name: str, /, *, level: str = "info", **fields: Any) -> None:
        """Log anything else. Fields are text, numbers, booleans or None."""
        self._add(self._event_line(name, level, fields))

    def event_now(self, name: str, /, *, level: str = "info", **fields: Any) -> None:
        """The same from any thread: the line goes out at once. `traceback` may have many lines."""
        try:
            self._write(self._event_line(name, level, fields))
        except Exception:  # noqa: BLE001 - a broken sink must not break whoever logs
            self._refused += 1

    def _event_line(self, name: str, level: str, fields: dict[str, Any]) -> bytes:
        moment = datetime.fromtimestamp(self._wall(), UTC)
        safe = {key: self._safe(key, value) for key, value in fields.items()}
        return self._form.event({"ts": moment, "level": level, "event": name, **safe})

    def provider_error(
        self, record: CallRecord, attempt: Attempt, error: UpstreamError, kind: str | None = None
    ) -> None:
        """Log the failure of one attempt; the message begins with `Provider error`. `kind` is its class."""
        deployment, number = attempt.deployment, len(record.attempts)
        kind = kind or type(error).__name__
        status = "" if attempt.status is None else f", status {attempt.status}"
        self.event(
            "provider_error",
            level="warning",
            message=f"Provider error: {deployment.key}: {kind}{status}, attempt {number}, "
            f"request {record.request_id}: {error.message}",
            provider=deployment.provider,
            deployment=deployment.key,
            status=attempt.status,
            **{"class": kind},
            outcome=attempt.outcome,
            error_code=error.error_code,
            attempt=number,
            paid_by=deployment.payer,
            provider_key=deployment.key_name,
            request_id=record.request_id,
            upstream_request_id=attempt.upstream_request_id,
        )

    def transition(self, key: str, before: str, after: str, *, reason: str, seconds: float | None) -> None:
        """Log that a circuit breaker has changed its state."""
        lasts = "" if seconds is None else f" for {seconds:.1f} s"
        self.event(
            "circuit_breaker",
            level="warning" if after in {"open", "forced_open"} else "info",
            message=f"Circuit breaker {key}: {before} -> {after}{lasts}: {reason}",
            breaker=key,
            before=before,
            after=after,
            reason=reason,
            seconds=seconds,
        )

    def cooldown(
        self,
        deployment: str | None,
        provider: str,
        seconds: float,
        *,
        failure_class: str | None = None,
        is_alarming: bool = False,
    ) -> None:
        """Log that a provider has asked to be left alone. What no time heals (`is_alarming`) is an error."""
        whom = deployment or f"everything of {provider}"
        why = "" if failure_class is None else f" ({failure_class})"
        self.event(
            "provider_cooldown",
            level="error" if is_alarming else "warning",
            message=f"Provider cooling down: {whom} is left alone for {seconds:.1f} s{why}",
            provider=provider,
            deployment=deployment,
            **{"class": failure_class},
            seconds=round(seconds, 3),
        )

    def audit(self, action: str, /, **fields: Any) -> None:
        """Log what an operator did."""
        details = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        self.event("audit", level="warning", message=f"Audit: {action} {details}", action=action, **fields)

    def flush(self) -> None:
        """Hand over what has been collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._write(b"".join([line if isinstance(line, bytes) else self._line(line) for line in lines]))
        except Exception:  # noqa: BLE001 - a broken sink must not break calls
            self._refused += len(lines)

    def _line(self, record: CallRecord) -> bytes:
        return self._form.call(call_line(record))

    def close(self) -> None:
        """Write everything. The log can be used again."""
        self.flush()
        if isinstance(self._write, FdSink):
            self._write.close()

    def _safe(self, key: str, value: object) -> object:
        if not isinstance(value, str):
            return value
        text = self._scrub(value) if self._scrub is not None else value
        if key != "traceback":
            return shown(text, _MAX_TEXT)
        return "\n".join(shown(line, _MAX_TEXT) for line in text.splitlines()[-_MAX_TRACEBACK_LINES:])

    def _add(self, line: bytes | CallRecord) -> None:
        self._lines.append(line)
        if len(self._lines) >= _BATCH:
            self.flush()
        elif len(self._lines) == 1:
            self._schedule()

    def _schedule(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            self._timer = loop.call_later(self._delay, self.flush)


def _form(log_format: str | None, fd: int) -> Form:
    is_human = os.isatty(fd) if log_format is None else log_format == "human"
    return HumanForm() if is_human else JsonForm()


def _write_if_ready(fd: int, lines: bytes) -> None:
    """Raises `BlockingIOError` in place of waiting. A pipe that is ready takes a whole line (PIPE_BUF of them)."""
    while lines:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError
        lines = lines[os.write(fd, lines) :]
