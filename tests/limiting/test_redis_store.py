"""Redis itself: exact over replicas, one round trip, cancelled calls, forgotten scripts, every kind of address."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from gateway_middleware.limiting.limit import Change, Claim, Decision
from gateway_middleware.limiting.reservation import LimitReachedError, Reservations
from gateway_middleware.limiting.store import lua
from gateway_middleware.limiting.store.redis import RedisStore, redis_store, reversal
from gateway_middleware.redis.caller import RedisError, RedisTimeoutError
from limit_cases import claim, fresh, rpm, settled, slots, spend, tpm
from redis_process import BINARY, WHY_SKIPPED, RedisProcess, SlowProxy

pytestmark = pytest.mark.anyio


async def used(store: RedisStore, asked: Claim) -> int:
    decision = await store.admit([Claim(asked.key, asked.limit, 0)], b"reader", is_dry=True)
    return asked.limit.amount - decision.statuses[0].remaining


async def answered(store: RedisStore, asked: Claim) -> None:
    """Wait until Redis answers again."""
    while True:
        try:
            await store.used(asked.key)
        except RedisTimeoutError:
            continue
        return


async def test_three_replicas_admit_exactly_the_limit(shared_redis: RedisProcess) -> None:
    """RL1."""
    replicas = [Reservations(redis_store(shared_redis.uri, deadline=5)) for _ in range(3)]
    asked = [claim(fresh(), rpm(100))]

    async def call(number: int) -> bool:
        try:
            await replicas[number % 3].reserve(asked)
        except LimitReachedError:
            return False
        return True

    admitted = sum(await asyncio.gather(*[call(i) for i in range(600)]))
    for replica in replicas:
        await replica.store.aclose()

    assert admitted == 100


async def test_one_command_for_each_admission(own_redis: RedisProcess) -> None:
    store, tenant = redis_store(own_redis.uri, deadline=5), fresh()
    claims = [claim(tenant, rpm()), claim(tenant, tpm(), 10), claim(tenant, slots()), claim(tenant, spend(), 3)]
    await store.admit(claims, b"warm")
    own_redis.command("CONFIG", "RESETSTAT")
    for number in range(20):
        await store.admit(claims, b"%d" % number)
    text = await stats(own_redis)
    await store.aclose()

    assert "cmdstat_evalsha:calls=20," in text
    assert "cmdstat_eval:" not in text


async def stats(process: RedisProcess) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(b"INFO commandstats\r\n")
    size = int((await reader.readline())[1:])
    text = (await reader.readexactly(size)).decode()
    writer.close()
    await writer.wait_closed()
    return text


async def test_forgotten_scripts_come_back(own_redis: RedisProcess) -> None:
    """RL14: SCRIPT FLUSH and FLUSHALL in full flight."""
    store, asked = redis_store(own_redis.uri, deadline=5), claim(fresh(), tpm(1000), 100)
    for flush in ("SCRIPT", "ALL", "SCRIPT"):
        own_redis.command(*(("SCRIPT", "FLUSH") if flush == "SCRIPT" else ("FLUSHALL",)))
        decision = await store.admit([asked], b"o")
        own_redis.command("SCRIPT", "FLUSH")
        await settled(store.settle(decision, [Change(asked, decision.statuses[0].newest, -90)]))
        own_redis.command("SCRIPT", "FLUSH")
        await settled(store.renew([(claim(fresh(), slots()).key, b"o")]))
        assert await store.heartbeat(b"r") == 1

    assert await used(store, asked) == 20
    await store.aclose()


async def test_every_script_compiles_under_its_name(shared_redis: RedisProcess) -> None:
    for script in (lua.ADMIT, lua.SETTLE, lua.RENEW, lua.RELEASE, lua.REPLICAS, lua.USED):
        assert shared_redis.command("SCRIPT", "LOAD", script.source.decode()) == script.sha


async def test_a_window_expires_with_its_newest_bucket(shared_redis: RedisProcess) -> None:
    """Whether this call has begun it or another one; a settlement changes nothing of that."""
    store, asked = redis_store(shared_redis.uri, deadline=5), claim(fresh(), tpm(1000, seconds=2), 100)
    key = f"gateway:{asked.key}"
    for _ in range(8):
        decision = await store.admit([asked], b"o")
        assert 2_000 < int(shared_redis.command("PTTL", key)[1:]) <= 3_034
        await settled(store.settle(decision, [Change(asked, decision.statuses[0].newest, -90)]))
        assert 2_000 < int(shared_redis.command("PTTL", key)[1:]) <= 3_034
        await asyncio.sleep(0.02)
    assert await used(store, asked) == 80
    shared_redis.command("SET", key, "something of another version")
    assert await used(store, asked) == 0
    await store.aclose()


async def test_a_settlement_of_a_period_counts_once(shared_redis: RedisProcess) -> None:
    store, asked = redis_store(shared_redis.uri, deadline=5), claim(fresh(), spend(1000), 100)
    decision = await store.admit([asked], fresh().encode())
    for _ in range(3):
        await settled(store.settle(decision, [Change(asked, decision.statuses[0].newest, -40)]))

    assert await used(store, asked) == 60
    await store.aclose()


async def test_heartbeats_count_replicas(own_redis: RedisProcess) -> None:
    store = redis_store(own_redis.uri, deadline=5)
    assert [await store.heartbeat(name) for name in (b"a", b"b", b"a", b"c")] == [1, 2, 2, 3]
    await store.aclose()


async def test_keys_expire_by_themselves(own_redis: RedisProcess) -> None:
    store, tenant = redis_store(own_redis.uri, deadline=5), fresh()
    claims = [claim(tenant, rpm(10, seconds=1)), claim(tenant, slots()), claim(tenant, spend())]
    await settled(store.settle(await store.admit(claims, b"o"), [Change(claims[2], None, 5)]))
    for asked, most in ((claims[0], 3_100), (claims[1], 31_000), (claims[2], 32 * 86_400_000)):
        left = int(own_redis.command("PTTL", f"gateway:{asked.key}")[1:])
        assert 0 < left <= most
    await store.aclose()


async def test_cancelled_calls_cross_nothing_and_leak_nothing(own_redis: RedisProcess) -> None:
    """RL16 and RL11: 50 tenants with limits of their own, calls cancelled at any moment."""
    random.seed(16)
    tenants = [fresh() for _ in range(50)]
    limits = {tenant: rpm(10_000 + number) for number, tenant in enumerate(tenants)}
    async with SlowProxy(own_redis.port, 0.02) as uri:
        store = redis_store(uri, deadline=2)
        reservations = Reservations(store)

        async def call(tenant: str) -> int:
            asked = [claim(tenant, limits[tenant]), claim(tenant, slots(10_000))]
            reservation = await reservations.reserve(asked)
            shown = [s.claim.limit.amount for s in reservation.decision.statuses]
            assert shown == [limits[tenant].amount, 10_000]
            assert reservation.decision.statuses[0].remaining > 9_000
            await reservation.settle()
            return 1

        tasks = [asyncio.create_task(call(random.choice(tenants))) for _ in range(1500)]
        for task in tasks[::2]:
            asyncio.get_running_loop().call_later(random.random() * 0.1, task.cancel)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [d for d in done if isinstance(d, BaseException) and not isinstance(d, asyncio.CancelledError)]
        cancelled = sum(isinstance(d, asyncio.CancelledError) for d in done)
        await store.admit([claim("last", rpm())], b"last")  # all that was undone has been sent before this
        held = [await store.admit([claim(t, slots(10_000))], b"x", is_dry=True) for t in tenants]
        await store.aclose()

    assert failures == []
    assert cancelled > 200
    assert [d.statuses[0].remaining for d in held] == [10_000] * 50


async def test_a_late_answer_is_undone(own_redis: RedisProcess) -> None:
    asked = [claim(fresh(), tpm(1000), 600), claim(fresh(), slots(1))]
    async with SlowProxy(own_redis.port, 0.1) as uri:
        store = redis_store(uri, deadline=0.05)
        # The connection itself is quick; only answers take longer than the deadline.
        with pytest.raises(RedisTimeoutError):
            await store.admit(asked, b"o")
        await asyncio.sleep(0.25)
        await store.aclose()
    direct = redis_store(own_redis.uri, deadline=5)

    assert [await used(direct, c) for c in asked] == [0, 0]
    await direct.aclose()


async def test_a_frozen_redis_fails_within_the_deadline_and_heals(own_redis: RedisProcess) -> None:
    store, asked = redis_store(own_redis.uri), claim(fresh(), rpm())
    loop = asyncio.get_running_loop()
    await store.admit([asked], b"o")
    own_redis.freeze()
    began = loop.time()
    outcomes = await asyncio.gather(*[store.admit([asked], b"o") for _ in range(50)], return_exceptions=True)
    took = loop.time() - began
    own_redis.thaw()
    await answered(store, asked)  # replies come in order: those that were too late are undone by then
    healed = await store.admit([asked], b"o")
    await store.aclose()

    assert all(isinstance(o, RedisTimeoutError) for o in outcomes)
    assert 0.045 <= took < 50 * 0.05  # one deadline for all of them, not one after the other
    assert healed.statuses[0].remaining == 98  # what came late has been undone


async def test_cancelled_after_the_answer_has_come(shared_redis: RedisProcess) -> None:
    """The reply is there, the task has not run yet: what was taken goes back."""
    store, one = redis_store(shared_redis.uri, deadline=5), claim(fresh(), slots(1))
    await store.admit([claim(fresh(), rpm())], b"warm")
    task = asyncio.create_task(store.admit([one], b"o"))
    while (waited := getattr(task, "_fut_waiter", None)) is None or not waited.done():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await used(store, one) == 0
    await store.aclose()


async def test_a_refusal_of_redis_is_a_store_error(own_redis: RedisProcess) -> None:
    store, asked = redis_store(own_redis.uri, deadline=5), claim(fresh(), rpm())
    own_redis.command("SADD", f"gateway:{asked.key}", "x")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await store.admit([asked], b"o")
    sent = store.settle(Decision(True, (), b"o"), [Change(asked, None, 5)])
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await settled(sent)
    await store.aclose()


async def test_a_failover_is_followed(own_redis: RedisProcess) -> None:
    """RL14: a master that became a replica is left; the next call connects anew."""
    store, asked = redis_store(own_redis.uri, deadline=1), claim(fresh(), rpm())
    await store.admit([asked], b"o")
    own_redis.command("REPLICAOF", "127.0.0.1", "1")
    own_redis.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
    with pytest.raises(RedisError, match="READONLY"):
        await store.admit([asked], b"o")
    before = int(await connections(own_redis))
    own_redis.command("REPLICAOF", "NO", "ONE")
    await asyncio.sleep(0.01)
    decision = await store.admit([asked], b"o")
    await store.aclose()

    assert decision.statuses[0].remaining == 98
    assert int(await connections(own_redis)) > before + 1


async def connections(process: RedisProcess) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(b"INFO stats\r\n")
    size = int((await reader.readline())[1:])
    text = (await reader.readexactly(size)).decode()
    writer.close()
    await writer.wait_closed()
    return text.partition("total_connections_received:")[2].split()[0]


async def test_cluster_takes_tag_by_tag(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path, cluster_enabled="yes")
    store = redis_store(f"redis+cluster://127.0.0.1:{process.port}", deadline=5)
    try:
        process.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        while b"ok" not in process.command("CLUSTER", "INFO"):
            await asyncio.sleep(0.02)
        reservations, tenant, group = Reservations(store), fresh(), fresh("group")
        mine, ours = claim(tenant, tpm(1000), 100), claim(group, slots(1))
        reservation = await reservations.reserve([mine, ours])
        with pytest.raises(LimitReachedError) as caught:
            await reservations.reserve([mine, ours])
        assert caught.value.limit_status.claim is ours
        await reservation.settle(tokens=30)
        await store.admit([claim(tenant, rpm())], b"after")
        assert [await used(store, mine), await used(store, ours)] == [30, 0]
    finally:
        await store.aclose()
        process.kill()


async def test_sentinel(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path)
    (tmp_path / "sentinel.conf").write_text(f"sentinel monitor mymaster 127.0.0.1 {process.port} 1\n")
    sentinel = RedisProcess(tmp_path, mode="sentinel")
    store = redis_store(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster", deadline=5)
    try:
        assert (await store.admit([claim(fresh(), rpm())], b"o")).is_admitted
    finally:
        await store.aclose()
        sentinel.kill()
        process.kill()


def test_reversal_gives_back_what_was_taken() -> None:
    assert reversal(Decision(True, (), b"o")) == []


async def test_a_late_renewal_brings_no_slot_back(own_redis: RedisProcess) -> None:
    """Redis had forgotten the script of renewals: it was sent again after the call had ended."""
    async with SlowProxy(own_redis.port, 0.02) as uri:
        store = redis_store(uri, deadline=5)
        reservations = Reservations(store)
        one, other = claim(fresh(), slots(5)), claim(fresh(), slots(5))
        first, second = await reservations.reserve([one]), await reservations.reserve([other])
        own_redis.command("SCRIPT", "FLUSH")
        await second.settle()  # Redis knows how to settle again
        for _ in range(39):
            await reservations.tick()
        renewing = asyncio.create_task(reservations.tick())  # three times in a lease
        await asyncio.sleep(0.005)
        await first.settle()
        await renewing

        assert await used(store, one) == 0
        await reservations.aclose()
