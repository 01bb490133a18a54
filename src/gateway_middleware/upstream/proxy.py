"""A tunnel through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6)."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import UpstreamConnectError

if TYPE_CHECKING:
    import socket

    from gateway_middleware.core.provider_api import Origin, Proxy

_MAX_HEAD = 16 * 1024
_END = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")
_AUTHENTICATE = 407


async def tunnel(sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
    """Ask the proxy at the other end of the socket to lead it on to the origin.

    Raises `UpstreamConnectError` that says so where it will not.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _request(origin, proxy))
    head = b""
    while _END not in head:
        piece = await loop.sock_recv(sock, _MAX_HEAD - len(head))
        head += piece
        if not piece or (len(head) >= _MAX_HEAD and _END not in head):
            raise _refused(origin, proxy, "closed the connection" if not piece else "answered with too long a head")
    _check(head, origin, proxy)


def _request(origin: Origin, proxy: Proxy) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    authority = f"{host}:{origin.port}".encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"host: " + authority]
    if proxy.credentials is not None:
        lines.append(b"proxy-authorization: Basic " + b64encode(proxy.credentials.reveal().encode()))
    return b"\r\n".join(lines) + _END


def _check(head: bytes, origin: Origin, proxy: Proxy) -> None:
    status = _STATUS_LINE.match(head)
    if status is None:
        raise _refused(origin, proxy, "does not answer in HTTP")
    if not status[1].startswith(b"2"):
        code = int(status[1])
        why = " (it wants credentials, or other ones)" if code == _AUTHENTICATE else ""
        raise _refused(origin, proxy, f"answered {code}{why}")
    if head.index(_END) + len(_END) != len(head):
        raise _refused(origin, proxy, "sent more than its answer")


def _refused(origin: Origin, proxy: Proxy, what: str) -> UpstreamConnectError:
    return UpstreamConnectError(f"No connection to {origin.host}: its proxy {proxy.host}:{proxy.port} {what}.")
