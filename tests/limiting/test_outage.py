"""The store is killed, frozen, flushed, and comes back: limits hold, nobody waits, one line for each change."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Sequence
from typing import ClassVar

import pytest

from clock import Clock
from gateway_middleware.limiting.limit import Change, Claim, Decision, Limit, OutagePolicy
from gateway_middleware.limiting.reservation import LimitReachedError, Reservation, Reservations
from gateway_middleware.limiting.store.fallback import FallbackStore, StoreChange
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.redis import redis_store
from gateway_middleware.redis.caller import RedisError
from limit_cases import claim, fresh, rpm, settled, slots, spend, tpm
from redis_process import RedisProcess, SlowProxy

pytestmark = pytest.mark.anyio


class Network:
    """A shared store whose network can be cut: for one replica's way to it."""

    lease_seconds: ClassVar[float] = 30.0

    def __init__(self, memory: MemoryStore, replicas: set[bytes]) -> None:
        self.keeps_order = False
        self.may_settle = asyncio.Event()
        self.may_settle.set()
        self.memory = memory
        self.replicas = replicas
        self.is_cut = False
        self.is_closed = False
        self.calls = 0

    async def _pass(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.is_cut:
            raise RedisError("cut")

    async def admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False) -> Decision:
        await self._pass()
        return self.memory.admit(claims, owner, is_dry=is_dry)

    def settle(self, decision: Decision, changes: Sequence[Change]) -> Awaitable[None]:
        return self._settle(decision, changes)

    async def count(self, owner: bytes, change: Change) -> int:
        await self._pass()
        self.memory.settle(Decision(True, (), owner), [change])
        decision = self.memory.admit([Claim(change.claim.key, change.claim.limit, 0)], owner, is_dry=True)
        return decision.statuses[0].newest

    async def _settle(self, decision: Decision, changes: Sequence[Change]) -> None:
        await self.may_settle.wait()
        await self._pass()
        self.memory.settle(decision, changes)

    async def release(self, leases: Sequence[tuple[str, bytes]]) -> None:
        await self._pass()
        for key, owner in leases:
            self.memory.settle(Decision(True, (), owner), [Change(Claim(key, slots()), None, 0)])

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> Awaitable[None]:
        return self._renew(leases)

    async def _renew(self, leases: Sequence[tuple[str, bytes]]) -> None:
        await self._pass()
        self.memory.renew(leases)

    def tick(self) -> None:
        self.memory.tick()

    async def heartbeat(self, replica: bytes) -> int:
        await self._pass()
        self.replicas.add(replica)
        return len(self.replicas)

    async def aclose(self) -> None:
        self.is_closed = True


class Cluster:
    """Three replicas on one shared store."""

    def __init__(self, size: int = 3) -> None:
        self.clock = Clock(60_000)
        self.memory = MemoryStore(clock=self.clock, wall=self.clock)
        self.changes: list[StoreChange] = []
        names = {b"r%d" % i for i in range(size)}
        self.networks = [Network(self.memory, names) for _ in range(size)]
        self.stores = [
            FallbackStore(
                network, MemoryStore(clock=self.clock, wall=self.clock), replica=b"r%d" % i, clock=self.clock,
                on_change=self.changes.append,
            )
            for i, network in enumerate(self.networks)
        ]  # fmt: skip
        self.reservations = [Reservations(store) for store in self.stores]

    def cut(self, *, is_cut: bool = True) -> None:
        for network in self.networks:
            network.is_cut = is_cut

    async def tick(self) -> None:
        for reservations in self.reservations:
            await reservations.tick()

    async def flood(self, claims: Sequence[Claim], calls: int) -> list[Reservation]:
        """Calls spread over the replicas in turn; returns what was admitted."""
        found = []
        for number in range(calls):
            try:
                found.append(await self.reservations[number % len(self.reservations)].reserve(claims))
            except LimitReachedError:
                continue
        return found


async def test_a_start_waits_until_the_store_has_been_found_and_counts_that_as_no_failure() -> None:
    cluster = Cluster()
    network, store = cluster.networks[0], cluster.stores[0]
    network.is_cut = True
    opening = asyncio.create_task(store.open())
    while network.calls < 2:
        await asyncio.sleep(0)
    network.is_cut = False
    await opening
    assert (store.replicas, store.failures, store.is_degraded) == (3, 0, False)
    assert network.calls == 2


async def test_a_start_without_the_store_does_not_wait_for_ever() -> None:
    cluster = Cluster()
    cluster.cut()
    await cluster.stores[0].open()
    assert cluster.networks[0].calls == 5
    assert cluster.stores[0].failures == 0


async def test_shares_during_an_outage_and_one_line_for_each_change() -> None:
    """RL13: over three replicas never more than the limit, also in the window that periods the cut."""
    cluster, asked = Cluster(), [claim(fresh(), rpm(300))]
    await cluster.tick()
    before = len(await cluster.flood(asked, 90))
    cluster.cut()
    during = len(await cluster.flood(asked, 900))

    assert before == 90
    assert 190 <= during <= 210
    assert [c.is_degraded for c in cluster.changes] == [True] * 3
    assert {c.replicas for c in cluster.changes} == {3}
    calls = sum(n.calls for n in cluster.networks)
    await cluster.flood(asked, 300)
    assert sum(n.calls for n in cluster.networks) == calls  # nobody waits for a store that is out


async def test_after_the_outage_the_store_learns_what_was_admitted() -> None:
    """RL14: the window that periods the return holds no more than the limit."""
    cluster, asked = Cluster(), [claim(fresh(), rpm(300))]
    await cluster.tick()
    cluster.cut()
    during = len(await cluster.flood(asked, 200))
    cluster.cut(is_cut=False)
    for _ in range(2):
        cluster.clock.advance(3.1)
        await cluster.tick()
    after = len(await cluster.flood(asked, 900))

    assert [c.is_degraded for c in cluster.changes] == [True] * 3 + [False] * 3
    assert during == 200
    assert during + after == 300
    assert cluster.memory.used(asked[0].key) == 300


async def test_the_first_to_come_back_takes_no_room_that_others_have_taken() -> None:
    """RL14: replicas see the return one after another, each at its own probe."""
    cluster, asked = Cluster(), [claim(fresh(), rpm(300))]
    await cluster.tick()
    cluster.cut()
    admitted = len(await cluster.flood(asked, 900))
    cluster.cut(is_cut=False)
    for _ in range(24):
        for reservations in cluster.reservations:
            cluster.clock.advance(0.25 / 3)
            await reservations.tick()
            for each in cluster.reservations:
                admitted += await taken(each, asked, 100)
    assert [c.is_degraded for c in cluster.changes] == [True] * 3 + [False] * 3
    assert admitted == cluster.memory.used(asked[0].key) == 300


async def test_slots_that_are_held_by_shares_are_told_before_the_store_decides_again() -> None:
    cluster, asked = Cluster(), [claim(fresh(), slots(12))]
    await cluster.tick()
    cluster.cut()
    held = await cluster.flood(asked, 60)
    assert len(held) == 12
    await held.pop().settle()
    cluster.cut(is_cut=False)
    for _ in range(24):
        for reservations in cluster.reservations:
            cluster.clock.advance(0.25 / 3)
            await reservations.tick()
            with contextlib.suppress(LimitReachedError):
                held.append(await reservations.reserve(asked))
            assert len(held) <= 12
    assert [c.is_degraded for c in cluster.changes] == [True] * 3 + [False] * 3
    for reservation in held:
        await reservation.settle()
    await cluster.tick()
    assert cluster.memory.used(asked[0].key) == 0


async def test_a_store_that_goes_again_at_once_has_not_come_back() -> None:
    cluster, asked = Cluster(), [claim(fresh(), rpm(300))]
    await cluster.tick()
    cluster.cut()
    await cluster.flood(asked, 20)
    for is_cut in (False, True, False, False):
        cluster.cut(is_cut=is_cut)
        cluster.clock.advance(1.1)
        await cluster.tick()
    assert [c.is_degraded for c in cluster.changes] == [True] * 3
    cluster.clock.advance(2.0)
    await cluster.tick()
    assert [c.is_degraded for c in cluster.changes] == [True] * 3 + [False] * 3


async def test_a_store_that_closes_while_it_comes_back_tells_what_it_knows() -> None:
    cluster, asked = Cluster(), [claim(fresh(), rpm(300))]
    await cluster.tick()
    cluster.cut()
    admitted = len(await cluster.flood(asked, 30))
    cluster.cut(is_cut=False)
    cluster.clock.advance(1.1)
    await cluster.tick()
    admitted += len(await cluster.flood(asked, 30))
    assert all(store.is_degraded for store in cluster.stores)
    for store in cluster.stores:
        await store.aclose()

    assert cluster.memory.used(asked[0].key) == admitted == 60


async def taken(reservations: Reservations, claims: Sequence[Claim], calls: int) -> int:
    """How many of so many calls one replica lets in."""
    admitted = 0
    for _ in range(calls):
        with contextlib.suppress(LimitReachedError):
            await reservations.reserve(claims)
            admitted += 1
    return admitted


async def test_settled_use_is_what_is_told() -> None:
    cluster = Cluster(1)
    tenant = fresh()
    claims = [claim(tenant, tpm(10_000), 1000), claim(tenant, spend(1_000_000), 500)]
    await cluster.tick()
    cluster.cut()
    reservations = await cluster.flood(claims, 6)
    for reservation in reservations[:4]:
        await reservation.settle(tokens=100, spend=50)
    cluster.cut(is_cut=False)
    cluster.clock.advance(1.1)
    await cluster.tick()
    assert [cluster.memory.used(c.key) for c in claims] == [2_400, 1_200]
    for reservation in reservations[4:]:
        await reservation.settle(tokens=2_000, spend=100)
    cluster.clock.advance(1.1)
    await cluster.tick()

    assert [cluster.memory.used(c.key) for c in claims] == [4_400, 400]


async def test_a_failure_or_two_is_no_outage() -> None:
    cluster, asked = Cluster(1), [claim(fresh(), rpm(100))]
    await cluster.tick()
    for _ in range(3):
        cluster.cut()
        await cluster.flood(asked, 4)
        cluster.cut(is_cut=False)
        await cluster.flood(asked, 1)
    cluster.clock.advance(6)
    await cluster.tick()

    assert cluster.changes == []
    assert cluster.memory.used(asked[0].key) == 15


async def test_a_restart_of_the_store_is_told_once_even_when_telling_fails() -> None:
    cluster, asked = Cluster(1), [claim(fresh(), rpm(100))]
    await cluster.tick()
    cluster.cut()
    await cluster.flood(asked, 20)
    for _ in range(3):
        cluster.clock.advance(1.1)
        await cluster.tick()
    cluster.cut(is_cut=False)
    for _ in range(3):
        cluster.clock.advance(6)
        await cluster.tick()

    assert cluster.memory.used(asked[0].key) == 20
    assert [c.is_degraded for c in cluster.changes] == [True, False]


async def test_what_could_not_be_told_is_told_once_later() -> None:
    """The store goes again in the middle of the telling."""
    cluster, tenants = Cluster(1), [fresh() for _ in range(5)]
    asked = [claim(tenant, spend(1000), 100) for tenant in tenants]
    await cluster.tick()
    cluster.cut()
    for one in asked:
        await cluster.flood([one], 2)
    await cluster.flood([claim(fresh(), rpm())], 5)
    store, network = cluster.stores[0], cluster.networks[0]
    heartbeats = network.heartbeat

    async def heartbeat_and_gone(replica: bytes) -> int:
        network.is_cut = False
        found = await heartbeats(replica)
        network.is_cut = True
        return found

    network.heartbeat = heartbeat_and_gone  # type: ignore[method-assign]
    for _ in range(3):
        cluster.clock.advance(1.1)
        await cluster.tick()
        assert store.is_degraded
    network.heartbeat = heartbeats  # type: ignore[method-assign]
    network.is_cut = False
    for _ in range(3):
        cluster.clock.advance(6)
        await cluster.tick()

    assert [cluster.memory.used(one.key) for one in asked] == [200] * 5


async def test_leases_that_cannot_be_renewed_count_as_a_failure() -> None:
    cluster, asked = Cluster(1), [claim(fresh(), slots(4))]
    await cluster.tick()
    held = await cluster.flood(asked, 1)
    cluster.cut()
    for _ in range(40):
        await cluster.tick()

    assert cluster.stores[0].failures >= 1
    assert len(held) == 1


async def test_slots_are_followed_through_an_outage() -> None:
    cluster, asked = Cluster(1), [claim(fresh(), slots(4))]
    await cluster.tick()
    held = await cluster.flood(asked, 2)
    cluster.cut()
    held += await cluster.flood(asked, 9)
    assert len(held) == 4
    await held.pop().settle()
    await held.pop(0).settle()
    held += await cluster.flood(asked, 9)
    assert len(held) == 4
    cluster.cut(is_cut=False)
    cluster.clock.advance(1.1)
    await cluster.tick()
    assert cluster.memory.used(asked[0].key) == 4  # what lives, and no other
    await held.pop().settle()
    for _ in range(40):
        await cluster.tick()
    assert cluster.memory.used(asked[0].key) == 3
    assert len(held) == 3


@pytest.mark.parametrize(("policy", "admitted"), [("share", 10), ("open", 30), ("closed", 0)])
async def test_policies(policy: str, admitted: int) -> None:
    cluster, tenant = Cluster(1), fresh()
    strict = Limit(name="rpm", amount=10, length=60, on_outage=OutagePolicy(policy))
    claims = [claim(tenant, tpm(1000)), claim(tenant, strict)]
    await cluster.tick()
    cluster.cut()
    found = await cluster.flood(claims, 30)

    assert len(found) == admitted
    assert cluster.stores[0]._local.used(claims[0].key) == admitted  # noqa: SLF001  # what it fell back to
    if policy == "closed":
        with pytest.raises(LimitReachedError) as caught:
            await cluster.reservations[0].reserve(claims)
        assert caught.value.http_status == 429
        assert caught.value.retry_after == 1.0


async def test_settlements_of_calls_that_outlive_the_store() -> None:
    """Leases and periods are told later, once; windows heal by themselves."""
    cluster, tenant = Cluster(1), fresh()
    claims = [claim(tenant, slots(2)), claim(tenant, spend(1000), 100), claim(tenant, rpm())]
    await cluster.tick()
    held = await cluster.flood(claims, 2)
    cluster.cut()
    await held[0].settle(spend=10)
    await cluster.flood([claim(fresh(), rpm())], 5)
    assert cluster.stores[0].is_degraded
    await held[1].settle(spend=20)
    cluster.cut(is_cut=False)
    cluster.clock.advance(1.1)
    await cluster.tick()

    assert [cluster.memory.used(c.key) for c in claims] == [0, 30, 2]


async def test_nobody_waits_for_a_settlement_that_later_calls_find_done() -> None:
    """Where the shared store keeps order: the store waits for it, and tells again what has failed."""
    cluster, tenant = Cluster(1), fresh()
    store, network = cluster.stores[0], cluster.networks[0]
    claims = [claim(tenant, slots(2)), claim(tenant, spend(1000), 100)]
    await cluster.tick()
    held = await cluster.flood(claims, 2)
    network.keeps_order = True
    network.may_settle.clear()
    for reservation in held:
        await reservation.settle(spend=10)
    assert [cluster.memory.used(c.key) for c in claims] == [2, 200]
    assert store.untold == 2
    network.is_cut = True
    network.may_settle.set()
    await asyncio.sleep(0.01)  # both have failed
    network.is_cut = False
    cluster.clock.advance(1.1)
    await cluster.tick()

    assert [cluster.memory.used(c.key) for c in claims] == [0, 20]
    assert store.untold == 0


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_store_that_closes_ends_the_settlements_under_way(is_cut: bool) -> None:
    """Also those that fail while it waits: they are among its last words."""
    cluster, tenant = Cluster(1), fresh()
    store, network = cluster.stores[0], cluster.networks[0]
    claims = [claim(tenant, slots(2)), claim(tenant, spend(1000), 100)]
    await cluster.tick()
    held = await cluster.flood(claims, 1)
    network.keeps_order = True
    network.may_settle.clear()
    await held[0].settle(spend=10)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    network.is_cut = is_cut
    asyncio.get_running_loop().call_soon(network.may_settle.set)
    while store.failures < is_cut:
        await asyncio.sleep(0)
    network.is_cut = False
    await closing

    assert network.is_closed
    assert [cluster.memory.used(c.key) for c in claims] == [0, 10]
    assert store.untold == 0


async def test_the_next_call_finds_the_slot_free_whatever_redis_takes_to_say_so(own_redis: RedisProcess) -> None:
    async with SlowProxy(own_redis.port, 0.002) as uri:
        shared = redis_store(uri, deadline=5)
        store = FallbackStore(shared, MemoryStore(), replica=b"r", clock=asyncio.get_running_loop().time)
        reservations, asked = Reservations(store), [claim(fresh(), slots(1)), claim(fresh(), tpm(100), 60)]
        for _ in range(30):
            reservation = await reservations.reserve(asked)
            assert not reservation.decision.is_degraded
            ended = reservation.end(tokens=0)
            assert ended is None
        await store.aclose()


async def test_a_frozen_redis_costs_five_calls_a_deadline_and_nobody_an_error(own_redis: RedisProcess) -> None:
    """RL13 on a real Redis."""
    changes: list[StoreChange] = []
    shared = redis_store(own_redis.uri)
    clock = asyncio.get_running_loop().time
    store = FallbackStore(shared, MemoryStore(), replica=b"r", clock=clock, on_change=changes.append)
    reservations, asked = Reservations(store), [claim(fresh(), rpm(1000))]
    await reservations.tick()
    await reservations.reserve(asked)
    own_redis.freeze()
    for _ in range(30):
        await reservations.reserve(asked)
    assert store.failures == 5  # each of them is a deadline; nobody else has waited
    own_redis.thaw()
    await asyncio.sleep(1.05)
    await reservations.tick()
    back = await reservations.reserve(asked)
    await shared.aclose()

    assert [c.is_degraded for c in changes] == [True, False]
    assert not back.decision.is_degraded
    assert back.decision.statuses[0].remaining == 1000 - 32


async def test_a_killed_redis_that_comes_back_empty(own_redis: RedisProcess) -> None:
    """RL14."""
    clock = Clock()
    changes: list[StoreChange] = []
    shared = redis_store(own_redis.uri)
    store = FallbackStore(shared, MemoryStore(), replica=b"r", clock=clock, on_change=changes.append)
    reservations, asked = Reservations(store), [claim(fresh(), rpm(100)), claim(fresh(), slots(50))]
    await reservations.tick()
    held = [await reservations.reserve(asked) for _ in range(10)]
    own_redis.kill()
    held += [await reservations.reserve(asked) for _ in range(20)]
    own_redis.start()
    for _ in itertools.takewhile(lambda _: store.is_degraded, range(100)):
        await asyncio.sleep(0.02)
        clock.advance(2)
        await reservations.tick()
    for _ in range(40):
        await reservations.tick()
    after = await reservations.decide(asked, is_dry=True)
    for reservation in held:
        await reservation.settle()
    end = await reservations.decide(asked, is_dry=True)
    await shared.aclose()

    assert [c.is_degraded for c in changes] == [True, False]
    assert [s.remaining for s in after.statuses] == [80, 20]
    assert [s.remaining for s in end.statuses] == [80, 50]


@pytest.mark.parametrize(("min_replicas", "admitted"), [(1, 100), (4, 25)])
async def test_redis_away_at_start(min_replicas: int, admitted: int) -> None:
    """Nobody has counted the replicas yet: the number that was configured counts."""
    memory, clock = MemoryStore(), Clock()
    network = Network(memory, set())
    network.is_cut = True
    store = FallbackStore(network, MemoryStore(), replica=b"r", clock=clock, min_replicas=min_replicas)
    reservations, asked = Reservations(store), [claim(fresh(), rpm(100))]
    await reservations.tick()

    assert sum([(await reservations.decide(asked)).is_admitted for _ in range(150)]) == admitted
    assert store.replicas == min_replicas


async def test_the_last_known_count_is_more_than_the_configured_one() -> None:
    store = FallbackStore(
        Network(MemoryStore(), {b"a", b"b"}), MemoryStore(), replica=b"r", clock=Clock(), min_replicas=2
    )
    await store.tick()

    assert store.replicas == 3


class Broken:
    """A shared store with a fault of its own in every method."""

    lease_seconds: ClassVar[float] = 30.0
    keeps_order: ClassVar[bool] = False

    def admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False) -> Decision:
        raise AttributeError("'Handle' object has no attribute 'when'")

    def settle(self, decision: Decision, changes: Sequence[Change]) -> None:
        raise ZeroDivisionError

    async def count(self, owner: bytes, change: Change) -> int:
        raise KeyError(owner)

    async def release(self, leases: Sequence[tuple[str, bytes]]) -> None:
        raise KeyError

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> None:
        raise RuntimeError

    def tick(self) -> None:
        raise RuntimeError

    async def heartbeat(self, replica: bytes) -> int:
        raise TypeError

    async def aclose(self) -> None:
        self.is_closed = True


async def test_whatever_the_store_raises_no_call_fails(caplog: pytest.LogCaptureFixture) -> None:
    clock, broken = Clock(), Broken()
    store = FallbackStore(broken, MemoryStore(clock=clock), replica=b"r", clock=clock)
    reservations, claims = Reservations(store), [claim(fresh(), rpm(100)), claim(fresh(), slots(5))]
    held = [await reservations.reserve(claims) for _ in range(3)]
    taken_there = Decision(True, held[0].decision.statuses, b"o")
    await settled(store.renew([(claims[1].key, b"o")]))
    await settled(store.settle(taken_there, [Change(claims[1], None, 0)]))
    for _ in range(3):
        clock.advance(1.1)
        await reservations.tick()
    for reservation in held:
        await reservation.settle()
    await store.aclose()

    assert (await reservations.decide(claims, is_dry=True)).statuses[1].remaining == 5
    assert store.is_degraded
    assert broken.is_closed
    assert "Unexpected failure" in caplog.text


async def test_what_is_owed_is_told_before_the_end() -> None:
    cluster, asked = Cluster(1), [claim(fresh(), rpm(100))]
    await cluster.tick()
    cluster.cut()
    await cluster.flood(asked, 3)
    cluster.cut(is_cut=False)
    await cluster.stores[0].aclose()

    assert cluster.memory.used(asked[0].key) == 3
    assert cluster.networks[0].is_closed


async def test_calls_that_end_during_an_outage_are_settled_after_it() -> None:
    """They were admitted by the shared store: what they did not use goes back where it was taken, slots too."""
    cluster, tenant = Cluster(1), fresh()
    claims = [claim(tenant, tpm(10_000), 1000), claim(tenant, spend(10_000), 500), claim(tenant, slots(9))]
    await cluster.tick()
    held = await cluster.flood(claims, 4)
    cluster.cut()
    await cluster.flood([claim(fresh(), rpm(100))], 10)
    for reservation in held:
        await reservation.settle(tokens=100, spend=600)
    assert cluster.stores[0].is_degraded
    cluster.cut(is_cut=False)
    cluster.clock.advance(1.1)
    await cluster.tick()

    assert [cluster.memory.used(c.key) for c in claims] == [400, 2400, 0]
    assert cluster.stores[0].untold == 0
