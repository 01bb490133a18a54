"""One HTTP/1.1 connection to a provider: bytes of the socket into the state of a response."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, cast

import httptools

from gateway_middleware.core.errors import ProtocolFault, StaleConnectionError, UpstreamProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway_middleware.core.domain import HeaderList
    from gateway_middleware.core.outbox import Entry, Outbox
    from gateway_middleware.upstream.answer import EngineAnswer

READ_BYTES = 32 * 1024
"""The most that one read takes from the socket: also what may still come once a reader is too slow."""
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
_NO_BODY = frozenset({204, 304})
_SWITCHING = 101
_OK = 200
_CONTINUE = 100
_TOO_LONG = "The head or the trailers of the provider's answer are too long."
_OUTGOING = 64 * 1024  # a larger request is written at once
STALE_AFTER = 1.0
"""Seconds of idleness after which a provider may have closed a connection that we still take for open."""
STALE_NOTICE = 0.1
"""Seconds from a request on a connection that is closed already to the news of it."""
_SLICE = 256 * 1024  # of a large request body, written while the socket takes it
_KEEP_ALIVE = [  # a provider may think for minutes, longer than a NAT on the way remembers a silent connection
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]


class Connection(asyncio.BufferedProtocol):
    """Serves one response at a time.

    `on_idle` is called with the connection when it may serve another one, `on_lost` when it is gone. Requests are
    written with whatever else is in the `outbox` of the loop's turn. What is received goes through `buffer`, which
    bounds what one read can bring; connections of one loop may share it, because what is in it is used up at once.
    """

    def __init__(
        self,
        *,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
        outbox: Outbox,
        loop: asyncio.AbstractEventLoop,
        buffer: bytearray | None = None,
        stale_after: float = STALE_AFTER,
        stale_notice: float = STALE_NOTICE,
    ) -> None:
        self._stale_after = stale_after
        self._stale_notice = stale_notice
        self._outbox = outbox
        self._loop = loop
        self._outgoing = b""
        self._entry: Entry | None = None  # of the request that is kept or about to be written
        self._buffer = memoryview(bytearray(READ_BYTES) if buffer is None else buffer)
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._body: list[bytes] = []  # of the read that is under way
        self.on_body = self._body.append  # what the parser calls for each of many chunks
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: EngineAnswer | None = None
        self._headers: HeaderList = []
        self._bare_bytes = 0  # received since the last byte of a body
        self._early: bytes | None = b""  # received before the first request; None from then on
        self._unsent: memoryview | None = None
        self._is_write_paused = False
        self._has_eof = False
        self._is_complete = True
        self._is_reusable = True
        self._is_paused = False
        self._is_interim = False
        self._ends_with_connection = False
        self._has_no_body = False
        self.idle_since: float | None = None
        """When it became idle before the request under way; None: that is the first."""
        self._written_at: float | None = None  # the request that is under way

    # The connection's life.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in _KEEP_ALIVE:
                raw.setsockopt(socket.IPPROTO_TCP, option, value)

    @property
    def is_closing(self) -> bool:
        """Whether it can serve nothing more."""
        return self._transport is None or self._transport.is_closing()

    def abort(self) -> None:
        """Close at once; what was not sent is dropped. An answer in progress is cut, never ended."""
        self._ends_with_connection = False
        self._outgoing = b""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._outgoing = b""
        if not self._early:
            self._parser = None
        self._unsent = None
        answer = self._answer
        if answer is not None and not self._is_complete:
            if self._ends_with_connection and self._has_eof and answer.has_head and exc is None:
                self._complete(is_reusable=False)
            else:
                answer.put_error(self._cut(answer))
        self._on_lost(self)

    def _cut(self, answer: EngineAnswer) -> UpstreamProtocolError:
        """What to say of a loss: staleness explains that of a kept connection, if it showed at once."""
        when = "before its answer was complete" if answer.has_bytes else "without an answer"
        message = f"The provider closed the connection {when}."
        if not answer.has_bytes and self.idle_since is not None:
            if self._written_at is None:
                return StaleConnectionError(message, was_sent=False)
            has_idled = self._written_at - self.idle_since >= self._stale_after
            if has_idled and self._loop.time() - self._written_at <= self._stale_notice:
                return StaleConnectionError(message, was_sent=True)
        return UpstreamProtocolError(message, fault=ProtocolFault.TRUNCATED)

    def send(
        self,
        head: bytes,
        body: bytes,
        answer: EngineAnswer,
        *,
        has_no_body: bool = False,
        entry: Entry | None = None,
    ) -> None:
        """Send a request whose response goes to `answer`, once its entry is on disk. The connection must be idle."""
        self._answer = answer
        self._entry = entry
        self._headers = []
        self._bare_bytes = 0
        self._is_complete = self._is_interim = self._ends_with_connection = False
        self._has_no_body = has_no_body
        self._written_at = None
        if self._early is not None:
            self._take_early()
        if self._transport is None:
            answer.put_error(self._cut(answer))
        elif len(body) <= _OUTGOING and not answer.has_bytes:
            self._outgoing = head + body
            if not self._outbox.may_pass():
                self._outbox.add(self, self._loop)
            if self._outbox.is_quiet:
                self.write_out()
        elif len(body) <= _SLICE:
            self._write(self._transport, head + body)
        elif self._write(self._transport, head):
            self._unsent = memoryview(body)
            self._send_more()

    def write_out(self) -> None:
        """Write the request that is kept until the end of the turn."""
        data, self._outgoing = self._outgoing, b""
        if data and self._transport is not None and not self._transport.is_closing():
            self._write(self._transport, data)

    def _write(self, transport: asyncio.Transport, data: bytes) -> bool:
        """Write the first bytes of a request, after its entry. False: that could not be written, so they were not."""
        if self._outbox.has_records:
            self._outbox.commit()
        entry, self._entry = self._entry, None
        if entry is not None and entry.fault is not None:
            self._is_complete = True  # nothing of it has left: the connection serves the next request
            if self._answer is not None:
                self._answer.put_error(entry.fault)
            return False
        self._written_at = self._loop.time()
        transport.write(data)
        return True

    def _take_early(self) -> None:
        """A provider may answer before it is asked (413, 503): the answer has waited for the request it is about."""
        early, self._early = self._early, None
        if early:
            self._receive(memoryview(early))
            self.resume()
        if self._transport is None:
            self._parser = None

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._send_more()

    def _send_more(self) -> None:
        while self._unsent is not None and not self._is_write_paused and self._transport is not None:
            part, rest = self._unsent[:_SLICE], self._unsent[_SLICE:]
            self._unsent = rest or None  # before the write, which may call resume_writing
            self._transport.write(part)

    def finish(self, answer: EngineAnswer) -> None:
        """The reader of `answer` is done. Keeps the connection when that was all of it, else closes it."""
        if self._answer is not answer:
            return
        self._answer = None
        transport = self._transport
        if transport is None:
            return
        if (
            self._is_complete
            and self._is_reusable
            and self._unsent is None
            and not self._outgoing
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        ):
            if self._is_paused:
                self.resume()
            self._on_idle(self)
        else:
            self._unsent = None
            transport.abort()

    def resume(self) -> None:
        """Read again after the reader has caught up."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    # Bytes.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._early is None:
            self._receive(self._buffer[:nbytes])
        else:
            self._early += self._buffer[:nbytes]
            self._pause()

    def _receive(self, data: memoryview) -> None:
        answer = self._answer
        if answer is None or self._is_complete or self._parser is None or self._outgoing:
            # Nobody asked for these bytes: whatever they are, they must not become the next answer.
            self._is_reusable = False
            self.abort()
            return
        answer.has_bytes = True
        self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(answer, "The provider's answer is not HTTP.")
            return
        if self._body:
            self._hand_over(answer)
        if self._bare_bytes > MAX_HEAD_BYTES and not self._is_complete:
            self._refuse(answer, _TOO_LONG, ProtocolFault.TOO_LONG)

    def eof_received(self) -> bool:
        self._has_eof = self._transport is not None and _is_proven_end(self._transport)
        return False

    def _refuse(self, answer: EngineAnswer, message: str, fault: ProtocolFault = ProtocolFault.GARBAGE) -> None:
        """Broken framing. After a complete answer it only costs the connection."""
        self._hand_over(answer)
        self._is_reusable = False
        if not self._is_complete:
            answer.put_error(UpstreamProtocolError(message, fault=fault))
        self.abort()

    # What the parser says. Raising here would be swallowed by it.

    def on_message_begin(self) -> None:
        if self._is_complete:
            self._is_reusable = False
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        answer, parser = self._answer, self._parser
        if self._is_complete or answer is None or parser is None:
            return
        status = parser.get_status_code()
        self._is_interim = _CONTINUE <= status < _OK and status != _SWITCHING
        if self._is_interim:
            return
        fields = dict(self._headers)
        fault = _framing_fault(status, self._headers, fields)
        if self._bare_bytes > MAX_HEAD_BYTES and sum(map(_size, self._headers)) > MAX_HEAD_BYTES:
            fault = _TOO_LONG
        if fault is not None:
            self._is_reusable = False
            kind = ProtocolFault.TOO_LONG if fault is _TOO_LONG else ProtocolFault.GARBAGE
            answer.put_error(UpstreamProtocolError(fault, fault=kind))
            self.abort()
            return
        is_framed = b"content-length" in fields or b"transfer-encoding" in fields
        self._ends_with_connection = not is_framed and status not in _NO_BODY
        answer.put_head(status, self._headers)
        self._headers = []  # of trailers, which nobody may take for headers
        if self._has_no_body or (is_framed and status in _NO_BODY):
            # The length is that of another answer's body, and the parser waits for it.
            self._complete(is_reusable=False)

    def _hand_over(self, answer: EngineAnswer) -> None:
        """Give on what one read has brought of a body. What follows a complete answer is nobody's."""
        if self._is_complete:
            self._body.clear()
        else:
            self._give_body(answer)

    def _give_body(self, answer: EngineAnswer) -> None:
        """All chunks of a read together."""
        pieces = self._body
        if pieces:
            self._bare_bytes = 0
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            if answer.put_body(body):
                self._pause()

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
            self._headers = []
        elif not self._is_complete and self._parser is not None:
            self._complete(is_reusable=self._parser.should_keep_alive())

    def _complete(self, *, is_reusable: bool) -> None:
        self._is_complete = True
        self._is_reusable = self._is_reusable and is_reusable
        if self._answer is not None:
            self._give_body(self._answer)
            self._answer.put_end()


def _is_proven_end(transport: asyncio.Transport) -> bool:
    """Whether the peer itself said that it has sent all. Over TLS that takes a close_notify: anybody can send a FIN."""
    tls = transport.get_extra_info("ssl_object")
    try:
        return tls is None or not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1]) + 4


def _framing_fault(status: int, headers: HeaderList, fields: Mapping[bytes, bytes]) -> str | None:
    """What makes the length of a message doubtful (RFC 9112, 6.3), or a head unacceptable.

    `fields` are the headers once more, by name.
    """
    if status < _CONTINUE:
        return "The provider's answer has no valid status."
    if status == _SWITCHING:
        return "The provider switched protocols."
    if len(headers) > MAX_HEADERS:
        return "The provider's answer has too many headers."
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if len(fields) == len(headers):  # none stands twice
        if coding is None and (length is None or length.isdigit()):
            return None
        if coding == b"chunked" and length is None:
            return None
    lengths = {value for name, value in headers if name == b"content-length"}
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (lengths or codings != [b"chunked"]):
        return "The provider's answer has a doubtful length (transfer-encoding)."
    if len(lengths) > 1 or any(not value.strip().isdigit() for value in lengths):
        return "The provider's answer has a doubtful length (content-length)."
    return None
