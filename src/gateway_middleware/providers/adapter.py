"""What the adapters to all kinds of providers have in common."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, ClassVar

import msgspec

from gateway_middleware.core.domain import Dialect
from gateway_middleware.providers.credentials import fixed_headers
from gateway_middleware.providers.targets import TargetCache, parse_base_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Deployment, HeaderList, ModelRequest
    from gateway_middleware.core.errors import UpstreamStatusError
    from gateway_middleware.core.omissions import Omission
    from gateway_middleware.core.provider_api import AwsConfig, ProviderConfig, Proxy
    from gateway_middleware.providers.targets import Headers, PathOf

_EVENT_STREAM = b"text/event-stream"


class Adapter:
    """Keeps what a provider's configuration says, and holds the defaults of a kind.

    A subclass adds `supports`, `prepare` and `reader`. `headers` go with every call: the credential. `addressing` makes
    of the path in `base_url` what gives the request target of a surface and a model.
    """

    __slots__ = ("_max_event_bytes", "_targets", "kind", "name", "origin", "reads_on_disconnect", "secrets", "timeouts")

    dialect: ClassVar[Dialect] = Dialect.OPENAI
    model_prefixes: ClassVar[tuple[str, ...]] = ()
    price_id: ClassVar[str | None] = None
    public_url: ClassVar[str | None] = None
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: ProviderConfig, *, headers: Headers, addressing: Callable[[str], PathOf]) -> None:
        self.name = config.name
        self.kind = config.kind
        self.timeouts = config.timeouts
        self.reads_on_disconnect = config.reads_on_disconnect
        self._max_event_bytes = config.max_event_bytes
        self.secrets: tuple[str, ...] = _secrets(config)
        origin, path = parse_base_url(config.base_url)
        self.origin = msgspec.structs.replace(origin, ca_file=config.ca_file, proxy=config.proxy)
        self._targets = TargetCache(self.origin, addressing(path), headers + fixed_headers(config))

    def is_stream(self, headers: HeaderList) -> bool:
        """Whether the answer is a stream of server-sent events."""
        for name, value in headers:
            if name == b"content-type":
                return value[: len(_EVENT_STREAM)].lower() == _EVENT_STREAM
        return False

    def _concealed(self, request: ModelRequest) -> tuple[str, ...]:
        """What is struck out of the answer to this request."""
        own = request.client_credential
        return self.secrets if own is None else (*self.secrets, own.secret.reveal())

    def omission(self, request: ModelRequest, deployment: Deployment, error: UpstreamStatusError) -> Omission | None:
        """The gateway adds nothing that a provider could refuse."""
        return None


def _secrets(config: ProviderConfig) -> tuple[str, ...]:
    """Values of headers are secrets where they were given as `env:NAME` or `file:/path`."""
    headers = [value.reveal() for _, value in config.headers if value.source.startswith(("env:", "file:"))]
    return (config.api_key.reveal(), *headers, *_proxy_secrets(config.proxy), *_aws_secrets(config.aws))


def _aws_secrets(aws: AwsConfig | None) -> tuple[str, ...]:
    if aws is None:
        return ()
    given = (aws.access_key_id, aws.secret_access_key, aws.session_token)
    return tuple(secret.reveal() for secret in given if secret is not None)


def _proxy_secrets(proxy: Proxy | None) -> tuple[str, ...]:
    """The credentials of a proxy, as they are written and as they are sent."""
    if proxy is None or proxy.credentials is None:
        return ()
    credentials = proxy.credentials.reveal()
    _, _, password = credentials.partition(":")
    return (credentials, password, b64encode(credentials.encode()).decode())
