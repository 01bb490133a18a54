"""The protocol of Redis, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.redis.resp import ErrorReply, Reply, ReplyParser, RespProtocolError, encode

replies: st.SearchStrategy[Reply] = st.recursive(
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=40)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def wire(reply: Reply) -> bytes:
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join([wire(r) for r in reply])
    return b"-%s\r\n" % str(reply).encode()


@settings(deadline=None)
@given(sent=st.lists(replies, max_size=5), cuts=st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_any_cut_gives_the_same_replies(sent: list[Reply], cuts: list[int]) -> None:
    parser, stream, got, turn = ReplyParser(), b"".join([wire(r) for r in sent]), [], 0
    while stream:
        size = cuts[turn % len(cuts)]
        turn += 1
        got += list(parser.feed(stream[:size]))
        stream = stream[size:]

    assert got == sent


def test_lines() -> None:
    ok, error = ReplyParser().feed(b"+OK\r\n-NOSCRIPT No matching script\r\n")

    assert ok == b"OK"
    assert isinstance(error, ErrorReply)
    assert str(error) == "NOSCRIPT No matching script"


def test_empty_array_and_null_array() -> None:
    assert list(ReplyParser().feed(b"*0\r\n*-1\r\n")) == [[], None]


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 200 OK\r\n", b":12x\r\n", b"$3\r\nabcd\r\n", b"$99999999999\r\n", b"\r\n", b":1_0\r\n",
        b": 1\r\n", b":\r\n", b":-\r\n", b":" + b"1" * 5000 + b"\r\n", b"*-2\r\n", b"$-2\r\n",
    ],
)  # fmt: skip
def test_what_is_no_resp(junk: bytes) -> None:
    with pytest.raises(RespProtocolError):
        list(ReplyParser().feed(junk))


def test_a_line_without_end_is_cut_off() -> None:
    with pytest.raises(RespProtocolError):
        list(ReplyParser().feed(b"+" + b"x" * (17 * 1024 * 1024)))


def test_commands() -> None:
    assert encode((b"GET", b"", b"\r\n")) == b"*3\r\n$3\r\nGET\r\n$0\r\n\r\n$2\r\n\r\n\r\n"
