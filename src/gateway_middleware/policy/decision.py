"""What a policy-adapter is asked, and what its answer means: the data API of Open Policy Agent.

    POST <address>   {"input": {"tenant": "acme", "key_id": ..., "action": "call", "surface": "chat", "model": ...}}
    200              {"result": {"allow": true, ...}, "decision_id": "..."}

`result` is true or false, or an object. Without `result` the rule is undefined, which is a no; so is an object without
`allow`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import msgspec

from gateway_middleware.core.domain import LimitOverrides, PolicyTerms

MAX_BYTES = 256 * 1024
"""Of an answer."""
_MAX_TEXT = 256
_MAX_LABELS = 16
_MAX_MODELS = 1000
_MAX_ID = 128
_ZERO = re.compile(r"0+(\.0+)?(?![0-9.])")
_LABEL = re.compile(r"[\x21-\x7e]{1,64}")
_encode = msgspec.json.Encoder().encode


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """May this tenant do this? Everything that a policy is told, so that a decision may be kept for the same question.

    `action` is `call` for model calls, with `surface`, `model` and `route` (where one is configured), and for a stored
    response that is to be cancelled or deleted; `read` for what a tenant may look up, with `endpoint` (`models`,
    `usage`, `response`).
    """

    tenant: str
    key_id: str | None
    action: str
    endpoint: str
    surface: str | None = None
    model: str | None = None
    route: str | None = None

    @property
    def body(self) -> bytes:
        """The request of the data API."""
        return _encode({"input": self})


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `reason` may be shown to the client; `terms` None: none but the tenant's own.

    `is_suspended`: a limit of 0, which is a no.
    """

    is_allowed: bool
    reason: str | None = None
    decision_id: str | None = None
    terms: PolicyTerms | None = None
    is_suspended: bool = False


class _Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    requests: str | int | None = None
    tokens: str | int | None = None
    concurrency: int | None = None
    spend: str | int | None = None

    @property
    def is_zero(self) -> bool:
        """Whether one of them lets nothing through."""
        listed = (self.requests, self.tokens, self.concurrency, self.spend)
        return any(value is not None and _ZERO.match(str(value)) is not None for value in listed)


class _Result(msgspec.Struct, frozen=True):
    allow: bool = False
    reason: str | None = None
    limits: _Limits = _Limits()
    models: tuple[str, ...] | None = None
    labels: dict[str, str] = {}


class _Answer(msgspec.Struct, frozen=True):
    result: bool | _Result | None = None
    decision_id: str | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def read_answer(body: bytes, check_limits: Callable[[LimitOverrides], Any]) -> Decision:
    """The decision in the body of a 200. `check_limits` raises `ValueError` for limits that cannot be read.

    Raises `ValueError` for what is no answer of the data API, or sets terms that cannot be kept: whatever was meant, it
    was not this.
    """
    try:
        answer = _decode(body)
    except RecursionError:
        raise ValueError("the answer is too deep") from None
    result = answer.result if isinstance(answer.result, _Result) else _Result(allow=answer.result is True)
    decision_id = _shown(answer.decision_id, _MAX_ID)
    if result.limits.is_zero:
        reason = _shown(result.reason, _MAX_TEXT)
        return Decision(is_allowed=False, reason=reason, decision_id=decision_id, is_suspended=True)
    return Decision(
        is_allowed=result.allow,
        reason=_shown(result.reason, _MAX_TEXT),
        decision_id=decision_id,
        terms=_terms(result, check_limits) if result.allow else None,
    )


def _terms(result: _Result, check_limits: Callable[[LimitOverrides], Any]) -> PolicyTerms | None:
    limits = _overrides(result.limits)
    check_limits(limits)
    models = ("*",) if result.models is None else tuple(sorted(set(result.models)))
    if len(models) > _MAX_MODELS or any(not 0 < len(name) <= _MAX_TEXT for name in models):
        raise ValueError("`models` is longer than a list of models should be")
    labels = tuple(sorted(result.labels.items()))
    if len(labels) > _MAX_LABELS or not all(_LABEL.fullmatch(text) for pair in labels for text in pair):
        raise ValueError("`labels` are at most 16 pairs of printable ASCII without spaces, 64 characters each")
    terms = PolicyTerms(generation="", limits=limits, models=models, labels=labels)
    if terms == PolicyTerms(generation=""):
        return None
    return msgspec.structs.replace(terms, generation=hashlib.sha256(_encode(terms)).hexdigest()[:16])


def _overrides(limits: _Limits) -> LimitOverrides:
    for value in (limits.requests, limits.tokens, limits.spend):
        if isinstance(value, int):
            raise ValueError("a limit is a text such as 600/minute, or 0")  # noqa: TRY004  of an answer, not a caller
    return msgspec.convert(msgspec.structs.asdict(limits), LimitOverrides)


def _shown(text: str | None, limit: int) -> str | None:
    """Text of a stranger, on one line."""
    if text is None:
        return None
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip() or None
