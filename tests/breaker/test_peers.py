"""Replicas and a real Redis. Each `meet` is one exchange of each replica, so nothing here waits for a poll."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from gateway_middleware.breaker.events import CooldownEvent
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.peers.lua import HOLD, TELL
from gateway_middleware.breaker.peers.peers import INTERVAL, Peers
from gateway_middleware.breaker.peers.probe_leases import ProbeLeases
from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.redis.caller import DEADLINE, RedisCaller, RedisError, Script
from gateway_middleware.redis.connect import redis_caller
from redis_process import RedisProcess

pytestmark = pytest.mark.anyio

KEY = "openai/gpt-5"
BASE = "model-gateway:breaker:{peers}:"
PATIENT = 3.0
"""A deadline that a busy machine keeps to, in tests of what is said and not of how fast."""


@pytest.fixture
def redis(own_redis: RedisProcess) -> RedisProcess:
    return own_redis


class Replica:
    """What one replica was told."""

    def __init__(self, uri: str, *, prefix: str = "model-gateway", deadline: float = PATIENT) -> None:
        self.cooldowns: dict[tuple[str | None, str], float] = {}
        self.classes: dict[tuple[str | None, str], str | None] = {}
        self.told = 0
        self.commands: list[tuple[str, Command, str]] = []
        self.lefts: list[float] = []
        self.redis = redis_caller(uri, deadline=deadline)
        self.leases = ProbeLeases(time.monotonic)
        self.peers = Peers(
            self.redis, leases=self.leases, handler=self, clock=time.monotonic, wall=time.time, prefix=prefix
        )

    def cool_down(self, deployment: str | None, credential: str, seconds: float, *, why: str | None) -> None:
        self.cooldowns[deployment, credential] = seconds
        self.classes[deployment, credential] = why
        self.told += 1

    def obey(self, key: str, command: Command, ttl: float, reason: str) -> None:
        self.commands.append((key, command, reason))
        self.lefts.append(ttl)

    def cools(self, deployment: str | None, credential: str, seconds: float, why: FailureClass | None = None) -> None:
        event = CooldownEvent(deployment=deployment, credential=credential, seconds=seconds, failure_class=why)
        self.peers.on_cooldown(event)

    async def commands_others(self, key: str, command: Command, ttl: float | None = None, *, reason: str = "") -> bool:
        return await self.peers.command(key, command, ttl, reason=reason, actor="ops")

    @property
    def mode(self) -> str:
        return self.peers.snapshot().mode


async def meet(*replicas: Replica) -> None:
    """Two exchanges of each: whatever one has told, all know."""
    for _ in range(2):
        for replica in replicas:
            await replica.peers.exchange()


async def until(is_so: Callable[[], bool], *, within: float = 10.0) -> float:
    """Returns how long it took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < within, "it did not come to pass"
        await asyncio.sleep(0.005)  # waits for Redis or for another process
    return time.monotonic() - began


@asynccontextmanager
async def replicas(
    redis: RedisProcess, count: int = 3, *, prefix: str = "model-gateway", deadline: float = PATIENT
) -> AsyncIterator[list[Replica]]:
    fleet = [Replica(redis.uri, prefix=prefix, deadline=deadline) for _ in range(count)]
    try:
        await meet(*fleet)
        yield fleet
    finally:
        for replica in fleet:
            await replica.redis.aclose()


@asynccontextmanager
async def living(redis: RedisProcess, count: int, *, deadline: float = DEADLINE) -> AsyncIterator[list[Replica]]:
    """Replicas that exchange by themselves."""
    async with asyncio.timeout(20):
        fleet = [Replica(redis.uri, deadline=deadline) for _ in range(count)]
        lives = [replica.peers.lifespan() for replica in fleet]
        for life in lives:
            await life.__aenter__()
        try:
            await until(lambda: all(replica.mode == "shared" for replica in fleet))
            yield fleet
        finally:
            for life in lives:
                await life.__aexit__(None, None, None)


def test_commands_are_looked_for_often_enough_to_act_within_a_second() -> None:
    assert 0 < 2 * INTERVAL <= 1.0  # a look that has just missed it, and the next one


# Cooldowns.


async def test_a_cooldown_is_known_to_all_others_and_to_those_that_come_later(redis: RedisProcess) -> None:
    async with replicas(redis) as (first, second, third):
        first.cools(KEY, "openai#0", 30.0, FailureClass.MODEL_DENIED)
        first.cools(None, "openai#1", 20.0)
        await meet(first, second, third)
        async with replicas(redis, 1) as (late,):
            for replica in (second, third, late):
                assert replica.cooldowns == {
                    (KEY, "openai#0"): pytest.approx(30.0, abs=1), (None, "openai#1"): pytest.approx(20.0, abs=1)
                }  # fmt: skip
                assert replica.classes == {(KEY, "openai#0"): "model_denied", (None, "openai#1"): None}
        assert first.cooldowns == {}


async def test_the_latest_deadline_wins_whoever_speaks_last(redis: RedisProcess) -> None:
    async with replicas(redis) as (first, second, third):
        first.cools(KEY, "c", 60.0)
        await meet(first, second, third)
        second.cools(KEY, "c", 5.0)
        second.cools(KEY, "other", 5.0)
        await meet(second, third)
        assert third.cooldowns[KEY, "c"] == pytest.approx(60.0, abs=1)
        async with replicas(redis, 1) as (late,):
            assert late.cooldowns[KEY, "c"] == pytest.approx(60.0, abs=2)
        second.cools(KEY, "c", 90.0)
        await meet(second, third)
        assert third.cooldowns[KEY, "c"] > 80


async def test_a_cooldown_ends_by_itself_and_leaves_nothing(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        first.cools(KEY, "c", 0.2)
        await meet(first, second)
        await until(lambda: redis.command("EXISTS", f"{BASE}cooldowns") == b":0")


async def test_nobody_is_told_twice(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        first.cools(KEY, "c", 60.0)
        await meet(first, second)
        first.cools(KEY, "d", 60.0)
        first.cools(KEY, "c", 59.99)
        await meet(first, second, first, second)
        assert second.told == 2
        assert first.told == 0


async def test_more_cooldowns_than_go_at_once_are_told_all(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        for number in range(450):
            first.cools(f"openai/{number}", "c", 60.0)
        await meet(first, second)
        assert len(second.cooldowns) == 450


async def test_what_happened_while_redis_was_away_is_told_when_it_is_back(redis: RedisProcess) -> None:
    async with living(redis, 2) as (first, second):
        redis.kill()
        await until(lambda: first.mode == second.mode == "alone")
        first.cools(KEY, "c", 30.0)
        redis.start()
        await until(lambda: (KEY, "c") in second.cooldowns)
        assert second.cooldowns[KEY, "c"] < 30.0


# The operator.


async def test_a_command_and_a_cooldown_reach_all_within_a_second_and_once(redis: RedisProcess) -> None:
    async with living(redis, 3) as (first, second, third):
        for number, command in enumerate(Command, 1):
            assert await first.commands_others(KEY, command, 60, reason="drill")
            assert await until(lambda n=number: len(second.commands) == len(third.commands) == n) < 1.0  # type: ignore[misc]  # a lambda of a loop
        first.cools(KEY, "c", 30.0)
        assert await until(lambda: bool(second.cooldowns and third.cooldowns)) < 1.0
        await meet(first, second, third)

        assert second.commands == third.commands == [(KEY, command, "drill") for command in Command]
        assert first.commands == []
        assert second.lefts == [pytest.approx(60, abs=1)] * len(Command)


async def test_a_replica_whose_connections_are_cut_catches_up(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        redis.command("CLIENT", "KILL", "TYPE", "normal")
        assert await first.commands_others(KEY, Command.FORCE_OPEN, 60)
        await meet(first, second)
        assert second.commands == [(KEY, Command.FORCE_OPEN, "")]
        assert first.mode == second.mode == "shared"


async def test_those_that_come_later_obey_what_stands_in_the_order_it_was_given(redis: RedisProcess) -> None:
    async with replicas(redis, 1) as (first,):
        assert await first.commands_others("openai", Command.FORCE_OPEN, 60)
        assert await first.commands_others(KEY, Command.AUTO, 1)
        assert await first.commands_others("short", Command.FORCE_OPEN, 0.05)
        await until(lambda: int(redis.command("PTTL", f"{BASE}commands")[1:]) < 59_930)
        async with replicas(redis, 1) as (late,):
            assert [command[:2] for command in late.commands] == [("openai", Command.FORCE_OPEN), (KEY, Command.AUTO)]
            assert late.lefts[1] > 55, "the exception is kept for as long as the rule"


async def test_opposite_commands_at_once_end_the_same_everywhere(redis: RedisProcess) -> None:
    async with replicas(redis) as fleet:
        for number in range(10):
            key, given = f"openai/m{number}", [Command.FORCE_OPEN, Command.FORCE_CLOSE]
            states = [*given, Command.AUTO]  # carried out where it was given
            exchanges = [replica.peers.exchange() for replica in fleet]
            await asyncio.gather(*(fleet[n].commands_others(key, given[n]) for n in range(2)), *exchanges)
            await meet(*fleet)
            for n, replica in enumerate(fleet):
                states[n] = next((c[1] for c in reversed(replica.commands) if c[0] == key), states[n])
            assert len(set(states)) == 1, states


@pytest.mark.parametrize("key", ["openai", KEY])
async def test_a_reset_ends_the_cooldowns_that_stand(redis: RedisProcess, key: str) -> None:
    async with replicas(redis, 2) as (first, second):
        for deployment in (KEY, "openai/gpt-5-mini", "openai-eu/gpt-5"):
            first.cools(deployment, deployment.partition("/")[0], 60.0)
        first.cools(None, "openai", 60.0)
        await meet(first, second)
        await second.commands_others(key, Command.RESET)
        async with replicas(redis, 1) as (late,):
            stay = {("openai-eu/gpt-5", "openai-eu")}
            assert set(late.cooldowns) == (stay if key == "openai" else stay | {("openai/gpt-5-mini", "openai")})
        await meet(first, second)
        assert [command[:2] for command in first.commands] == [(key, Command.RESET)]
        second.cooldowns.clear()
        first.cools(KEY, "openai", 5.0)  # shorter than before the reset, and news all the same
        await meet(first, second)
        assert set(second.cooldowns) == {(KEY, "openai")}


async def test_a_cooldown_from_before_a_reset_is_not_told_after_it(redis: RedisProcess) -> None:
    async with replicas(redis) as (first, second, third):
        first.cools(KEY, "openai", 60.0)
        await second.commands_others("openai", Command.RESET)
        await meet(first, second, third)
        assert first.commands == third.commands == [("openai", Command.RESET, "")]
        assert first.cooldowns == second.cooldowns == third.cooldowns == {}


class Between:
    """A way to Redis on which something happens, once, before a script."""

    def __init__(self, redis: RedisCaller, before: Callable[[], Awaitable[object]], script: Script = TELL) -> None:
        self._redis = redis
        self._script = script
        self._before: Callable[[], Awaitable[object]] | None = before
        self.call, self.aclose, self.keeps_order = redis.call, redis.aclose, False

    def run(self, script: Script, keys: Any, arguments: Any = (), late: Any = None) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._run(script, keys, arguments))

    async def _run(self, script: Script, keys: Any, arguments: Any) -> Any:
        if script is self._script and self._before is not None:
            before, self._before = self._before, None
            await before()
        return await self._redis.run(script, keys, arguments)


async def test_not_even_when_the_reset_comes_at_the_last_moment(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        way = Between(first.redis, lambda: second.commands_others("openai", Command.RESET))
        late = Peers(way, leases=first.leases, handler=first, clock=time.monotonic, wall=time.time)
        late.on_cooldown(CooldownEvent(deployment=KEY, credential="openai", seconds=60.0))
        assert await late.exchange()
        assert first.leases.wake.is_set(), "at once again"
        assert await late.exchange()
        await meet(second)
        assert first.commands == [("openai", Command.RESET, "")]
        assert second.cooldowns == {}


# Probes.


async def test_one_probe_in_the_fleet_and_the_next_one_when_it_has_ended(redis: RedisProcess) -> None:
    async with replicas(redis) as fleet:
        gates = [replica.leases for replica in fleet]
        assert [gate.may_probe(KEY, 5.0) for gate in gates] == [False] * 3, "asked for, not waited for"
        await meet(*fleet)
        assert [gate.may_probe(KEY, 5.0) for gate in gates] == [True, False, False]
        gates[0].ended(KEY, again=True)
        assert gates[0].may_probe(KEY, 5.0), "the second in a row needs no second lease"
        gates[0].ended(KEY, again=False)
        await meet(*fleet)
        await until(lambda: gates[1].may_probe(KEY, 5.0) or bool(gates[1].requests))
        await meet(fleet[1])
        assert gates[1].may_probe(KEY, 5.0)


async def test_a_replica_that_leaves_gives_its_lease_back_and_is_counted_no_more(redis: RedisProcess) -> None:
    async with replicas(redis, 1) as (second,):
        async with living(redis, 1, deadline=PATIENT) as (first,):
            await until(lambda: first.leases.may_probe(KEY, 60.0))
            await meet(first, second)
            assert not second.leases.may_probe(KEY, 60.0)
            assert second.peers.snapshot().replicas == 2
        await meet(second)
        assert second.peers.snapshot().replicas == 1
        await until(lambda: second.leases.may_probe(KEY, 60.0) or bool(second.leases.requests))
        await meet(second)
        assert second.leases.may_probe(KEY, 60.0)


DYING = """
import asyncio, sys, time
from gateway_middleware.breaker.peers.lua import HOLD, TELL
from gateway_middleware.breaker.peers.peers import Peers
from gateway_middleware.breaker.peers.probe_leases import ProbeLeases
from gateway_middleware.redis.connect import redis_caller
async def main():
    leases = ProbeLeases(time.monotonic)
    redis = redis_caller(sys.argv[1], deadline=3.0)
    peers = Peers(redis, leases=leases, handler=None, clock=time.monotonic, wall=time.time)
    await peers.exchange()
    leases.prepare(sys.argv[2])
    await peers.exchange()
    assert leases.may_probe(sys.argv[2], 1.5)
    await peers.exchange()
    print("probing", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_the_lease_of_a_replica_that_is_killed_comes_back_by_itself(redis: RedisProcess) -> None:
    async with living(redis, 1, deadline=PATIENT) as (other,):
        process = subprocess.Popen([sys.executable, "-c", DYING, redis.uri, KEY], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"probing\n"
        process.kill()
        process.wait()
        process.stdout.close()
        assert not other.leases.may_probe(KEY, 1.5)
        took = await until(lambda: other.leases.may_probe(KEY, 1.5))
        assert took > 0.8


async def test_without_redis_each_replica_probes_for_itself(redis: RedisProcess) -> None:
    async with replicas(redis, 2, deadline=DEADLINE) as fleet:
        redis.kill()
        await meet(*fleet)
        assert [replica.mode for replica in fleet] == ["alone", "alone"]
        assert all(replica.leases.may_probe(KEY, 5.0) for replica in fleet)
        fleet[1].leases.ended(KEY, again=False)
        redis.start()
        for replica in fleet:
            while not await replica.peers.exchange():
                await asyncio.sleep(0.05)  # waits for the Redis that was started
        # The probe that is still out is made known.
        await meet(*fleet)
        assert not fleet[1].leases.may_probe(KEY, 5.0)
        await meet(*fleet)
        assert not fleet[1].leases.may_probe(KEY, 5.0)


# Trouble.


async def test_a_frozen_redis_holds_nobody_up(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway_middleware")
    async with living(redis, 2) as (first, second):
        caplog.clear()
        redis.freeze()
        async with asyncio.timeout(10):  # Redis is frozen until it is thawed
            assert not await first.commands_others(KEY, Command.RESET)
        await until(lambda: first.mode == second.mode == "alone")
        assert first.leases.may_probe(KEY, 5.0)
        assert not await first.commands_others(KEY, Command.RESET)
        redis.thaw()
        await until(lambda: first.mode == second.mode == "shared")
        lines = [record.getMessage() for record in caplog.records]
        assert sum("not shared" in line for line in lines) == 2
        assert sum("are shared between" in line for line in lines) == 2
        assert len(lines) == 4
        assert await first.commands_others(KEY, Command.FORCE_OPEN)
        await until(lambda: (KEY, Command.FORCE_OPEN, "") in second.commands)


async def test_a_redis_that_has_forgotten_is_told_again(redis: RedisProcess) -> None:
    async with living(redis, 2) as (first, second):
        await first.commands_others(KEY, Command.FORCE_OPEN, 60)
        first.cools(KEY, "c", 60.0)
        await until(lambda: bool(second.commands) and bool(second.cooldowns))
        for is_killed in (False, True):
            if is_killed:
                redis.kill()
                redis.start()
            else:
                redis.command("FLUSHALL")
            await until(lambda: redis.command("HLEN", f"{BASE}commands") == b":1")
            await until(lambda: redis.command("EXISTS", f"{BASE}cooldowns") == b":1")
            await until(lambda: first.mode == second.mode == "shared")
            async with replicas(redis, 1) as (late,):
                assert [command[:2] for command in late.commands] == [(KEY, Command.FORCE_OPEN)]
                assert set(late.cooldowns) == {(KEY, "c")}
            assert len(second.commands) == 1
            assert second.told == 1
            assert first.commands == []
        await first.commands_others(KEY, Command.AUTO)
        await until(lambda: second.commands[-1][1] is Command.AUTO)


async def test_without_redis_from_the_start_it_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica("redis://127.0.0.1:1")
    async with replica.peers.lifespan():
        await until(lambda: bool(caplog.records))
        await meet(replica)
        assert replica.mode == "alone"
        assert replica.leases.may_probe(KEY, 5.0)
        replica.cools(KEY, "c", 5.0)
        assert not await replica.commands_others(KEY, Command.RESET)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_what_a_handler_raises_ends_nothing(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    async with replicas(redis, 2) as (first, second):
        second.commands = None  # type: ignore[assignment]  # so that the handler raises
        await first.commands_others(KEY, Command.RESET)
        first.cools(KEY, "c", 5.0)
        await meet(first, second)
        assert set(second.cooldowns) == {(KEY, "c")}
        assert "could not be applied" in caplog.text


async def test_rubbish_in_the_keys_is_passed_over(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        redis.command("HSET", f"{BASE}commands", "x", "[1,99999999999999,{}]", "y", "rubbish", "z", '[2,3,"x"]')
        unknown = '{"key": "openai", "command": "levitate"}'
        redis.command("HSET", f"{BASE}commands", "openai", f"[9999999999999,99999999999999,{unknown}]")
        redis.command("ZADD", f"{BASE}cooldowns", "99999999999999", "rubbish", "99999999999999", "[1,2,3]")
        redis.command("INCR", f"{BASE}revision")
        redis.command("INCR", f"{BASE}generation")
        await meet(first, second)
        assert await first.commands_others(KEY, Command.RESET)
        assert await first.commands_others(KEY, Command.FORCE_OPEN)
        await meet(first, second)
        assert second.commands == [(KEY, Command.FORCE_OPEN, "")]
        assert second.cooldowns == {}


async def test_a_redis_that_refuses_is_no_redis(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    async with replicas(redis, 1) as (first,):
        redis.command("SET", f"{BASE}cooldowns", "of another type")
        first.cools(KEY, "c", 60.0)
        assert not await first.peers.exchange()
        assert not await first.commands_others("openai", Command.RESET)
        redis.command("DEL", f"{BASE}cooldowns")
        assert await first.peers.exchange()
        assert redis.command("EXISTS", f"{BASE}cooldowns") == b":0", "what is refused is not told again and again"


class Nonsense:
    """A Redis that answers, but not as it should."""

    keeps_order = True

    def call(self, command: Any, late: Any = None) -> asyncio.Future[Any]:
        return self.run(None, ())

    def run(self, script: Any, keys: Any, arguments: Any = (), late: Any = None) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(b"yes")
        return future

    async def aclose(self) -> None:
        pass


async def test_a_fault_of_ours_does_not_end_the_exchange(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica("redis://127.0.0.1:1")
    peers = Peers(
        Nonsense(), leases=replica.leases, handler=replica, clock=time.monotonic, wall=time.time, replica="a b"
    )
    assert not await peers.exchange()
    assert not await peers.exchange()
    assert [record.levelname for record in caplog.records if "go" in record.getMessage()] == ["WARNING"]
    assert "unexpected failure" in caplog.text


async def test_lease_requests_that_redis_did_not_hear_are_made_again(redis: RedisProcess) -> None:
    async with replicas(redis, 1) as (first,):
        first.leases.prepare(KEY)
        await first.redis.aclose()
        assert not await first.peers.exchange()
        assert list(first.leases.requests) == [KEY]


@pytest.mark.parametrize("lost", [TELL, HOLD])
async def test_what_a_lost_connection_swallows_is_said_again(redis: RedisProcess, lost: Script) -> None:
    async def break_off() -> None:
        raise RedisError("the connection to Redis was lost")

    async with replicas(redis, 2) as (first, second):
        way = Between(first.redis, break_off, lost)
        peers = Peers(way, leases=first.leases, handler=first, clock=time.monotonic, wall=time.time)
        assert await peers.exchange()
        peers.on_cooldown(CooldownEvent(deployment=KEY, credential="c", seconds=60.0))
        first.leases.prepare(KEY)
        assert not await peers.exchange()
        assert await peers.exchange()
        await meet(second)

        assert set(second.cooldowns) == {(KEY, "c")}
        assert first.leases.may_probe(KEY, 5.0)


async def test_more_leases_than_go_at_once_are_asked_for_in_turn(redis: RedisProcess) -> None:
    async with replicas(redis, 1) as (first,):
        for number in range(100):
            first.leases.prepare(f"openai/{number}")
        await first.peers.exchange()
        assert len(first.leases.requests) == 36
        assert first.leases.wake.is_set()
        await first.peers.exchange()
        assert first.leases.may_probe("openai/99", 5.0)


@pytest.mark.parametrize("is_well", [True, False])
async def test_whatever_ends_the_lifespan_nothing_is_left_open(redis: RedisProcess, is_well: bool) -> None:
    tasks = asyncio.all_tasks()
    replica = Replica(redis.uri if is_well else "redis://127.0.0.1:1", deadline=DEADLINE)

    async def body() -> None:
        async with replica.peers.lifespan():
            await until(lambda: (replica.mode == "shared") is is_well)
            raise RuntimeError("of the body")

    with pytest.raises(RuntimeError, match="of the body"):
        await body()

    assert asyncio.all_tasks() == tasks
    assert not await replica.peers.exchange(), "its connections are closed"
    sockets = psutil.Process().net_connections()
    assert not [
        c for c in sockets if c.status == psutil.CONN_ESTABLISHED and getattr(c.raddr, "port", None) == redis.port
    ]


# Names.

ODD = ['a"b\\c', "{x}:*?[", "наш-модел 🚀", "a b\r\n\x00", "\ud800half", "x" * 500, "%7B", "</script>"]


async def test_odd_names_are_safe(redis: RedisProcess) -> None:
    async with replicas(redis, 2, prefix='p{}"x') as (first, second):
        for number, name in enumerate(ODD, 1):
            shown = name.encode("utf-8", "replace").decode()
            first.cools(f"openai/{name}", name, 30.0)
            assert await first.peers.command(f"openai/{name}", Command.FORCE_OPEN, None, reason=name, actor=name)
            first.leases.prepare(f"openai/{name}")
            await meet(first, second)
            assert len(second.cooldowns) == len(second.commands) == number
            assert (f"openai/{shown}", shown) in second.cooldowns
            assert second.commands[-1] == (f"openai/{shown}", Command.FORCE_OPEN, shown)
            assert first.leases.may_probe(f"openai/{name}", 5.0)
            assert not second.leases.may_probe(f"openai/{name}", 5.0)


async def test_all_keys_are_below_the_prefix_and_all_end(redis: RedisProcess) -> None:
    async with replicas(redis, 2, prefix="team-a") as (first, second), replicas(redis, 1) as (stranger,):
        first.cools(KEY, "c", 30.0)
        await first.commands_others(KEY, Command.FORCE_OPEN, 30)
        first.leases.prepare(KEY)
        await meet(first, second, stranger)
        assert first.leases.may_probe(KEY, 5.0)
        await meet(first, second, stranger)
        assert second.cooldowns
        assert second.commands
        assert stranger.cooldowns == {}
        assert stranger.commands == []
        names = ("mark", "replicas", "generation", "revision", "commands", "cooldowns", f"probe:{KEY}")
        for name in names:
            assert int(redis.command("PTTL", f"team-a:breaker:{{peers}}:{name}")[1:]) > 0, name
        count = redis.command("EVAL", "return #redis.call('KEYS', 'team-a:breaker:*')", "0")
        assert count == b":%d" % len(names)


async def test_the_picture_for_health(redis: RedisProcess) -> None:
    async with replicas(redis, 3) as fleet:
        await meet(*fleet)
        fleet[0].cools("x" * 600, "c", 30.0)
        snapshot = fleet[0].peers.snapshot()
        assert (snapshot.mode, snapshot.replicas, snapshot.dropped) == ("shared", 3, 1)
        assert snapshot.since.timestamp() == pytest.approx(time.time(), abs=10)
