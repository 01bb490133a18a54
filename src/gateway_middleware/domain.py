"""The nouns of the house. Frozen values travel inward, the one mutable `CallRecord` travels outward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol, TypeAlias

import msgspec

from gateway_middleware.errors import UpstreamStreamError

HeaderList: TypeAlias = "list[tuple[bytes, bytes]]"
"""Raw header pairs, names in lower case."""

Clock: TypeAlias = "Callable[[], float]"
"""Seconds, monotonic unless said otherwise."""


class Dialect(StrEnum):
    """The shape of errors, headers and event streams that a client expects."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    AZURE = "azure"


class Surface(StrEnum):
    """A client-facing API. The value is its path below the version prefix."""

    CHAT = "chat/completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    COMPLETIONS = "completions"
    MESSAGES = "messages"
    COUNT_TOKENS = "messages/count_tokens"
    MODERATIONS = "moderations"
    IMAGES_GENERATIONS = "images/generations"
    IMAGES_EDITS = "images/edits"
    IMAGES_VARIATIONS = "images/variations"
    AUDIO_SPEECH = "audio/speech"
    AUDIO_TRANSCRIPTIONS = "audio/transcriptions"
    AUDIO_TRANSLATIONS = "audio/translations"

    @property
    def label(self) -> str:
        """A short name for logs and metrics: `chat`, `messages`, `images_edits`."""
        return _SURFACE_LABELS[self]


_SURFACE_LABELS = {s: "chat" if s is Surface.CHAT else s.value.replace("/", "_") for s in Surface}


class ProviderKind(StrEnum):
    """A vendor's wire format and way of addressing."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    AZURE_OPENAI = "azure_openai"


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of one attempt, in seconds.

    `first_byte`: from the request sent to the head of a stream; `answer`: the same for an answer that is not streamed,
    which a provider begins only when all of it is ready; `idle`: the longest silence in a stream; `total`: the whole
    attempt; `write_stall`: how long a client may leave its answer unread.
    """

    connect: float = 5.0
    first_byte: float = 60.0
    answer: float = 600.0
    idle: float = 60.0
    total: float = 1800.0
    write_stall: float = 60.0


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays. `models` are shell patterns over the names a client may ask for."""

    name: str
    key_id: str | None = None
    models: tuple[str, ...] = ("*",)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One callable upstream: a provider and the provider's own name of a model."""

    provider: str
    model: str
    weight: int = 1
    timeouts: Timeouts | None = None
    key: str = ""
    """`provider/model`, as written in `GATEWAY_ROUTES`: made from the two, never given."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "key", f"{self.provider}/{self.model}")


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A model name and the deployments behind it, best first. `is_configured`: it is written in `GATEWAY_ROUTES`."""

    name: str
    deployments: tuple[Deployment, ...]
    is_configured: bool = True


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A client's request after intake: its top level decoded, every value below still raw bytes.

    `fields` keeps the order of the client; it is empty for a multipart body. `output_cap` is the largest output cap
    that was asked for, in tokens, and `choices` is `n`. `model` is the name as the client asked for it.
    """

    surface: Surface
    dialect: Dialect
    model: str
    route: Route
    body: bytes
    fields: Mapping[str, msgspec.Raw]
    content_type: bytes = b"application/json"
    is_stream: bool = False
    wants_stream_usage: bool = False
    output_cap: int | None = None
    choices: int = 1
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Client headers that may go upstream: `anthropic-version`, `anthropic-beta`, `openai-beta`, `traceparent`."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a call used, in tokens. None means not reported, which is not 0.

    `input_tokens` includes cached and cache-write tokens, `output_tokens` includes reasoning: the inclusive convention
    of OpenTelemetry GenAI, whatever the provider's own convention is.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Outcome(StrEnum):
    """How an attempt, or a call, ended."""

    SUCCESS = "success"
    REFUSED = "refused"
    CLIENT_ERROR = "client_error"
    CLIENT_DISCONNECT = "client_disconnect"
    CONNECT_ERROR = "connect_error"
    TIMEOUT = "timeout"
    THROTTLED = "throttled"
    PROVIDER_AUTH = "provider_auth"
    SERVER_ERROR = "server_error"
    PROTOCOL_ERROR = "protocol_error"
    STREAM_ERROR = "stream_error"
    GATEWAY_ERROR = "gateway_error"


class Attempt(msgspec.Struct, kw_only=True):
    """One upstream try. Times are monotonic seconds."""

    deployment: Deployment
    started: float
    ended: float | None = None
    outcome: Outcome | None = None
    status: int | None = None
    upstream_request_id: str | None = None


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
    upstream_started: float | None = None
    first_byte: float | None = None
    """When the first byte of the answer went to the client."""
    ended: float | None = None
    status: int | None = None
    outcome: Outcome | None = None
    error_code: str | None = None
    usage: Usage | None = None
    response_id: str | None = None
    response_model: str | None = None
    tail: bytes | None = None
    """The last bytes of the answer. Dispatch leaves them here and the outermost layer sends them, so that everything a
    call took is given back before its client can know that it has ended."""

    @property
    def deployment(self) -> Deployment | None:
        """The deployment of the last attempt."""
        return self.attempts[-1].deployment if self.attempts else None


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where connections go."""

    host: str
    port: int
    is_tls: bool

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


class UpstreamTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The constant part of an upstream request: made once for each deployment and surface.

    `path` is the request target with query; `headers` are all headers but `host`, `content-length` and those of a
    single call. `head` is the same as bytes of HTTP/1.1 from the request line on, with `host`, without the closing
    blank line.
    """

    origin: Origin
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    head: bytes

    @classmethod
    def build(
        cls, origin: Origin, path: str, headers: tuple[tuple[bytes, bytes], ...], *, method: str = "POST"
    ) -> UpstreamTarget:
        """Make a target. Header values come from configuration and must hold no control characters."""
        lines = [f"{method} {path} HTTP/1.1".encode("ascii"), b"host: " + origin.authority.encode("ascii")]
        lines += [name + b": " + value for name, value in headers]
        head = b"\r\n".join(lines) + b"\r\n"
        if any(c < 32 for line in lines for c in line):
            raise ValueError("control character in an upstream request head")
        return cls(origin=origin, method=method, path=path, headers=headers, head=head)


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to send upstream: the constant part, the headers of this call, the body."""

    target: UpstreamTarget
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class ResponseReader(Protocol):
    """Follows one successful (2xx) answer of a provider while it is relayed.

    Tolerates any chunk boundary. `feed` returns what to relay now; it holds back as little as it can. `finish` is
    called at the clean end of the body and returns the rest. After it, `is_complete` says whether the answer ended as
    the wire format demands (a stream without its terminator is not complete).
    """

    usage: Usage | None
    response_id: str | None
    response_model: str | None
    is_complete: bool
    error: UpstreamStreamError | None
    """Set once an error event came inside a stream; the event itself is never relayed."""
    has_content: bool
    """Whether more than lifecycle frames has been relayed: from then on the call is committed to this answer."""

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes from the provider, return bytes for the client. Raises `UpstreamProtocolError` over a cap."""
        ...

    def finish(self) -> bytes:
        """The provider ended its body: return what was held back."""
        ...


class Provider(Protocol):
    """A vendor's wire format, sans-IO: bytes in, bytes out, never a socket."""

    name: str
    kind: ProviderKind
    timeouts: Timeouts
    secrets: tuple[str, ...]
    """Credential strings that must never leave the gateway, for scrubbing."""

    def supports(self, surface: Surface) -> bool:
        """Whether the provider speaks this surface natively."""
        ...

    def prepare(self, request: ModelRequest, deployment: Deployment) -> UpstreamRequest:
        """The upstream request: the client's body with only the model replaced (and stream usage asked for)."""
        ...

    def reader(self, request: ModelRequest, *, is_event_stream: bool) -> ResponseReader:
        """A reader for one 2xx answer to this request."""
        ...
