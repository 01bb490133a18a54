"""How a connection to a provider is opened: the first address that answers, a proxy where one is named, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

import aiohappyeyeballs
import certifi

from gateway_middleware.core.errors import GatewayShortageError, UpstreamConnectError
from gateway_middleware.upstream.proxy import tunnel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohappyeyeballs import AddrInfoType

    from gateway_middleware.core.provider_api import Origin

    Resolver = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]
    Protocol = TypeVar("Protocol", bound=asyncio.BufferedProtocol)

ATTEMPT_DELAY = 0.25
"""After so many seconds without an answer the next address is tried as well (RFC 8305, section 8)."""
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_RETRY_SECONDS = 1.0
_OF_A_RESOLVER = 4
"""File descriptors that it takes to look up a name, more or less."""


class Connector:
    """Opens connections. `ssl_context` replaces those that trust the public authorities and the origin's `ca_file`.

    `resolve` gives the addresses of a host and port.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None, *, resolve: Resolver | None = None) -> None:
        self._given = ssl_context
        self._resolve = resolve or addresses_of
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        self._lock = asyncio.Lock()

    async def connect(self, origin: Origin, factory: Callable[[], Protocol]) -> Protocol:
        """A connection that is ready for requests.

        Raises `UpstreamConnectError`, and `GatewayShortageError` where the gateway itself has run out of something.
        """
        try:
            return await self._connect(origin, factory)
        except TimeoutError:  # of the kernel: the caller says what it says of its own
            raise
        except (OSError, UnicodeError, MemoryError, RuntimeError) as error:
            shortage = shortage_behind(error)
            if shortage is not None:
                raise no_connection_for_want(shortage) from shortage
            if isinstance(error, RuntimeError):
                raise
            raise UpstreamConnectError(f"No connection to {origin.host}: {_reason(error)}.") from error

    async def _connect(self, origin: Origin, factory: Callable[[], Protocol]) -> Protocol:
        context = await self._context(origin.ca_file) if origin.is_tls else None
        peer = origin.proxy or origin
        addresses = await self._resolve(peer.host, peer.port)
        # An address that does not answer is passed over: uvloop has nothing for that.
        sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=ATTEMPT_DELAY)
        try:
            if origin.proxy is not None:
                await tunnel(sock, origin, origin.proxy)
            _, connection = await asyncio.get_running_loop().create_connection(
                factory, sock=sock, ssl=context, server_hostname=origin.host if origin.is_tls else None
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def _context(self, ca_file: str | None) -> ssl.SSLContext:
        if self._given is not None:
            return self._given
        async with self._lock:
            context = self._contexts.get(ca_file)
            if context is None:
                context = self._contexts[ca_file] = await asyncio.to_thread(default_context, ca_file)
            return context


def default_context(ca_file: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer, hostnames verified, the CA bundle of certifi and `ca_file`, whatever the environment says."""
    # ssl.create_default_context would write the session keys to the file that SSLKEYLOGFILE names.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=certifi.where())
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def addresses_of(host: str, port: int) -> Sequence[AddrInfoType]:
    """The addresses of a name, as the resolver of the system has them; an address is its own."""
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        found = await _looked_up(host, port)
        return [(family, kind, protocol, name, address) for family, kind, protocol, name, address in found]
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]


async def _looked_up(host: str, port: int) -> Sequence[Any]:
    """What the resolver says of a name. Raises `socket.gaierror`, whatever the last thing was that went wrong in it."""
    try:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise
    except OSError as error:
        raise socket.gaierror(socket.EAI_SYSTEM, f"the resolver failed: {error.strerror}") from error


def no_connection_for_want(shortage: Exception) -> GatewayShortageError:
    """What a call is told when the gateway lacks something."""
    what = getattr(shortage, "strerror", None) or type(shortage).__name__
    return GatewayShortageError(
        f"The gateway cannot open a connection to the provider at the moment ({what}).", retry_after=_RETRY_SECONDS
    )


def shortage_behind(error: BaseException) -> Exception | None:
    """What the gateway itself lacks, if that is why no connection came about."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "thread" in str(error)):
        return error
    if isinstance(error, socket.gaierror):
        return _lack_of_descriptors()  # the resolver opens files and sockets, and says only that it failed
    return error if isinstance(error, OSError) and error.errno in _SHORTAGES else None


def _lack_of_descriptors() -> OSError | None:
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(_OF_A_RESOLVER):
                opened.enter_context(socket.socket())
    except OSError as error:
        return error
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    return getattr(error, "strerror", None) or type(error).__name__
