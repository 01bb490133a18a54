"""What a call has really used of what it reserved, whatever its end."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Outcome, Usage
from gateway_middleware.core.errors import ClientDisconnectedError, UpstreamError
from gateway_middleware.core.outcomes import outcome_of

if TYPE_CHECKING:
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.limiting.estimate import Estimate


class UseKind(Enum):
    """What is known of the use of a call that has ended.

    REFUND: the call did not happen. NOTHING: it counts as a request and used no tokens. USED: with so many tokens.
    UNKNOWN: it happened, and nobody knows: what was reserved stays.
    """

    REFUND = "refund"
    NOTHING = "nothing"
    USED = "used"
    UNKNOWN = "unknown"


_NO_TOKENS = Usage(input_tokens=0, output_tokens=0)


class ActualUse(msgspec.Struct, frozen=True):
    """With how much a reservation is settled. `usage` is for USED and NOTHING."""

    kind: UseKind
    usage: Usage | None = None


def actual_use(record: CallRecord, estimate: Estimate | None, error: BaseException | None) -> ActualUse:
    """What a call has used that ended with this error (None: it was answered)."""
    known = record.usage
    if error is None:
        is_told = known is not None or record.delivered_tokens is not None
        return ActualUse(UseKind.USED, _filled(record, estimate)) if is_told else ActualUse(UseKind.UNKNOWN)
    has_begun = record.first_byte is not None or known is not None
    if has_begun or (_has_left(error) and record.attempts):
        return ActualUse(UseKind.USED, _filled(record, estimate))
    if isinstance(error, UpstreamError) and outcome_of(error) is Outcome.CLIENT_ERROR:
        return ActualUse(UseKind.NOTHING, _NO_TOKENS)
    return ActualUse(UseKind.REFUND)


def _filled(record: CallRecord, estimate: Estimate | None) -> Usage:
    """What the provider has said, with estimates in place of what it has not."""
    known = record.usage or Usage()
    expected = 0 if estimate is None else estimate.input_tokens
    if record.delivered_tokens is None and known.input_tokens is not None:
        return known
    return msgspec.structs.replace(
        known,
        input_tokens=expected if known.input_tokens is None else known.input_tokens,
        output_tokens=max(known.output_tokens or 0, record.delivered_tokens or 0),
    )


def _has_left(error: BaseException) -> bool:
    """The client is gone, or the gateway is stopping: the provider was at work."""
    return isinstance(error, ClientDisconnectedError) or not isinstance(error, Exception)
