"""Our reading of Redis' protocol beside that of redis-py: the same bytes are the same replies."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from redis._parsers import Encoder, _RESP2Parser  # the parser of redis-py has no public name
from redis.exceptions import ResponseError

from gateway_middleware.redis.resp import ErrorReply, ReplyParser, encode

LINE = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=30).map(str.encode)
WIRE = st.recursive(
    st.one_of(
        st.just(b"$-1\r\n"),
        st.just(b"*-1\r\n"),
        st.just(b"*0\r\n"),
        st.integers(-(2**63), 2**63 - 1).map(lambda number: b":%d\r\n" % number),
        st.binary(max_size=60).map(lambda text: b"$%d\r\n%s\r\n" % (len(text), text)),
        LINE.map(lambda line: b"+%s\r\n" % line),
        LINE.map(lambda line: b"-WRONGTYPE %s\r\n" % line),
    ),
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(
        lambda parts: b"*%d\r\n%s" % (len(parts), b"".join(parts))
    ),
    max_leaves=12,
)


def theirs(stream: bytes, count: int) -> list[Any]:
    """What redis-py reads. It wants a socket, so it gets one that has everything already."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(5)
        far.sendall(stream)
        parser = _RESP2Parser(socket_read_size=4096)
        parser.on_connect(SimpleNamespace(_sock=near, socket_timeout=5, encoder=Encoder("utf-8", "strict", False)))
        return [parser.read_response() for _ in range(count)]


def plain(reply: Any) -> Any:
    """A reply of either library, without its own types."""
    if isinstance(reply, list):
        return [plain(part) for part in reply]
    if isinstance(reply, ErrorReply | ResponseError):
        return ("error", str(reply).removeprefix("WRONGTYPE "))
    return reply


@settings(deadline=None)
@given(sent=st.lists(WIRE, min_size=1, max_size=6), size=st.integers(1, 40))
def test_same_bytes_are_the_same_replies(sent: list[bytes], size: int) -> None:
    stream, parser = b"".join(sent), ReplyParser()
    ours = [reply for at in range(0, len(stream), size) for reply in parser.feed(stream[at : at + size])]

    assert plain(ours) == plain(theirs(stream, len(sent)))


@settings(deadline=None)
@given(parts=st.lists(st.binary(max_size=50), min_size=1, max_size=8))
def test_a_command_is_written_as_redis_py_writes_it(parts: list[bytes]) -> None:
    from redis.connection import PythonRespSerializer

    packed = PythonRespSerializer(6000, Encoder("utf-8", "strict", False).encode).pack(b"EVALSHA", *parts)

    assert encode([b"EVALSHA", *parts]) == b"".join(packed)
