"""What one process says is heard by every other one, whatever happens to stores and processes in between."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_stores import directory_stores, members, redis_stores
from gateway_middleware.fleet.entries import Entry, Process
from gateway_middleware.fleet.link import INTERVAL
from gateway_middleware.fleet.member import FleetMember
from gateway_middleware.fleet.redis import redis_fleet_store
from redis_process import RedisProcess

pytestmark = pytest.mark.anyio
SOON = 10.0
"""Seconds after which a test that waits for the others has found a fault."""


def heard_by(member: FleetMember, kind: str = "x") -> list[tuple[str, bytes]]:
    """What a member hears from now on."""
    heard: list[tuple[str, bytes]] = []
    member.on(kind, lambda entry: heard.append((entry.key, entry.body)))
    return heard


async def until(condition: Callable[[], object], seconds: float = SOON) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.01)


def test_news_is_looked_for_often_enough_to_act_within_a_second() -> None:
    assert 0 < 2 * INTERVAL <= 1.0  # a look that has just missed it, and the next one


async def test_all_hear_and_nobody_hears_itself(tmp_path: Path) -> None:
    make = directory_stores(tmp_path)
    async with members([make()], [make()], [make()]) as (one, two, three):
        heard = [heard_by(member) for member in (one, two, three)]
        assert await one.publish("x", "k", {"n": 1}, seconds=None)
        await until(lambda: heard[1] and heard[2])
        assert heard == [[], [("k", b'{"n":1}')], [("k", b'{"n":1}')]]
        two.post("x", "k", 2, seconds=None)
        await until(lambda: heard[0] and len(heard[2]) == 2)
        assert [len(each) for each in heard] == [1, 1, 2]


async def test_replicas_hear_each_other_through_redis(shared_redis: RedisProcess) -> None:
    make = redis_stores(shared_redis.uri)
    async with members([make()], [make()], [make()]) as (one, two, three):
        heard = [heard_by(member) for member in (two, three)]
        await one.publish("x", "k", 1, seconds=60.0)
        await until(lambda: all(heard))
        assert {process.pid for process in one.others()} == {os.getpid()}
        assert len(one.others()) == 2


async def test_who_starts_later_hears_what_still_holds(tmp_path: Path) -> None:
    make = directory_stores(tmp_path)
    async with members([make()]) as (one,):
        await one.publish("x", "old", 1, seconds=None)
        await one.publish("x", "gone", 1, seconds=0.01)
        await asyncio.sleep(0.02)
    later = FleetMember([make()], config_hash=lambda: "h")
    heard = heard_by(later)
    async with later.lifespan():
        assert heard == [("old", b"1")]
        assert [entry.key for entry in later.entries("x")] == ["old"]
        assert later.entries("y") == []


async def test_answers_are_collected_and_who_is_silent_is_seen(tmp_path: Path) -> None:
    make = directory_stores(tmp_path)
    async with members([make()], [make()], [make()]) as (one, two, three):
        two.on("question", lambda entry: two.answer(entry, "yes"))
        began = time.monotonic()
        answers = await one.ask("question", {}, within=1.0)
        assert time.monotonic() - began >= 0.9
        assert {name: entry.body for name, entry in answers.items()} == {two.process.id: b'"yes"'}
        three.on("question", lambda entry: three.answer(entry, "no"))
        async with asyncio.timeout(SOON):
            assert set(await one.ask("question", {}, within=3 * SOON)) == {two.process.id, three.process.id}


async def test_who_is_alone_waits_for_nobody(tmp_path: Path) -> None:
    async with members([directory_stores(tmp_path)()]) as (one,):
        async with asyncio.timeout(SOON):
            assert not await one.ask("question", {}, within=3 * SOON)


async def test_a_listener_that_fails_hinders_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Entry) -> None:
        raise RuntimeError("no")

    make = directory_stores(tmp_path)
    async with members([make()], [make()]) as (one, two):
        two.on("x", fail)
        heard = heard_by(two)
        await one.publish("x", "k", 1, seconds=None)
        await until(lambda: heard)
    assert "could not be taken" in caplog.text


async def test_a_redis_that_lost_everything_is_told_again(own_redis: RedisProcess) -> None:
    def make() -> FleetMember:
        return FleetMember([redis_fleet_store(own_redis.uri, deadline=1.0)], config_hash=lambda: "h")

    one = make()
    async with one.lifespan():
        await one.publish("x", "k", 1, seconds=None)
        own_redis.command("FLUSHALL")
        await asyncio.sleep(0.6)
        later = make()
        heard = heard_by(later)
        async with later.lifespan():
            await until(lambda: heard)


async def test_what_could_not_be_said_is_said_when_the_store_is_back(
    own_redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    one, two = (FleetMember([redis_fleet_store(own_redis.uri)], config_hash=lambda: "h") for _ in range(2))
    heard = heard_by(two)
    async with one.lifespan(), two.lifespan():
        own_redis.kill()
        assert not await one.publish("x", "k", 1, seconds=None)
        own_redis.start()
        await until(lambda: heard, 5.0)
    assert caplog.text.count("redis is away") >= 1
    assert "redis is back" in caplog.text


async def test_with_redis_away_workers_still_hear_each_other(tmp_path: Path, own_redis: RedisProcess) -> None:
    make = directory_stores(tmp_path)
    own_redis.kill()
    async with members([make(), redis_fleet_store(own_redis.uri)], [make(), redis_fleet_store(own_redis.uri)]) as (
        one,
        two,
    ):
        heard = heard_by(two)
        assert await one.publish("x", "k", 1, seconds=None)
        await until(lambda: heard)


async def test_each_store_is_a_memory_for_the_others_losses(tmp_path: Path, shared_redis: RedisProcess) -> None:
    make = directory_stores(tmp_path)
    async with members([make()]) as (one,):
        await one.publish("x", "k", 1, seconds=None)
    fresh = redis_stores(shared_redis.uri)
    async with members([make(), fresh()], [fresh()]) as (_, remote):
        await until(lambda: [entry.key for entry in remote.entries("x")] == ["k"])


async def test_a_directory_that_is_removed_is_filled_again(tmp_path: Path) -> None:
    make = directory_stores(tmp_path)
    async with members([make()], [make()]) as (one, two):
        await one.publish("x", "k", 1, seconds=None)
        await until(lambda: two.entries("x"))
        shutil.rmtree(tmp_path / "fleet")
        await asyncio.sleep(0.6)
        later = FleetMember([make()], config_hash=lambda: "h")
        heard = heard_by(later)
        async with later.lifespan():
            await until(lambda: heard)


async def test_who_lives_is_known_and_who_was_killed_is_not_waited_for(tmp_path: Path) -> None:
    make = directory_stores(tmp_path)
    async with members([make()], [make()]) as (one, two):
        await until(lambda: one.others() and two.others())
        (other,) = one.others()
        assert (other.id, other.pid, other.config_hash) == (two.process.id, os.getpid(), "hash")
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            pass
        ghost = Process(
            id="ghost", host=other.host, pid=ended.pid, started=0.0, version="0", config_hash="", machine=other.machine
        )
        elsewhere = Process(id="far", host="far", pid=ended.pid, started=0.0, version="0", config_hash="", machine="x")
        for process in (ghost, elsewhere):
            await one.links[0].store.news(0, process)
        await until(lambda: len(two.others()) == 2)
        assert {process.id for process in two.others()} == {one.process.id, "far"}
    async with members([make()]) as (late,):
        assert {process.id for process in late.others()} == {"far"}


async def test_another_configuration_is_seen_by_the_others(tmp_path: Path) -> None:
    make = directory_stores(tmp_path)
    hashes = ["one"]
    one = FleetMember([make()], config_hash=lambda: hashes[-1])
    async with members([make()]) as (two,), one.lifespan():
        await until(lambda: [process.config_hash for process in two.others()] == ["one"])
        hashes.append("two")
        await until(lambda: [process.config_hash for process in two.others()] == ["two"])


async def test_what_many_say_at_a_time_is_told_to_the_last_store(tmp_path: Path, own_redis: RedisProcess) -> None:
    make = redis_stores(own_redis.uri)
    async with members([directory_stores(tmp_path)(), make()], [make()]) as (one, other):
        heard = heard_by(other)

        async def say(number: int) -> bool:
            return await one.told([one.post("x", str(number), number, seconds=None)])

        assert all(await asyncio.gather(*(say(number) for number in range(300))))
        await until(lambda: len(heard) == 300)
        assert one.entry_count == other.entry_count == 300
        own_redis.kill()
        assert not await say(300)
        own_redis.start()
        await until(lambda: len(heard) == 301)
        assert await say(301)
