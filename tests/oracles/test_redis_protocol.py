"""Our reading of Redis' protocol beside that of redis-py: the same bytes are the same replies."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from redis._parsers import Encoder, _RESP2Parser  # the parser of redis-py has no public name
from redis.asyncio import Redis
from redis.exceptions import RedisError as TheirError
from redis.exceptions import ResponseError

from gateway_middleware.redis.caller import RedisReplyError, Script
from gateway_middleware.redis.connect import redis_caller
from gateway_middleware.redis.resp import ErrorReply, ReplyParser, RespProtocolError, encode
from redis_process import RedisProcess

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


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Replies in which a few bytes were taken out or put in."""
    stream = b"".join(draw(st.lists(WIRE, min_size=1, max_size=4)))
    start = draw(st.integers(0, len(stream)))
    end = draw(st.integers(start, min(len(stream), start + 4)))
    put = draw(st.sampled_from([b"", b"\r\n", b"$", b"*2", b":", b"-1", b"7", b"x"]))
    return stream[:start] + put + stream[end:]


def theirs_until_an_error(stream: bytes) -> list[Any]:
    """The replies before the end, or before something that redis-py does not take."""
    near, far = socket.socketpair()
    replies = []
    with near:
        near.settimeout(5)
        with far:
            far.sendall(stream)
        parser = _RESP2Parser(socket_read_size=4096)
        parser.on_connect(SimpleNamespace(_sock=near, socket_timeout=5, encoder=Encoder("utf-8", "strict", False)))
        try:
            while True:
                replies.append(plain(parser.read_response()))
        except (TheirError, ValueError, OSError):
            return replies


def ours_until_an_error(stream: bytes) -> list[Any]:
    replies, parser = [], ReplyParser()
    try:
        for reply in parser.feed(stream):
            replies.append(plain(reply))  # what came before an error counts
    except RespProtocolError:
        pass
    return replies


@settings(deadline=None, max_examples=300)
@given(stream=damaged())
def test_what_we_take_of_damaged_replies_is_what_redis_py_takes(stream: bytes) -> None:
    """It may take more than we do: it does not look at what ends a bulk string. In a line it reads no LF alone."""
    assume(b"\n" not in stream.replace(b"\r\n", b""))
    ours = ours_until_an_error(stream)

    assert ours == theirs_until_an_error(stream)[: len(ours)]


NAME = st.sampled_from([b"a", b"b", b"c"])
SHAPES = b"return {KEYS[1], 1, {}, false, {ok='x'}, ARGV[1]}"
VALUE = st.one_of(st.binary(max_size=20), st.integers(-5, 5).map(lambda number: b"%d" % number))
COMMAND = st.one_of(
    st.tuples(st.just(b"SET"), NAME, VALUE),
    st.tuples(st.sampled_from([b"GET", b"DEL", b"TYPE", b"LLEN", b"STRLEN", b"INCR", b"SMEMBERS"]), NAME),
    st.tuples(st.sampled_from([b"RPUSH", b"SADD", b"APPEND", b"INCRBY"]), NAME, VALUE),
    st.tuples(st.just(b"LRANGE"), NAME, st.just(b"0"), st.just(b"-1")),
    st.tuples(st.just(b"EVAL"), st.just(SHAPES), st.just(b"1"), NAME, VALUE),
)
ADD = Script.of("return redis.call('APPEND', KEYS[1], ARGV[1])")


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(commands=st.lists(COMMAND, min_size=1, max_size=12), appended=VALUE)
def test_commands_all_at_once_are_answered_as_redis_py_is_one_after_the_other(
    shared_redis: RedisProcess, commands: list[tuple[bytes, ...]], appended: bytes
) -> None:
    """In their order, and each with its own reply; a script first, which a new connection sends by its source."""
    ours, reference = asyncio.run(_both(shared_redis.uri, commands, appended))

    assert ours == reference


async def _both(uri: str, commands: list[tuple[bytes, ...]], appended: bytes) -> tuple[list[Any], list[Any]]:
    caller, client = redis_caller(f"{uri}/7", deadline=10), Redis.from_url(f"{uri}/8")
    try:
        await client.flushdb()
        await caller.call((b"FLUSHDB",))
        sent = [caller.run(ADD, [b"a"], [appended]), *[caller.call(command) for command in commands]]
        ours = [_shown(reply) for reply in await asyncio.gather(*sent, return_exceptions=True)]
        both = [(b"EVAL", ADD.source, b"1", b"a", appended), *commands]
        return ours, [_shown(await _execute(client, command)) for command in both]
    finally:
        await caller.aclose()
        await client.aclose()


async def _execute(client: Any, command: tuple[bytes, ...]) -> Any:
    client.response_callbacks.clear()  # what is on the wire, and not what redis-py makes of it
    try:
        return await client.execute_command(*command)
    except ResponseError as error:
        return error


def _shown(reply: Any) -> Any:
    if isinstance(reply, RedisReplyError):
        return "error"
    if isinstance(reply, list):
        return [_shown(part) for part in reply]
    return "error" if isinstance(reply, ResponseError) else reply
