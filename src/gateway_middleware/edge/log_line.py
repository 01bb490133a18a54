"""What the log says about one call: the facts, as JSON, and for people."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway_middleware.core.domain import Outcome

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Attribution
    from gateway_middleware.core.record import CallRecord

_ENCODE = msgspec.json.Encoder().encode
_MAX_PATH = 256
_MAX_NAME = 128
_ALARMING = frozenset(
    {
        Outcome.CONNECT_ERROR,
        Outcome.TIMEOUT,
        Outcome.PROVIDER_AUTH,
        Outcome.SERVER_ERROR,
        Outcome.PROTOCOL_ERROR,
        Outcome.STREAM_ERROR,
        Outcome.GATEWAY_ERROR,
    }
)


class CallLine(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One line of the access log. Times are in milliseconds; what is not known is left out."""

    ts: datetime
    level: str
    event: str
    request_id: str
    method: str
    path: str
    endpoint: str
    status: int | None
    outcome: str | None
    duration_ms: float
    stream: bool
    attempts: int
    bytes_in: int
    bytes_out: int
    tenant: str | None = None
    key_id: str | None = None
    surface: str | None = None
    model: str | None = None
    route: str | None = None
    budget: str | None = None
    provider: str | None = None
    deployment: str | None = None
    upstream_request_id: str | None = None
    upstream_surface: str | None = None
    """What the call was translated to."""
    error_code: str | None = None
    limit: str | None = None
    policy_decision: str | None = None
    """The id of the policy-adapter's decision."""
    labels: dict[str, str] | None = None
    tags: dict[str, str] | None = None
    session: str | None = None
    end_user: str | None = None
    ttft_ms: float | None = None
    upstream_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None


def shown(text: str, limit: int) -> str:
    """Text of a stranger, cut, with everything escaped that a terminal or a line splitter would act on."""
    if text.isprintable():
        return text[:limit]
    return text[:limit].encode("unicode_escape").decode("ascii")[:limit]


def call_line(record: CallRecord) -> CallLine:
    """The facts of a call that has ended."""
    started = record.started
    line = CallLine(
        ts=datetime.fromtimestamp(record.received_at, UTC),
        level="error" if record.outcome in _ALARMING else "info",
        event="call",
        request_id=record.request_id,
        method=_name(record.method) or "",
        path=_path(record.path) if len(record.path) <= _MAX_PATH else shown(record.path, _MAX_PATH),
        endpoint=record.endpoint,
        status=record.status,
        outcome=record.outcome,
        duration_ms=0.0 if record.ended is None else _ms(record.ended - started),
        stream=record.is_stream,
        attempts=len(record.attempts),
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        tenant=_name(record.tenant),
        key_id=_name(record.key_id),
        surface=None if record.surface is None else record.surface.label,
        error_code=record.error_code,
        limit=record.refused_by,
        ttft_ms=None if record.first_byte is None else _ms(record.first_byte - started),
    )
    if record.model is not None:
        line.model = _name(record.model)
        line.route = _name(record.route)
    if record.attribution is not None:
        _add_attribution(line, record.attribution)
    if record.attempts:
        _add_attempts(line, record)
    _add_seldom(line, record)
    return line


def _add_seldom(line: CallLine, record: CallRecord) -> None:
    if record.stepped_down is not None:
        line.budget = "stepped-down"
    if record.decision_id is not None:
        line.policy_decision = record.decision_id
    if record.labels:
        line.labels = dict(record.labels)


def _add_attribution(line: CallLine, attribution: Attribution) -> None:
    line.tags = dict(attribution.tags) or None
    line.session = attribution.session
    line.end_user = _name(attribution.end_user)


def _add_attempts(line: CallLine, record: CallRecord) -> None:
    last, spent = record.attempts[-1], 0.0
    for attempt in record.attempts:
        if attempt.ended is not None:
            spent += attempt.ended - attempt.started
    if last.upstream_request_id is not None:
        line.upstream_request_id = shown(last.upstream_request_id, _MAX_NAME)
    line.provider = last.deployment.provider
    line.deployment = _path(last.deployment.key)
    if last.translation is not None:
        line.upstream_surface = last.translation.surface.label
    line.upstream_ms = _ms(spent)
    usage = record.usage
    if usage is not None:
        line.input_tokens = usage.input_tokens
        line.output_tokens = usage.output_tokens
        line.cached_input_tokens = usage.cached_input_tokens


@lru_cache(maxsize=1024)  # tenants, keys, models and deployments come again and again
def _name(text: str | None) -> str | None:
    return None if text is None else shown(text, _MAX_NAME)


@lru_cache(maxsize=256)
def _path(text: str) -> str:
    return shown(text, _MAX_PATH)


def _ms(seconds: float) -> float:
    """Milliseconds, exact to the microsecond. Three times as fast as `round`."""
    return int(seconds * 1_000_000 + 0.5) / 1000


class Form(Protocol):
    """How lines are written. Each call returns whole lines, with their end."""

    def call(self, line: CallLine) -> bytes:
        """The line of a call."""
        ...

    def event(self, fields: dict[str, Any]) -> bytes:
        """The line of anything else: `ts`, `level`, `event`, and what belongs to it."""
        ...


class JsonForm:
    """One JSON object in each line."""

    def call(self, line: CallLine) -> bytes:
        return _ENCODE(line) + b"\n"

    def event(self, fields: dict[str, Any]) -> bytes:
        return _ENCODE(fields) + b"\n"


class HumanForm:
    """For a terminal: the little that a person looks for, status in colour."""

    _COLOURS = ("36", "32", "36", "33", "31")
    _LEVELS = ("warning", "error")

    def call(self, line: CallLine) -> bytes:
        parts = [self._clock(line.ts), self._status(line.status), line.method, line.path]
        if line.model is not None:
            parts.append(line.model)
        if line.deployment is not None:
            parts.append(f"\N{RIGHTWARDS ARROW} {line.deployment}")
        parts.append(f"{line.duration_ms:.0f} ms")
        if line.input_tokens is not None or line.output_tokens is not None:
            parts.append(f"{line.input_tokens or 0}+{line.output_tokens or 0} tokens")
        if line.error_code is not None:
            parts.append(line.error_code if line.limit is None else f"{line.error_code} ({line.limit})")
        parts += [part for part in (line.tenant, line.request_id) if part]
        return " ".join(parts).encode() + b"\n"

    def event(self, fields: dict[str, Any]) -> bytes:
        text = str(fields.get("message", fields["event"]))
        level = fields["level"]
        coloured = f"\x1b[33m{text}\x1b[0m" if level in self._LEVELS else text
        traceback = fields.get("traceback")
        rest = "" if traceback is None else f"\n{traceback}"
        return f"{self._clock(fields['ts'])} {coloured}{rest}\n".encode()

    @staticmethod
    def _clock(moment: datetime) -> str:
        return moment.astimezone().strftime("%H:%M:%S")

    @classmethod
    def _status(cls, status: int | None) -> str:
        if status is None:
            return "---"
        return f"\x1b[{cls._COLOURS[min(max(status // 100, 1), 5) - 1]}m{status}\x1b[0m"
