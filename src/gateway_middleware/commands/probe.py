"""`check --probe`: the way to each provider, step by step, with the time of each, and one call that costs nothing."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

import aiohappyeyeballs
import msgspec

from gateway_middleware.composition.credentials import entra_token
from gateway_middleware.composition.side_calls import SideCalls
from gateway_middleware.core.bearer_token import TokenFault
from gateway_middleware.core.errors import SettingsError, UpstreamConnectError
from gateway_middleware.providers import KINDS
from gateway_middleware.providers.model_list import models_target
from gateway_middleware.upstream.connecting import ATTEMPT_DELAY, addresses_of, default_context
from gateway_middleware.upstream.proxy import tunnel

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType

    from gateway_middleware.core.fetch import Fetch
    from gateway_middleware.core.provider_api import EntraConfig, Origin, Provider
    from gateway_middleware.settings import ProviderSettings, Settings

_SECONDS = 10.0
"""For each step."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")


_T = TypeVar("_T")


class Step(msgspec.Struct, frozen=True):
    """One step of the way to a provider. `name` is `dns`, `tcp`, `proxy`, `tls`, `token` or `api`."""

    name: str
    seconds: float
    detail: str
    is_good: bool = True

    def line(self, provider: str) -> str:
        """As it is printed."""
        verdict = "" if self.is_good else "FAILED  "
        return f"{provider}  {self.name} {self.seconds * 1000:.1f} ms  {verdict}{self.detail}"


async def probe_all(settings: Settings, only: str | None) -> bool:
    """Print every step to the providers, or to one of them; whether all went well. Raises `SettingsError`."""
    chosen = [provider for provider in settings.providers if only in {None, "", provider.name}]
    if not chosen:
        names = ", ".join(provider.name for provider in settings.providers)
        raise SettingsError([f"--probe {only}: no such provider; expected one of {names}"])
    is_good = True
    calls = SideCalls(settings, None)
    async with calls.lifespan():
        for provider in chosen:
            async for step in probe(provider, calls.fetch):
                print(step.line(provider.name), flush=True)
                is_good = is_good and step.is_good
    return is_good


async def probe(provider: ProviderSettings, fetch: Fetch) -> AsyncIterator[Step]:
    """The steps to one provider, to the first that fails. `fetch` asks for its token, where it has no key."""
    began, name = time.monotonic(), "dns"
    try:
        async for name, detail in _steps(provider, fetch):
            if detail is not None:
                yield Step(
                    name, time.monotonic() - began, detail, is_good=name != "api" or detail.startswith("status 2")
                )
                began = time.monotonic()
    except (OSError, UpstreamConnectError, TimeoutError, asyncio.IncompleteReadError) as error:
        yield Step(name, time.monotonic() - began, _reason(error), is_good=False)


async def _steps(provider: ProviderSettings, fetch: Fetch) -> AsyncIterator[tuple[str, str | None]]:
    """Each step twice: before it is taken, without words, and with what came of it."""
    adapter = KINDS[provider.kind](provider)
    origin = adapter.origin
    peer = origin.proxy or origin
    yield "dns", None
    found = await _in_time(addresses_of(peer.host, peer.port))
    yield "dns", f"{peer.host}: {', '.join(dict.fromkeys(str(address[4][0]) for address in found))}"
    yield "tcp", None
    sock = await _in_time(_connected(found))
    yield "tcp", f"port {peer.port}"
    if origin.proxy is not None:
        yield "proxy", None
        await _in_time(_or_closed(sock, tunnel(sock, origin, origin.proxy)))
        yield "proxy", f"leads on to {origin.host}:{origin.port}"
    yield "tls" if origin.is_tls else "api", None
    reader, writer = await _in_time(_or_closed(sock, _stream(sock, origin)))
    try:
        if origin.is_tls:
            yield "tls", _certificate(writer)
        credential = b""
        if provider.entra is not None:
            yield "token", None
            credential = await _token(provider.entra, fetch)
            yield "token", f"Entra ID by {provider.entra.flow}"
        yield "api", None
        yield "api", await _in_time(_call(adapter, credential, reader, writer))
    finally:
        writer.close()


async def _in_time(work: Awaitable[_T]) -> _T:
    async with asyncio.timeout(_SECONDS):
        return await work


async def _or_closed(sock: socket.socket, work: Awaitable[_T]) -> _T:
    try:
        return await work
    except BaseException:
        sock.close()
        raise


async def _connected(found: Sequence[AddrInfoType]) -> socket.socket:
    return await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=ATTEMPT_DELAY)


async def _stream(sock: socket.socket, origin: Origin) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = await asyncio.to_thread(default_context, origin.ca_file) if origin.is_tls else None
    return await asyncio.open_connection(sock=sock, ssl=context, server_hostname=origin.host if context else None)


def _certificate(writer: asyncio.StreamWriter) -> str:
    channel = writer.get_extra_info("ssl_object")
    until = dict(channel.getpeercert() or {}).get("notAfter", "unknown")
    return f"{channel.version()}, certificate until {until}"


async def _token(entra: EntraConfig, fetch: Fetch) -> bytes:
    """The line of the head that carries it."""
    token = await entra_token(entra, fetch, time.time)
    if isinstance(token, TokenFault):
        raise UpstreamConnectError(f"the identity service gives no token: {token.reason}")
    return f"authorization: Bearer {token.value}\r\n".encode()


async def _call(
    adapter: Provider, credential: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str:
    target = models_target(adapter)
    if target is None:
        raise UpstreamConnectError("its kind has no list of models")
    writer.write(target.head + credential + b"connection: close\r\n\r\n")
    await writer.drain()
    status = _STATUS_LINE.match(await reader.readline())
    if status is None:
        raise UpstreamConnectError("the answer is not HTTP")
    return f"status {int(status[1])}, GET {target.path}" + _advice(int(status[1]))


def _advice(status: int) -> str:
    if status in {401, 403}:
        return ": the provider refuses the gateway's credential"
    return ": the address may be wrong, see base_url" if status == 404 else ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return f"no answer within {_SECONDS:g} s"
    number = (
        error.errno if isinstance(error, OSError) and not isinstance(error, (socket.gaierror, ssl.SSLError)) else None
    )
    return os.strerror(number) if number else getattr(error, "strerror", None) or str(error) or type(error).__name__
