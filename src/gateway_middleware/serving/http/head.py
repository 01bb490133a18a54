"""The head of a request: bytes into method, target, headers and framing, or the reason why not.

Syntax is httptools' (llhttp, strict: no line folding, no bare CR or LF, no NUL, no space before a colon, never two
lengths). What is added here is what RFC 9112 leaves to the server: one `Host`, one transfer coding, no framing that
two parsers could read in two ways.
"""

from __future__ import annotations

import re

import httptools

from gateway_middleware.core.domain import HeaderList
from gateway_middleware.serving.http.refusal import RefusedRequestError

_HOST = re.compile(rb"[A-Za-z0-9._~%-]*(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
LENGTH = re.compile(rb"[0-9]{1,18}")
"""A length of a body, in digits."""
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})
_VERSIONS = {b" HTTP/1.1": "1.1", b" HTTP/1.0": "1.0"}
_VERSION_BYTES = 9


class RequestHead:
    """What a head says. `content_length` is 0 where no body was announced, None where it comes in chunks."""

    __slots__ = (
        "_is_complete",
        "_max_headers",
        "_seen",
        "content_length",
        "expects_continue",
        "headers",
        "keep_alive",
        "method",
        "target",
        "version",
    )

    def __init__(self, max_headers: int) -> None:
        self._max_headers = max_headers
        self._is_complete = False
        self._seen: dict[bytes, bytes] = {}
        self.headers: HeaderList = []
        self.target = b""
        self.method = self.version = ""
        self.content_length: int | None = 0
        self.expects_continue = self.keep_alive = False

    # What httptools calls. What is raised here comes out of `feed_data` as the context of its own error.

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _FRAMING:
            value = self._note(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._is_complete = True

    def _note(self, name: bytes, value: bytes) -> bytes:
        value = value.strip(b" \t")
        if name in self._seen:
            if name != b"connection":
                raise RefusedRequestError(400, f"The request has more than one {name.decode()} header.")
            self._seen[name] += b"," + value
        else:
            self._seen[name] = value
        return value

    def read(self, head: bytes) -> None:
        """Take a whole head, with the blank line that ends it."""
        line = head[: head.find(b"\r\n")]
        version = _VERSIONS.get(line[-_VERSION_BYTES:])
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # nothing is switched to: it is a request like any other, whose body is framed as usual
        except httptools.HttpParserError as error:
            self._check_number()
            raise _reason(error) from None
        self._check_number()
        if version is None:
            raise RefusedRequestError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if not self._is_complete:
            raise RefusedRequestError(400, "The request is not valid HTTP.")
        self.version = version
        self.method = parser.get_method().decode("ascii")
        self._conclude()

    def _check_number(self) -> None:
        if len(self.headers) > self._max_headers:
            raise RefusedRequestError(431, f"The request has more than {self._max_headers} header fields.")

    def _conclude(self) -> None:
        seen, is_old = self._seen, self.version == "1.0"
        if self.method == "CONNECT":
            raise RefusedRequestError(405, "This is no proxy: CONNECT is not served.")
        host = seen.get(b"host")
        if host is None and not is_old:
            raise RefusedRequestError(400, "The request has no Host header.")
        if host and not _HOST.fullmatch(host):
            raise RefusedRequestError(400, "The Host header is not valid.")
        connection = seen.get(b"connection")
        tokens = [] if connection is None else [token.strip() for token in connection.lower().split(b",")]
        self.keep_alive = b"close" not in tokens and (not is_old or b"keep-alive" in tokens)
        self.expects_continue = not is_old and seen.get(b"expect", b"").lower() == b"100-continue"
        self.content_length = _content_length(seen, is_old=is_old)


def _content_length(seen: dict[bytes, bytes], *, is_old: bool) -> int | None:
    """The length of the body, None for a chunked one."""
    coding, length = seen.get(b"transfer-encoding"), seen.get(b"content-length")
    if coding is not None:
        if is_old or length is not None or coding.lower() != b"chunked":
            raise RefusedRequestError(400, "The only transfer coding taken is chunked, in HTTP/1.1, without a length.")
        return None
    if length is None:
        return 0
    if not LENGTH.fullmatch(length):
        raise RefusedRequestError(400, "The Content-Length is not valid.")
    return int(length)


def _reason(error: httptools.HttpParserError) -> RefusedRequestError:
    own = error.__context__
    if isinstance(own, RefusedRequestError):
        return own
    return RefusedRequestError(400, f"The request is not valid HTTP: {error}.")


def check_beginning(data: bytes) -> None:
    """Refuse the beginning of a head that cannot become one, so that nobody waits for the rest."""
    if (data and not data[:1].isalpha()) or b"\0" in data or data.count(b"\n") != data.count(b"\r\n"):
        raise RefusedRequestError(400, "The request is not valid HTTP.")


def too_long(head: bytes, limit: int) -> RefusedRequestError:
    """Why a head of more than `limit` bytes is refused: for its target alone, or for all of it."""
    if head.find(b"\r\n", 0, limit) < 0:
        return RefusedRequestError(414, f"The target of the request is too long: a head may have {limit} bytes.")
    return RefusedRequestError(431, f"The head of the request has more than {limit} bytes.")


def read_head(head: bytes, max_headers: int) -> RequestHead:
    """Read a whole head, with the blank line that ends it. Raises `RefusedRequestError`."""
    request = RequestHead(max_headers)
    request.read(head)
    return request
