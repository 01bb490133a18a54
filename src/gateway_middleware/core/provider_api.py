"""What the gateway asks of a provider's adapter: how one is made, what goes upstream, who reads what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Protocol

import msgspec

from gateway_middleware.core.domain import Deployment, Dialect, HeaderList, ModelRequest, Surface, Timeouts, Usage
from gateway_middleware.core.errors import UpstreamStatusError, UpstreamStreamError
from gateway_middleware.core.omissions import Omission
from gateway_middleware.core.secret import Secret
from gateway_middleware.core.sse import MAX_EVENT_BYTES


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP proxy that leads on to a provider by CONNECT. `credentials` are `user:password`."""

    host: str
    port: int
    credentials: Secret | None = None


class Auth(StrEnum):
    """How a credential is sent: `Authorization: Bearer`, `x-api-key`, `api-key`, as AWS's signature, or not at all."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"
    API_KEY = "api-key"
    SIGV4 = "sigv4"
    NONE = "none"


class AwsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """With what requests are signed (AWS Signature Version 4), and for which region and service."""

    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret | None = None
    region: str
    service: str = "bedrock"


class EntraConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens of Microsoft Entra ID are got.

    By `client_secret`; else by the token in `token_file` (workload identity); else as the managed identity of the
    machine, `client_id` naming which.

    `authority` is the address of Entra ID. `identity_endpoint` and `identity_header` are those of App Service and its
    like; without them a managed identity is asked for at the instance metadata service.
    """

    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    token_file: str | None = None
    authority: str = "https://login.microsoftonline.com"
    scope: str = "https://cognitiveservices.azure.com/.default"
    identity_endpoint: str | None = None
    identity_header: Secret | None = None

    @property
    def flow(self) -> str:
        """What it is called in Azure's documentation."""
        if self.client_secret is not None:
            return "client secret"
        return "managed identity" if self.token_file is None else "workload identity"


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A configured provider: the vendor's wire format (`kind`), address and credential.

    `base_url` is what the vendor's SDK takes. `api_version` None is the adapter's own default. `organization` and
    `project` are OpenAI's. `reads_on_disconnect`: a stream whose client has left is read to its end for its usage.
    `stream_options`: it takes the option by which OpenAI's format asks for the usage of a stream. `max_event_bytes`
    bounds one event of a stream. `ca_file` names authorities that its certificate may come from, besides the public
    ones. `proxy` is the only way to it. `is_stateless`: it keeps nothing that a request could name. `auth` None is the
    kind's own form of a credential. `headers` (names in lower case) go with every call.
    """

    name: str
    kind: str
    base_url: str
    api_key: Secret
    api_version: str | None = None
    timeouts: Timeouts = Timeouts()
    organization: str | None = None
    project: str | None = None
    reads_on_disconnect: bool = False
    stream_options: bool = True
    ca_file: str | None = None
    proxy: Proxy | None = None
    is_stateless: bool = False
    auth: Auth | None = None
    headers: tuple[tuple[str, Secret], ...] = ()
    entra: EntraConfig | None = None
    """Calls carry a token of Entra ID in place of a key."""
    aws: AwsConfig | None = None
    """Calls are signed in place of carrying a key."""
    max_event_bytes: int = MAX_EVENT_BYTES
    surfaces: frozenset[Surface] | None = None
    """The surfaces that this provider really has; None: all of its kind."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where connections go, and how: `ca_file` and `proxy` are those of `ProviderConfig`."""

    host: str
    port: int
    is_tls: bool
    ca_file: str | None = None
    proxy: Proxy | None = None

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


class Translation(msgspec.Struct, frozen=True, kw_only=True):
    """How a call was translated: to which surface, what was lost, and who reads the answer back."""

    surface: Surface
    dropped: tuple[str, ...]
    reader: ReaderFactory
    """Gives out the answer in the client's dialect."""
    answer_id: Callable[[str], str] = str
    """The id that the client gets for the provider's id of the answer."""


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to send upstream: the constant part, the headers of this call, the body."""

    target: UpstreamTarget
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    translation: Translation | None = None


class ResponseReader(Protocol):
    """Follows one successful (2xx) answer of a provider while it is relayed.

    Tolerates any chunk boundary. `feed` returns what to relay now; it holds back as little as it can. `finish` is
    called at the clean end of the body and returns the rest, and the terminating event where a stream lacks only that.
    After it, `is_complete` says whether the answer is whole: a stream has said its last word (`finish_reason`,
    `stop_reason`, `response.completed`).
    """

    usage: Usage | None
    raw_usage: bytes | None
    """The usage object as the provider wrote it."""
    is_usage_final: bool
    """Whether the usage is the provider's last word, though the answer may not be complete."""
    service_tier: str | None
    response_id: str | None
    item_ids: tuple[str, ...]
    """Those of a response that has ended."""
    response_model: str | None
    is_complete: bool
    error: UpstreamStreamError | None
    """Set once an error event came inside a stream; the event itself is never relayed."""
    failure: UpstreamStreamError | None
    """Set when a complete answer says itself that it failed (`response.failed`, an `error` in a whole answer): it is
    relayed as it came."""
    rest: Iterable[bytes]
    """What follows the bytes that `feed` or `finish` has returned, to be taken before the next call: pieces of long
    events, of which only all together are whole events."""
    has_content: bool
    """Whether more than lifecycle frames has been relayed: from then on the call is committed to this answer."""

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes from the provider, return bytes for the client. Raises `UpstreamProtocolError` over a cap."""
        ...

    def finish(self) -> bytes:
        """The provider ended its body: return what was held back."""
        ...

    def ending(self) -> bytes:
        """The stream has broken: what makes the event readable of which only a part was relayed; mostly empty."""
        ...


class ReaderFactory(Protocol):
    """Makes the reader of one 2xx answer."""

    def __call__(self, *, is_event_stream: bool) -> ResponseReader: ...


class Provider(Protocol):
    """A vendor's wire format, sans-IO: bytes in, bytes out, never a socket."""

    name: str
    kind: str
    timeouts: Timeouts
    origin: Origin
    reads_on_disconnect: bool
    """Whether a stream is read to its end for its usage when its client has left."""
    secrets: tuple[str, ...]
    """Credential strings that must never leave the gateway, for scrubbing."""

    @property
    def dialect(self) -> Dialect:
        """The dialect of the vendor's own API: its clients prefer this provider for a model without a route."""
        ...

    @property
    def model_prefixes(self) -> tuple[str, ...]:
        """Beginnings of model names that are this vendor's alone: they go to no other kind without a route."""
        ...

    @property
    def otel_name(self) -> str:
        """The vendor in OpenTelemetry's `gen_ai.provider.name`."""
        ...

    @property
    def price_id(self) -> str | None:
        """The vendor's id in the price list of `genai-prices`; None: it is not in it."""
        ...

    def supports(self, surface: Surface) -> bool:
        """Whether the provider speaks this surface natively."""
        ...

    def is_stream(self, headers: HeaderList) -> bool:
        """Whether an answer with these headers is an event stream."""
        ...

    def prepare(self, request: ModelRequest, deployment: Deployment) -> UpstreamRequest:
        """The upstream request: the client's body with only the model replaced (and stream usage asked for)."""
        ...

    def omission(self, request: ModelRequest, deployment: Deployment, error: UpstreamStatusError) -> Omission | None:
        """What to leave out of another try, where the provider refused what the gateway itself had added.

        `prepare` leaves it out of a request that `omits` it, and of later ones once such a try was confirmed.
        """
        ...

    def reader(self, request: ModelRequest, *, is_event_stream: bool) -> ResponseReader:
        """A reader for one 2xx answer to this request."""
        ...


class ProviderKind(Protocol):
    """A kind of provider: the class of its adapter, with what the settings must know of it.

    The class raises `ValueError` for an address, version or credential that cannot be sent; the message never repeats
    the credential.
    """

    @property
    def public_url(self) -> str | None:
        """Where the vendor's public API is; None: every provider of this kind has an address of its own."""
        ...

    @property
    def options(self) -> frozenset[str]:
        """Which of `api_version`, `organization` and `project` it takes."""
        ...

    def __call__(self, config: ProviderConfig, /) -> Provider:
        """The adapter of one configured provider."""
        ...
