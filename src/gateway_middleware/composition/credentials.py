"""Credentials of providers that are no constant header: tokens, of Entra ID or of a host's object, and callers' own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gateway_middleware.composition.accounts import client_accounts
from gateway_middleware.composition.part import Commit
from gateway_middleware.core.bearer_token import Token, TokenFault
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.fetch import FetchError
from gateway_middleware.core.provider_api import EntraConfig
from gateway_middleware.providers.entra import read_token, token_request
from gateway_middleware.providers.sigv4 import AwsSigner
from gateway_middleware.upstream.passed_credential import PassedCredential
from gateway_middleware.upstream.signed_credential import SignedCredential
from gateway_middleware.upstream.token_credential import TokenCredential

if TYPE_CHECKING:
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.composition.log import Log
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.fetch import Fetch
    from gateway_middleware.settings import ProviderSettings, Settings
    from gateway_middleware.upstream.credential import UpstreamCredential

_SECONDS = 10.0
_MAX_BYTES = 64 * 1024
_HOST_SECONDS = 30.0


class GivesTokens(Protocol):
    """What the credentials of `azure-identity` have, those of `azure.identity.aio` too.

    `get_token(scope)` returns, or is awaited for, an object with `token` and `expires_on` (seconds since the epoch).
    """

    def get_token(self, *scopes: str) -> Any:
        """A token for these scopes."""
        ...


class Credentials:
    """The credentials of accounts that have no key. Providers of one identity and scope share their tokens.

    `given` are the host's own, by provider; they stand in for what is configured. `by_account` is one dictionary for
    as long as the gateway lives. Raises `SettingsError`.
    """

    takes: frozenset[str] = frozenset()

    def __init__(
        self,
        settings: Settings,
        config: LiveConfig,
        clocks: Clocks,
        *,
        fetch: Fetch,
        log: Log,
        given: Mapping[str, GivesTokens],
    ) -> None:
        self._config = config
        self._clocks = clocks
        self._fetch = fetch
        self._log = log.lines
        self._given = given
        self._shared: dict[EntraConfig | str, TokenCredential] = {}
        self.by_account: dict[str, UpstreamCredential] = {}
        self.prepare(settings)()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out no token is asked for any more."""
        try:
            yield
        finally:
            for credential in self._shared.values():
                await credential.aclose()

    def prepare(self, new: Settings) -> Commit:
        """The credentials of other providers; tokens that still serve are kept."""
        _check_given(new, self._given)

        def commit() -> None:
            for provider in new.providers:
                credential = self._credential(provider)
                if credential is None:
                    self.by_account.pop(provider.name, None)
                else:
                    self.by_account[provider.name] = credential
                    self._conceal(credential)
            for account, provider in client_accounts(new).items():
                self.by_account[account] = PassedCredential(provider.auth, self._config.providers[account].dialect)

        return commit

    def _credential(self, provider: ProviderSettings) -> UpstreamCredential | None:
        host = self._given.get(provider.name)
        if host is not None:
            scope = (provider.entra or EntraConfig()).scope
            return self._shared_by(f"{provider.name}/{scope}", provider.name, partial(_from_host, host, scope))
        if provider.aws is not None:
            return SignedCredential(AwsSigner(provider.aws, wall=self._clocks.wall))
        if provider.entra is None:
            return None
        return self._shared_by(
            provider.entra, provider.name, partial(entra_token, provider.entra, self._fetch, self._clocks.wall)
        )

    def _shared_by(
        self, key: EntraConfig | str, name: str, get: Callable[[], Awaitable[Token | TokenFault]]
    ) -> TokenCredential:
        credential = self._shared.get(key)
        if credential is None:
            credential = self._shared[key] = TokenCredential(
                get,
                wall=self._clocks.wall,
                clock=self._clocks.monotonic,
                random=self._clocks.random,
                on_token=lambda token: self._note_token(key, token),
                on_fault=partial(self._note_fault, name),
            )
        return credential

    def _note_token(self, key: EntraConfig | str, token: Token) -> None:
        self._config.scrub.hide(token.value)
        self._conceal(self._shared[key])

    def _conceal(self, credential: UpstreamCredential) -> None:
        """What a provider repeats of a token is struck out of its answer."""
        token = credential.current if isinstance(credential, TokenCredential) else None
        for name, other in self.by_account.items():
            if other is credential and token is not None:
                self._config.providers[name].conceal((token.value,))

    def _note_fault(self, provider: str, fault: TokenFault) -> None:
        message = f"No token for provider {provider}: {fault.reason}"
        self._log.event("credential", level="error", message=message, provider=provider, is_refusal=fault.is_refusal)


async def entra_token(entra: EntraConfig, fetch: Fetch, wall: Clock) -> Token | TokenFault:
    """A new token of this identity. `wall` is seconds since the epoch."""
    try:
        request = token_request(entra, await _assertion(entra))
        answer = await fetch(
            request.method,
            request.url,
            headers=request.headers,
            body=request.body,
            deadline=_SECONDS,
            max_bytes=_MAX_BYTES,
        )
    except (FetchError, OSError, ValueError) as error:
        return TokenFault(str(error) if isinstance(error, FetchError) else f"token file: {type(error).__name__}")
    return read_token(answer.status, answer.body, now=wall())


async def _assertion(entra: EntraConfig) -> str | None:
    """The federated token, read anew each time: Kubernetes replaces it."""
    if entra.client_secret is not None or entra.token_file is None:
        return None
    text = await asyncio.to_thread(Path(entra.token_file).read_text, "ascii")
    return text.strip()


async def _from_host(host: GivesTokens, scope: str) -> Token | TokenFault:
    try:
        async with asyncio.timeout(_HOST_SECONDS):
            if inspect.iscoroutinefunction(host.get_token):
                found = await host.get_token(scope)
            else:
                found = await asyncio.to_thread(host.get_token, scope)
        return Token(str(found.token), float(found.expires_on))
    except Exception as error:  # noqa: BLE001  whatever the host's own code raises, the call says that there is no token
        return TokenFault(type(error).__name__)


def _check_given(settings: Settings, given: Mapping[str, GivesTokens]) -> None:
    providers = {provider.name: provider for provider in settings.providers}
    complaints = [f"credentials: no provider is named {name!r}" for name in given if name not in providers]
    complaints += [
        f"credentials: provider {name} has a key already"
        for name in given
        if name in providers and providers[name].api_key.reveal()
    ]
    if complaints:
        raise SettingsError(complaints)
