"""What is learnt about one call: the attempts at its providers, and the record that all layers fill."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway_middleware.core.domain import (
    Attribution,
    Deployment,
    Dialect,
    HeaderList,
    Outcome,
    Retirement,
    Route,
    Surface,
    Usage,
)
from gateway_middleware.core.errors import UpstreamError
from gateway_middleware.core.price import Cost
from gateway_middleware.core.provider_api import Translation

if TYPE_CHECKING:
    from gateway_middleware.core.outbox import Entry


class Attempt(msgspec.Struct, kw_only=True):
    """One upstream try. Times are monotonic seconds."""

    deployment: Deployment
    started: float
    ended: float | None = None
    outcome: Outcome | None = None
    status: int | None = None
    upstream_request_id: str | None = None
    first_content: float | None = None
    usage: Usage | None = None
    priced: tuple[Usage, Cost | None] | None = None
    """The usage that was priced last, and what it costs: header, settlement and event tell the same figure."""
    raw_usage: bytes | None = None
    """The provider's own usage object, as JSON."""
    is_complete: bool = False
    """Whether the whole answer has come, so that its usage is final."""
    is_usage_final: bool = False
    """Whether the provider has told its last count, though the rest of the answer did not come."""
    response_id: str | None = None
    item_ids: tuple[str, ...] = ()
    """The provider's ids of the items of a response and of their containers, as far as it may have stored them."""
    response_model: str | None = None
    service_tier: str | None = None
    delivered_tokens: int | None = None
    """Estimated output tokens of what was relayed of an answer whose provider did not come to tell."""
    drained: asyncio.Future[None] | None = None
    """Set while the answer is read on for its usage after the client has left."""
    failure: UpstreamError | None = None
    """What a complete answer said of its own failure. It was relayed as it came."""
    translation: Translation | None = None
    """Set when the provider was asked in another dialect than the client's."""
    event_ending: bytes = b""
    """What makes the event readable within which a stream broke. An error event can follow it."""


class Meter(Protocol):
    """Takes note of the attempts of one call."""

    async def recorded(self, entry: Entry) -> None:
        """Wait until an entry is on a disk that is slow. Raises `UnavailableError`: then the provider is not asked."""
        ...

    def begin(self, attempt: Attempt) -> Entry | None:
        """The provider is about to be asked. Raises `UnavailableError` when it must not be.

        An entry must be on disk before the request leaves; None: it is.
        """
        ...


class CallRecord(msgspec.Struct, kw_only=True):
    """Everything that is learnt about one call, filled by the layers it passes and read on the way out."""

    request_id: str
    started: float
    received_at: float
    """Wall clock, seconds since the epoch."""
    method: str = ""
    path: str = ""
    endpoint: str = "other"
    tenant: str | None = None
    key_id: str | None = None
    surface: Surface | None = None
    dialect: Dialect = Dialect.OPENAI
    model: str | None = None
    route: str | None = None
    is_stream: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    first_byte: float | None = None
    """When the first byte of the answer went to the client."""
    ended: float | None = None
    status: int | None = None
    outcome: Outcome | None = None
    error_code: str | None = None
    refused_by: str | None = None
    """The name of the limit that refused the call."""
    limit_headers: HeaderList = []
    """How the limits of the call stand, for the start of its answer."""
    decision_id: str | None = None
    """Of the policy-adapter's decision about the call."""
    stepped_down: Route | None = None
    """The cheaper route that the call goes on with, because a budget is spent."""
    labels: tuple[tuple[str, str], ...] = ()
    """What the policy-adapter has labelled the call with."""
    attribution: Attribution | None = None
    """What the client says that the call belongs to, if anything."""
    answered_by: Attempt | None = None
    """The attempt whose answer is that of the call: the last one, or the one that won a hedged race."""
    retirement: Retirement | None = None
    """That the route of the call is to end."""
    trace_id: str | None = None
    """Of the sampled trace that the call belongs to, in hex."""

    @property
    def deployment(self) -> Deployment | None:
        """The deployment of the last attempt."""
        return self.attempts[-1].deployment if self.attempts else None

    @property
    def usage(self) -> Usage | None:
        """What the answer used, as far as its provider has said."""
        return None if self.answered_by is None else self.answered_by.usage

    @property
    def delivered_tokens(self) -> int | None:
        """Estimated output tokens of what was relayed of an answer whose provider did not come to tell."""
        return None if self.answered_by is None else self.answered_by.delivered_tokens

    @property
    def upstream_request_id(self) -> str | None:
        """The provider's own id of its answer, or of its last failure: what its support asks for."""
        return self.attempts[-1].upstream_request_id if self.attempts else None

    @property
    def event_ending(self) -> bytes:
        """What makes the event readable within which the stream of the answer broke."""
        return b"" if self.answered_by is None else self.answered_by.event_ending

    @property
    def response_id(self) -> str | None:
        """The provider's id of the answer."""
        return None if self.answered_by is None else self.answered_by.response_id

    @property
    def response_model(self) -> str | None:
        """The model that the provider names in its answer."""
        return None if self.answered_by is None else self.answered_by.response_model
