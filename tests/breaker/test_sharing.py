"""Replicas and a real Redis: news arrive, Redis dies, freezes, forgets and comes back."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from gateway_middleware.breaker.peers.sharing import BreakerSharing
from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.breaker.state.transitions import State, Transition, Trigger
from redis_process import BINARY, WHY_SKIPPED, RedisProcess

pytestmark = pytest.mark.anyio

KEY = "openai/gpt-5"


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path_factory.mktemp("redis"))
    yield process
    process.kill()


class Replica:
    """What one replica was told."""

    def __init__(self, uri: str, *, prefix: str = "model-gateway") -> None:
        self.cooldowns: dict[tuple[str | None, str], float] = {}
        self.told = 0
        self.commands: list[tuple[str, Command, str]] = []
        self.lefts: list[float] = []
        self.hints: list[tuple[str, float]] = []
        self.sharing = BreakerSharing(
            uri, on_cooldown=self._cool, on_command=self._obey, on_hint=self._hint, prefix=prefix
        )

    def _cool(self, deployment: str | None, credential: str, seconds: float) -> None:
        self.cooldowns[deployment, credential] = seconds
        self.told += 1

    def _obey(self, key: str, command: Command, left: float, reason: str) -> None:
        self.commands.append((key, command, reason))
        self.lefts.append(left)

    def _hint(self, key: str, seconds: float) -> None:
        self.hints.append((key, seconds))

    @property
    def mode(self) -> str:
        return self.sharing.snapshot().mode


async def until(is_so: Callable[[], bool], *, within: float = 1.0) -> float:
    """Returns how long it took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < within, "it did not come to pass"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


@asynccontextmanager
async def replicas(
    redis: RedisProcess, count: int = 3, *, prefix: str = "model-gateway"
) -> AsyncIterator[list[Replica]]:
    fleet = [Replica(redis.uri, prefix=prefix) for _ in range(count)]
    for replica in fleet:
        replica.sharing.start()
    try:
        await until(lambda: all(replica.mode == "shared" for replica in fleet), within=3)
        yield fleet
    finally:
        for replica in fleet:
            await replica.sharing.aclose()


def opened(key: str = KEY, seconds: float = 10.0, trigger: Trigger = Trigger.TRIP) -> Transition:
    return Transition(
        key=key,
        before=State.CLOSED,
        after=State.OPEN,
        trigger=trigger,
        reason="",
        at=0.0,
        generation=1,
        seconds=seconds,
    )


def closed(key: str = KEY) -> Transition:
    return Transition(
        key=key, before=State.HALF_OPEN, after=State.CLOSED, trigger=Trigger.RECOVERED, reason="", at=0.0, generation=3
    )


# Cooldowns.


async def test_a_cooldown_is_known_to_all_others_and_to_those_that_come_later(redis: RedisProcess) -> None:
    async with replicas(redis) as (first, second, third):
        first.sharing.publish_cooldown(KEY, "openai#0", 30.0)
        first.sharing.publish_cooldown(None, "openai#1", 20.0)
        await until(lambda: len(second.cooldowns) == len(third.cooldowns) == 2)
        async with replicas(redis, 1) as (late,):
            for replica in (second, third, late):
                assert replica.cooldowns == {
                    (KEY, "openai#0"): pytest.approx(30.0, abs=0.5), (None, "openai#1"): pytest.approx(20.0, abs=0.5)
                }  # fmt: skip
        assert first.cooldowns == {}


async def test_the_latest_deadline_wins_whoever_speaks_last(redis: RedisProcess) -> None:
    async with replicas(redis) as (first, second, third):
        first.sharing.publish_cooldown(KEY, "c", 60.0)
        await until(lambda: bool(third.cooldowns))
        second.sharing.publish_cooldown(KEY, "c", 5.0)
        second.sharing.publish_cooldown(KEY, "other", 5.0)
        await until(lambda: len(third.cooldowns) == 2)
        assert third.cooldowns[KEY, "c"] == pytest.approx(60.0, abs=0.5)
        async with replicas(redis, 1) as (late,):
            assert late.cooldowns[KEY, "c"] == pytest.approx(60.0, abs=1.0)
        second.sharing.publish_cooldown(KEY, "c", 90.0)
        await until(lambda: third.cooldowns[KEY, "c"] > 80)


async def test_a_cooldown_ends_by_itself_and_leaves_nothing(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        first.sharing.publish_cooldown(KEY, "c", 0.2)
        await until(lambda: bool(second.cooldowns))
        await asyncio.sleep(0.25)
        assert redis.command("EXISTS", "model-gateway:breaker:{news}:cooldowns") == b":0"


async def test_a_cooldown_that_is_taken_back_is_not_learned_by_those_that_come_later(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        first.sharing.publish_cooldown(None, "c", 60.0)
        await until(lambda: bool(second.cooldowns))
        second.sharing.publish_cooldown(None, "c", 0.0)
        await until(lambda: redis.command("EXISTS", "model-gateway:breaker:{news}:cooldowns") == b":0")
        second.sharing.publish_cooldown(None, "c", 5.0)
        first.cooldowns.clear()
        await until(lambda: first.cooldowns == {(None, "c"): pytest.approx(5.0, abs=0.5)})


async def test_nobody_is_told_twice(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        first.sharing.publish_cooldown(KEY, "c", 60.0)
        await until(lambda: second.told == 1)
        first.sharing.publish_cooldown(KEY, "d", 60.0)
        await until(lambda: second.told == 2)
        await asyncio.sleep(0.6)  # a round of asking
        assert second.told == 2


async def test_what_happened_while_redis_was_away_is_told_when_it_is_back(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        redis.kill()
        await until(lambda: first.mode == "alone" and second.mode == "alone", within=2)
        first.sharing.publish_cooldown(KEY, "c", 30.0)
        redis.start()
        await until(lambda: (KEY, "c") in second.cooldowns, within=3)
        assert second.cooldowns[KEY, "c"] < 30.0


# The operator.


async def test_a_command_reaches_all_within_a_second_and_once(redis: RedisProcess) -> None:
    async with replicas(redis) as (first, second, third):
        for number, command in enumerate(Command, 1):
            assert await first.sharing.send_command(KEY, command, ttl=60, reason="drill", actor="ops")
            took = await until(lambda n=number: len(second.commands) == len(third.commands) == n)  # type: ignore[misc]
            assert took < 0.5
        await asyncio.sleep(0.6)
        assert second.commands == third.commands == [(KEY, command, "drill") for command in Command]
        assert first.commands == []
        assert second.lefts == [pytest.approx(60, abs=0.5)] * len(Command)


async def test_a_replica_that_misses_the_message_catches_up_by_asking(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        # Sent by no script, so that no message says so: the order stands, and the generation has moved.
        base = "model-gateway:breaker:{news}:"
        generation = int(redis.command("INCR", f"{base}generation")[1:])
        order = '{"key": "openai", "command": "force-open", "reason": "missed"}'
        redis.command("HSET", f"{base}orders", "openai", f"[{generation},99999999999999,{order}]")
        took = await until(lambda: bool(second.commands) and bool(first.commands))
        assert second.commands == first.commands == [("openai", Command.FORCE_OPEN, "missed")]
        assert took < 1.0


async def test_a_replica_whose_messages_are_cut_off_hears_the_next_one(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert await first.sharing.send_command(KEY, Command.FORCE_OPEN, ttl=60)
        await until(lambda: bool(second.commands))
        redis.command("CLIENT", "KILL", "TYPE", "normal")
        # A machine under load may need more than the one repetition that a command has.
        while not await first.sharing.send_command(KEY, Command.AUTO):
            await asyncio.sleep(0.05)
        await until(lambda: Command.AUTO in [command for _, command, _ in second.commands])
        await until(lambda: first.mode == second.mode == "shared")


async def test_those_that_come_later_obey_what_stands_in_the_order_it_was_given(redis: RedisProcess) -> None:
    async with replicas(redis, 1) as (first,):
        assert await first.sharing.send_command("openai", Command.FORCE_OPEN, ttl=60)
        assert await first.sharing.send_command(KEY, Command.AUTO, ttl=1)
        assert await first.sharing.send_command("short", Command.FORCE_OPEN, ttl=0.05)
        await asyncio.sleep(0.1)
        async with replicas(redis, 1) as (late,):
            assert [command[:2] for command in late.commands] == [("openai", Command.FORCE_OPEN), (KEY, Command.AUTO)]
            assert late.lefts[1] > 55, "the exception is kept for as long as the rule"


async def test_opposite_commands_at_once_end_the_same_everywhere(redis: RedisProcess) -> None:
    async with replicas(redis) as fleet:
        for round_ in range(10):
            key, states = f"openai/m{round_}", [Command.AUTO] * 3
            sent = [Command.FORCE_OPEN, Command.FORCE_CLOSE]
            states[:2] = sent  # carried out where it was given
            await asyncio.gather(*(fleet[n].sharing.send_command(key, sent[n]) for n in range(2)))
            await until(lambda key=key: any(c[0] == key for c in fleet[2].commands[1:]))  # type: ignore[misc]
            await asyncio.sleep(0.05)
            for n, replica in enumerate(fleet):
                states[n] = next((c[1] for c in reversed(replica.commands) if c[0] == key), states[n])
            assert len(set(states)) == 1, states


async def test_a_reset_ends_the_cooldowns_that_stand(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        for deployment in (KEY, "openai/gpt-5-mini", "openai-eu/gpt-5"):
            first.sharing.publish_cooldown(deployment, "c", 60.0)
        await until(lambda: len(second.cooldowns) == 3)
        await second.sharing.send_command("openai", Command.RESET)
        async with replicas(redis, 1) as (late,):
            assert set(late.cooldowns) == {("openai-eu/gpt-5", "c")}
        await until(lambda: bool(first.commands))
        second.cooldowns.clear()
        first.sharing.publish_cooldown(KEY, "c", 5.0)  # shorter than before the reset, and news all the same
        await until(lambda: (KEY, "c") in second.cooldowns)


# Probes.


async def test_one_probe_in_the_fleet_and_the_next_one_when_it_has_ended(redis: RedisProcess) -> None:
    async with replicas(redis) as fleet:
        gates = [replica.sharing.gate for replica in fleet]
        assert [gate.may_probe(KEY, 5.0) for gate in gates] == [False] * 3, "asked for, not waited for"
        out: list[int] = []
        deadline = time.monotonic() + 0.7
        while time.monotonic() < deadline:
            out += [n for n, gate in enumerate(gates) if n not in out and gate.may_probe(KEY, 5.0)]
            await asyncio.sleep(0.01)
        assert len(out) == 1
        first = out[0]
        gates[first].ended(KEY, again=True)
        assert gates[first].may_probe(KEY, 5.0), "the second in a row needs no second lease"
        gates[first].ended(KEY, again=False)
        others = [gate for n, gate in enumerate(gates) if n != first]
        await until(lambda: any(gate.may_probe(KEY, 5.0) for gate in others))


async def test_a_replica_that_leaves_gives_its_lease_back(redis: RedisProcess) -> None:
    async with replicas(redis, 1) as (second,):
        async with replicas(redis, 1) as (first,):
            await until(lambda: first.sharing.gate.may_probe(KEY, 60.0))
            await asyncio.sleep(0.05)
            assert not second.sharing.gate.may_probe(KEY, 60.0)
        await until(lambda: second.sharing.gate.may_probe(KEY, 60.0))


DYING = """
import asyncio, sys
from gateway_middleware.breaker.peers.sharing import BreakerSharing
async def main():
    ignore = lambda *said: None
    sharing = BreakerSharing(sys.argv[1], on_cooldown=ignore, on_command=ignore, on_hint=ignore)
    sharing.start()
    while sharing.snapshot().mode != "shared" or not sharing.gate.may_probe(sys.argv[2], 1.5):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    print("probing", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_the_lease_of_a_replica_that_is_killed_comes_back_by_itself(redis: RedisProcess) -> None:
    async with replicas(redis, 1) as (other,):
        process = subprocess.Popen([sys.executable, "-c", DYING, redis.uri, KEY], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"probing\n"
        process.kill()
        process.wait()
        process.stdout.close()
        assert not other.sharing.gate.may_probe(KEY, 1.5)
        took = await until(lambda: other.sharing.gate.may_probe(KEY, 1.5), within=2.5)
        assert took > 0.8


async def test_without_redis_each_replica_probes_for_itself(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as fleet:
        redis.kill()
        await until(lambda: all(replica.mode == "alone" for replica in fleet), within=2)
        assert all(replica.sharing.gate.may_probe(KEY, 5.0) for replica in fleet)
        fleet[1].sharing.gate.ended(KEY, again=False)
        redis.start()
        await until(lambda: all(replica.mode == "shared" for replica in fleet), within=3)
        await asyncio.sleep(0.1)
        # The probe that is still out is made known.
        assert not fleet[1].sharing.gate.may_probe(KEY, 5.0)
        await asyncio.sleep(0.1)
        assert not fleet[1].sharing.gate.may_probe(KEY, 5.0)


# Hints.


async def test_a_frozen_redis_holds_nobody_up(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway_middleware")
    async with replicas(redis, 2) as (first, second):
        caplog.clear()
        redis.freeze()
        began = time.monotonic()
        assert not await first.sharing.send_command(KEY, Command.RESET)
        assert time.monotonic() - began < 0.6
        await until(lambda: first.mode == second.mode == "alone", within=2)
        assert first.sharing.gate.may_probe(KEY, 5.0)
        assert not await first.sharing.send_command(KEY, Command.RESET)
        await asyncio.sleep(0.3)
        redis.thaw()
        await until(lambda: first.mode == second.mode == "shared", within=3)
        said = [record.getMessage() for record in caplog.records]
        assert sum("not shared" in line for line in said) == 2
        assert sum("are shared between" in line for line in said) == 2
        assert len(said) == 4
        assert await first.sharing.send_command(KEY, Command.FORCE_OPEN)
        await until(lambda: (KEY, Command.FORCE_OPEN, "operator") in second.commands)


async def test_a_redis_that_has_forgotten_is_told_again(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        await first.sharing.send_command(KEY, Command.FORCE_OPEN, ttl=60)
        first.sharing.publish_cooldown(KEY, "c", 60.0)
        await until(lambda: bool(second.commands) and bool(second.cooldowns))
        for is_killed in (False, True):
            if is_killed:
                redis.kill()
                redis.start()
            else:
                redis.command("FLUSHALL")
            await asyncio.sleep(0.1)
            await until(lambda: first.mode == second.mode == "shared", within=3)
            await until(lambda: redis.command("HLEN", "model-gateway:breaker:{news}:orders") == b":1", within=3)
            await until(lambda: redis.command("EXISTS", "model-gateway:breaker:{news}:cooldowns") == b":1")
            async with replicas(redis, 1) as (late,):
                assert [command[:2] for command in late.commands] == [(KEY, Command.FORCE_OPEN)]
                assert set(late.cooldowns) == {(KEY, "c")}
            assert len(second.commands) == 1
            assert second.told == 1
            assert first.commands == []
        await first.sharing.send_command(KEY, Command.AUTO)
        await until(lambda: second.commands[-1][1] is Command.AUTO)


async def test_without_redis_from_the_start_it_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica("redis://127.0.0.1:1")
    replica.sharing.start()
    await asyncio.sleep(0.7)  # two attempts
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert replica.mode == "alone"
    assert replica.sharing.gate.may_probe(KEY, 5.0)
    replica.sharing.publish_cooldown(KEY, "c", 5.0)
    assert not await replica.sharing.send_command(KEY, Command.RESET)
    await replica.sharing.aclose()


async def test_what_a_callback_raises_ends_nothing(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    async with replicas(redis, 2) as (first, second):
        second.commands = None  # type: ignore[assignment]
        await first.sharing.send_command(KEY, Command.RESET)
        first.sharing.publish_cooldown(KEY, "c", 5.0)
        await until(lambda: bool(second.cooldowns))
        assert "could not be applied" in caplog.text


async def test_rubbish_on_the_channel_and_in_the_keys_is_passed_over(redis: RedisProcess) -> None:
    base = "model-gateway:breaker:{news}:"
    async with replicas(redis, 2) as (first, second):
        for rubbish in ("", "{", '{"orders": [[1]]}', '{"cooldowns": [[["a"], "x"]], "hints": 3}', "\x00"):
            redis.command("PUBLISH", f"{base}channel", rubbish)
        redis.command("HSET", f"{base}orders", "x", "[1,99999999999999,{}]")
        redis.command("ZADD", f"{base}cooldowns", "99999999999999", "rubbish")
        redis.command("INCR", f"{base}revision")
        redis.command("INCR", f"{base}generation")
        await asyncio.sleep(0.7)
        assert await first.sharing.send_command(KEY, Command.FORCE_OPEN)
        await until(lambda: bool(second.commands))
        assert second.commands == [(KEY, Command.FORCE_OPEN, "operator")]


# Names.

ODD = ['a"b\\c', "{x}:*?[", "наш-модел 🚀", "a b\r\n\x00", "\ud800half", "x" * 500, "%7B", "</script>"]


async def test_odd_names_are_safe(redis: RedisProcess) -> None:
    async with replicas(redis, 2, prefix='p{}"x') as (first, second):
        for number, name in enumerate(ODD, 1):
            shown = name.encode("utf-8", "replace").decode()
            first.sharing.publish_cooldown(f"openai/{name}", name, 30.0)
            assert await first.sharing.send_command(f"openai/{name}", Command.FORCE_OPEN, reason=name, actor=name)
            first.sharing.gate.prepare(f"openai/{name}")
            await until(lambda n=number: len(second.cooldowns) == len(second.commands) == n)  # type: ignore[misc]
            assert (f"openai/{shown}", shown) in second.cooldowns
            assert second.commands[-1] == (f"openai/{shown}", Command.FORCE_OPEN, shown)
            assert first.sharing.gate.may_probe(f"openai/{name}", 5.0)
            assert not second.sharing.gate.may_probe(f"openai/{name}", 5.0)


async def test_a_name_beyond_all_measure_is_not_shared(redis: RedisProcess) -> None:
    async with replicas(redis, 2) as (first, second):
        first.sharing.publish_cooldown("x" * 600, "c", 30.0)
        first.sharing.publish_cooldown(KEY, "c", 30.0)
        await until(lambda: bool(second.cooldowns))
        assert list(second.cooldowns) == [(KEY, "c")]
        assert first.sharing.snapshot().dropped == 1


async def test_all_keys_are_below_the_prefix_and_all_but_counters_end(redis: RedisProcess) -> None:
    async with replicas(redis, 2, prefix="team-a") as (first, second), replicas(redis, 1) as (stranger,):
        first.sharing.publish_cooldown(KEY, "c", 30.0)
        await first.sharing.send_command(KEY, Command.FORCE_OPEN, ttl=30)
        await until(lambda: first.sharing.gate.may_probe(KEY, 5.0))
        await until(lambda: bool(second.cooldowns) and bool(second.commands))
        await asyncio.sleep(0.05)
        assert stranger.cooldowns == {}
        assert stranger.commands == []
        names = ("mark", "replicas", "generation", "revision", "orders", "cooldowns", f"probe:{KEY}")
        for name in names:
            assert int(redis.command("PTTL", f"team-a:breaker:{{news}}:{name}")[1:]) > 0, name
        found = redis.command("EVAL", "return #redis.call('KEYS', 'team-a:breaker:*')", "0")
        assert found == b":%d" % len(names)


async def test_the_picture_for_health(redis: RedisProcess) -> None:
    async with replicas(redis, 3) as fleet:
        await until(lambda: all(replica.sharing.snapshot().replicas == 3 for replica in fleet), within=2)
        await fleet.pop().sharing.aclose()
        await until(lambda: fleet[0].sharing.snapshot().replicas == 2, within=2)
        assert fleet[0].sharing.snapshot().since == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize("uri", ["memory://", "http://x", "redis+sentinel://:26379/x", "redis://x:port"])
def test_a_uri_that_is_none(uri: str) -> None:
    with pytest.raises(ValueError):
        Replica(uri)


@pytest.mark.parametrize("uri", ["rediss://u:p@x/1", "redis+cluster://a:1,b:2", "redis+unix:///tmp/r.sock?db=1"])
def test_other_uris_of_redis_are_taken(uri: str) -> None:
    assert Replica(uri).mode == "alone"
