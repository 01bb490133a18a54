"""The multiplexed client on a real Redis: deadlines, late replies, lost connections, every kind of address."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
import trustme

from gateway_middleware.redis.caller import RedisCaller, RedisError, RedisReplyError, RedisTimeoutError, Script
from gateway_middleware.redis.client import RespClient
from gateway_middleware.redis.connect import redis_caller
from gateway_middleware.redis.resp import Reply
from gateway_middleware.redis.uri import RedisUri
from redis_process import BINARY, WHY_SKIPPED, RedisProcess, SlowProxy, free_port

pytestmark = pytest.mark.anyio

ADD = Script.of("return redis.call('INCRBY', KEYS[1], ARGV[1])")
GET = Script.of("return redis.call('GET', KEYS[1])")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


async def warm(caller: RedisCaller) -> None:
    assert await caller.call((b"PING",)) == b"PONG"


async def test_commands_and_scripts(own_redis: RedisProcess) -> None:
    caller = redis_caller(own_redis.uri, deadline=5)
    assert await caller.call((b"SET", b"a", b"x")) == b"OK"
    assert await caller.run(GET, [b"a"]) == b"x"
    assert await caller.run(ADD, [b"n"], [b"3"]) == 3
    own_redis.command("SCRIPT", "FLUSH")
    assert await asyncio.gather(*[caller.run(ADD, [b"n"], [b"1"]) for _ in range(50)]) == list(range(4, 54))
    with pytest.raises(RedisReplyError, match="WRONGTYPE") as caught:
        await caller.call((b"LPUSH", b"a", b"x"))
    assert caught.value.code == "WRONGTYPE"
    await caller.aclose()


async def test_a_command_leaves_at_once_where_none_is_under_way(own_redis: RedisProcess) -> None:
    """It is carried out while the event loop has not even turned."""
    caller = redis_caller(own_redis.uri, deadline=5)
    await warm(caller)
    replies = [caller.run(ADD, [b"n"], [b"3"])]
    assert own_redis.command("GET", "n") == b"3"
    replies += [caller.run(ADD, [b"n"], [b"4"])]  # goes with what else is asked for in this turn

    assert await asyncio.gather(*replies) == [3, 7]
    await caller.aclose()


async def test_nothing_overtakes_a_script_that_redis_does_not_know(own_redis: RedisProcess) -> None:
    """Not on a new connection, nor after Redis was seen to have forgotten it."""
    caller = redis_caller(own_redis.uri, deadline=5)
    assert caller.keeps_order
    replies = [caller.run(ADD, [b"n"], [b"1"]), caller.run(GET, [b"n"]), caller.call((b"GET", b"n"))]
    assert await asyncio.gather(*replies) == [1, b"1", b"1"]
    own_redis.command("SCRIPT", "FLUSH")
    assert await caller.run(GET, [b"n"]) == b"1"
    replies = [caller.run(ADD, [b"n"], [b"1"]), caller.run(GET, [b"n"]), caller.call((b"GET", b"n"))]

    assert await asyncio.gather(*replies) == [2, b"2", b"2"]
    await caller.aclose()


async def test_what_nobody_waits_for_is_carried_out(own_redis: RedisProcess) -> None:
    """Cancelled before the first connection, or before Redis knows the script: it was told to do it."""
    caller = redis_caller(own_redis.uri, deadline=5)
    caller.run(ADD, [b"n"], [b"1"]).cancel()
    await caller.call((b"PING",))
    caller.run(GET, [b"n"]).cancel()
    assert await caller.run(ADD, [b"n"], [b"0"]) == 1
    await caller.aclose()


async def test_with_a_late_taker_only_what_is_waited_for(own_redis: RedisProcess) -> None:
    late: list[Reply] = []
    caller = redis_caller(own_redis.uri, deadline=5)
    caller.run(ADD, [b"n"], [b"1"], late.append).cancel()  # not connected yet: not sent
    await warm(caller)
    await caller.run(ADD, [b"n"], [b"0"])
    own_redis.command("SCRIPT", "FLUSH")
    caller.run(ADD, [b"n"], [b"2"], late.append).cancel()  # Redis has forgotten the script: not sent again
    await warm(caller)
    caller.run(ADD, [b"n"], [b"4"], late.append).cancel()  # on its way
    await warm(caller)

    assert late == [4]
    assert await caller.call((b"GET", b"n")) == b"4"
    await caller.aclose()


async def test_five_thousand_due_together(own_redis: RedisProcess) -> None:
    """All of them time out, no reply reaches another call, and all of what came late is handed over."""
    late: list[Reply] = []
    caller = redis_caller(own_redis.uri)
    await warm(caller)
    await caller.run(ADD, [b"n"], [b"0"])
    own_redis.freeze()
    calls = [caller.run(ADD, [b"n"], [b"1"], late.append) for _ in range(5_000)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    own_redis.thaw()
    caller_is_back = await asyncio.gather(*[_ping(caller, b"%d" % n) for n in range(200)])

    assert {type(outcome) for outcome in outcomes} == {RedisTimeoutError}
    assert caller_is_back == [b"%d" % n for n in range(200)]
    assert late == list(range(1, 5_001))
    await caller.aclose()


async def _ping(caller: RedisCaller, text: bytes) -> Reply:
    while True:
        try:
            return await caller.call((b"PING", text))
        except RedisTimeoutError:
            continue


async def test_a_stalled_loop_is_not_a_slow_redis(own_redis: RedisProcess) -> None:
    """The process itself was busy for three deadlines, before and after it had written."""
    caller = redis_caller(own_redis.uri)
    await warm(caller)
    loop = asyncio.get_running_loop()
    calls = [caller.call((b"PING",)) for _ in range(100)]
    time.sleep(0.15)  # the stall
    calls += [caller.call((b"PING",)) for _ in range(100)]
    for turn in range(3):
        loop.call_later(0.001 * turn, time.sleep, 0.12)

    assert await asyncio.gather(*calls) == [b"PONG"] * 200
    await caller.aclose()


async def test_a_frozen_redis_fails_within_the_deadline(own_redis: RedisProcess) -> None:
    caller = redis_caller(own_redis.uri)
    await warm(caller)
    own_redis.freeze()
    began = asyncio.get_running_loop().time()
    outcomes = await asyncio.gather(*[caller.call((b"PING",)) for _ in range(50)], return_exceptions=True)
    took = asyncio.get_running_loop().time() - began
    own_redis.thaw()
    await caller.aclose()

    assert {type(outcome) for outcome in outcomes} == {RedisTimeoutError}
    assert 0.045 <= took < 50 * 0.05  # one deadline for all of them, not one after the other


async def test_a_late_taker_that_fails_hurts_nobody(own_redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Reply) -> None:
        raise ZeroDivisionError

    async with SlowProxy(own_redis.port, 0.02) as uri:
        caller = redis_caller(uri, deadline=5)
        await warm(caller)
        caller.call((b"PING",), fail).cancel()
        await warm(caller)
        await caller.aclose()

    assert "could not be undone" in caplog.text


async def test_too_many_at_once_are_refused(own_redis: RedisProcess) -> None:
    caller = redis_caller(own_redis.uri, deadline=0.2)
    await warm(caller)
    own_redis.freeze()
    calls = [caller.call((b"PING",)) for _ in range(20_001)]
    with pytest.raises(RedisError, match="cannot be reached"):
        await calls[-1]
    own_redis.kill()
    await asyncio.gather(*calls, return_exceptions=True)
    await caller.aclose()


async def test_a_restarted_redis_is_found_again(own_redis: RedisProcess) -> None:
    caller = redis_caller(own_redis.uri)
    await warm(caller)
    own_redis.kill()
    for _ in range(3):
        with pytest.raises(RedisError):
            await caller.call((b"PING",))
    own_redis.start()
    await asyncio.sleep(0.25)  # the pause between two connections

    await warm(caller)
    await caller.aclose()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n", b"$5\r\nlonger\r\n", b""])
async def test_what_is_no_redis_is_left(answer: bytes) -> None:
    """RL13: also one that accepts and never answers: its connection is cut."""
    has_ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        while await reader.read(100):
            pass
        has_ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    caller = RespClient(RedisUri(scheme="redis", hosts=(("127.0.0.1", port),)), stale=0.02)
    await asyncio.gather(caller.call((b"PING",)), return_exceptions=True)
    async with asyncio.timeout(10):
        await has_ended.wait()
    await caller.aclose()
    server.close()


async def test_wrong_password_is_an_error_and_never_shown(own_redis: RedisProcess) -> None:
    own_redis.command("CONFIG", "SET", "requirepass", "right")
    wrong = redis_caller(f"redis://:wr0ng@127.0.0.1:{own_redis.port}", deadline=1)
    right = redis_caller(f"redis://default:right@127.0.0.1:{own_redis.port}/2", deadline=1)
    with pytest.raises(RedisError) as caught:
        await wrong.call((b"PING",))
    await warm(right)
    await wrong.aclose()
    await right.aclose()

    assert "wr0ng" not in str(caught.value)


async def test_closed_means_closed_and_twice_is_once(shared_redis: RedisProcess) -> None:
    caller = redis_caller(shared_redis.uri)
    await warm(caller)
    last = caller.call((b"PING",))
    await caller.aclose()
    await caller.aclose()

    assert await last == b"PONG"
    with pytest.raises(RedisError):
        await caller.call((b"PING",))


async def test_nothing_is_left_open(own_redis: RedisProcess) -> None:
    async def use() -> tuple[int, int]:
        caller, dead = redis_caller(own_redis.uri), redis_caller(f"redis://127.0.0.1:{free_port()}")
        await warm(caller)
        with pytest.raises(RedisError):
            await dead.call((b"PING",))
        await caller.aclose()
        await dead.aclose()
        await asyncio.sleep(0.01)
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())

    before = await use()  # the loop itself opens something for its first connection

    assert [await use() for _ in range(3)] == [before] * 3


async def test_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    folder = tmp_path_factory.mktemp("redis")
    process = RedisProcess(folder, unixsocket=str(folder / "s"))
    caller = redis_caller(f"redis+unix://{folder}/s?db=1", deadline=5)
    try:
        await warm(caller)
    finally:
        await caller.aclose()
        process.kill()


async def test_tls(tmp_path: Path) -> None:
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "leaf.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls_port = free_port()
    try:
        process = RedisProcess(
            tmp_path,
            tls_port=str(tls_port),
            tls_cert_file=str(tmp_path / "leaf.pem"),
            tls_key_file=str(tmp_path / "leaf.pem"),
            tls_ca_cert_file=str(tmp_path / "ca.pem"),
            tls_auth_clients="no",
        )
    except AssertionError:
        pytest.skip("this redis-server is built without TLS")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    uri = f"rediss://127.0.0.1:{tls_port}"
    callers = [
        redis_caller(uri, deadline=5, tls=context),
        redis_caller(f"{uri}?ssl_ca_certs={tmp_path}/ca.pem", deadline=5),
        redis_caller(f"{uri}?ssl_cert_reqs=none", deadline=5),
    ]
    stranger = redis_caller(uri, deadline=5)
    try:
        for caller in callers:
            await warm(caller)
        with pytest.raises(RedisError):
            await stranger.call((b"PING",))
    finally:
        for caller in (*callers, stranger):
            await caller.aclose()
        process.kill()
