"""Every event arrives, whatever the consumer does. Time is moved, not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import formatdate
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.core.clocks import Clocks
from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.delivery.backoff import Backoff, BatchSize
from gateway_middleware.metering.delivery.delivery import Delivery
from gateway_middleware.metering.delivery.responses import SinkResponse, classify, retry_after
from gateway_middleware.metering.delivery.sink_client import SinkClient
from gateway_middleware.metering.usage_event import UsageEvent, UsageSource
from gateway_middleware.simulator.collector import Collector, Fault
from gateway_middleware.upstream.engine import Engine
from gateway_middleware.upstream.httpx_exchange import HttpxExchange
from redis_process import free_port

pytestmark = pytest.mark.anyio

URL = "http://usage-metering.test/canary-path?key=canary-query"
TOKEN = "canary-token"
EPOCH = 1_700_000_000.0
SOURCE = "/model-gateway/test"


def usage_event(number: int) -> UsageEvent:
    return UsageEvent(
        id=f"req_{number:06d}.1",
        time=EPOCH + number / 1000,
        tenant=f"tenant-{number % 3}",
        provider="openai",
        deployment="openai/gpt-5-mini",
        model="fast",
        surface="chat",
        request_id=f"req_{number:06d}",
        outcome="success",
        usage=Usage(input_tokens=number, output_tokens=2),
        usage_source=UsageSource.PROVIDER,
        cost="0.001",
    )


class MemorySpool:
    """Called from threads, as a spool on a disk is."""

    def __init__(self, events: Sequence[UsageEvent] = ()) -> None:
        self._lock = threading.Lock()
        self.waiting = {event.id: event for event in events}
        self.given: list[str] = []
        self.buried: dict[str, str] = {}
        self.failures = self.failures_of_delivered = self.reads = 0

    def add(self, *events: UsageEvent) -> None:
        with self._lock:
            self.waiting.update({event.id: event for event in events})

    def pending(self, limit: int, *, exclude: frozenset[str]) -> list[UsageEvent]:
        with self._lock:
            self.reads += 1
            if self.failures:
                self.failures -= 1
                raise OSError("disk")
            return [event for event in self.waiting.values() if event.id not in exclude][:limit]

    def delivered(self, ids: Sequence[str], /) -> None:
        with self._lock:
            if self.failures_of_delivered:
                self.failures_of_delivered -= 1
                raise OSError("disk")
            self.given += ids
            for each in ids:
                del self.waiting[each]

    def dead(self, event_id: str, reason: str, /) -> None:
        with self._lock:
            self.buried[event_id] = reason
            del self.waiting[event_id]


class MovedTime:
    """Sleepers wake when the test moves the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    def wall(self) -> float:
        return EPOCH + self.now

    def pass_until(self, now: float) -> None:
        self.now = now
        for at, sleeper in self.sleepers:
            if at <= now and not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        sleeper = (self.now + seconds, asyncio.get_running_loop().create_future())
        self.sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            self.sleepers.remove(sleeper)


class Post(msgspec.Struct, frozen=True):
    at: float
    ids: tuple[str, ...]
    bodies: dict[str, bytes]
    headers: dict[str, str]


Answer = Callable[[Post], "httpx.Response | Exception"]
_decode_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Rig:
    """A delivery, its spool, its time and a consumer that answers as told."""

    def __init__(self, count: int = 1, answer: Answer = lambda _: httpx.Response(202), **options: Any) -> None:
        self.time = MovedTime()
        self.spool = MemorySpool([usage_event(n) for n in range(count)])
        self.posts: list[Post] = []
        self.answer = answer
        self.gate: asyncio.Event | None = None
        self.open, self.most_open = 0, 0
        chance = options.pop("random", lambda: 1.0)
        moved = self.time
        clocks = Clocks(monotonic=moved.clock, wall=moved.wall, sleep=moved.sleep, random=chance)
        sink = SinkClient(HttpxExchange(httpx.MockTransport(self._receive)), url=URL, token=TOKEN, wall=moved.wall)
        self.delivery = Delivery(self.spool, sink, **{"source": SOURCE, **options}, clocks=clocks)

    async def _receive(self, request: httpx.Request) -> httpx.Response:
        bodies = {msgspec.json.decode(raw)["id"]: bytes(raw) for raw in _decode_batch(request.content)}
        post = Post(self.time.now, tuple(bodies), bodies, dict(request.headers))
        self.posts.append(post)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.gate is not None:
                await self.gate.wait()
            answer = self.answer(post)
        finally:
            self.open -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        task = asyncio.create_task(self.delivery.run())
        try:
            await self.quiet()
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def quiet(self) -> None:
        """Until nothing moves but by time."""
        turns = 0
        async with asyncio.timeout(5):
            while turns < 10:
                await asyncio.sleep(0)
                turns = turns + 1 if self.time.sleepers and not self.delivery.state.in_flight else 0

    async def advance(self, seconds: float) -> None:
        await self.quiet()
        until = self.time.now + seconds
        while self.time.sleepers and (due := min(at for at, _ in self.time.sleepers)) <= until:
            self.time.pass_until(max(due, self.time.now))
            await self.quiet()
        self.time.now = until


def status(code: int, **options: Any) -> Answer:
    return lambda _: httpx.Response(code, **options)


def failing_until(at: float, failure: Answer) -> Answer:
    return lambda post: failure(post) if post.at < at else httpx.Response(202)


async def until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.002)


# What an answer means.


@pytest.mark.parametrize("code", [200, 201, 202, 204, 207, 299, 409])
async def test_it_is_delivered(code: int) -> None:
    async with Rig(1, status(code)).running() as rig:
        await rig.advance(300)

    assert (rig.spool.waiting, rig.spool.buried, len(rig.posts)) == ({}, {}, 1)
    assert (rig.delivery.state.delivered, rig.delivery.state.health) == (1, "ok")


@pytest.mark.parametrize(
    "body", ['{"error": "Duplicate event"}', '{"transaction_id": ["value_already_exist"]}', "already processed"]
)
async def test_a_422_that_says_duplicate_is_delivered(body: str) -> None:
    async with Rig(1, status(422, text=body)).running() as rig:
        assert (rig.spool.given, rig.spool.buried) == (["req_000000.1"], {})


@pytest.mark.parametrize("code", [400, 412, 413, 418, 422, 499])
async def test_a_single_event_that_is_refused_is_dead(code: int) -> None:
    said = f"no {TOKEN}\x1b[31m at {URL}!"
    async with Rig(1, status(code, text=said)).running() as rig:
        await rig.advance(300)

    assert (rig.spool.waiting, len(rig.posts), rig.delivery.state.dead) == ({}, 1, 1)
    assert rig.spool.buried["req_000000.1"] == f"HTTP {code}: no [redacted] [31m at [redacted]!"


@pytest.mark.parametrize("code", [301, 302, 307, 308, 401, 402, 403, 404, 405, 407, 410, 411, 415, 421, 431, 501, 505])
async def test_what_no_event_is_guilty_of_keeps_them_all(code: int) -> None:
    async with Rig(3, status(code, headers={"location": "http://elsewhere.test/"})).running() as rig:
        await rig.advance(120)

    assert (len(rig.spool.waiting), rig.spool.buried) == (3, {})
    assert rig.delivery.state.health == "misconfigured"
    assert all(len(post.ids) == 3 for post in rig.posts)


@pytest.mark.parametrize(
    "failure",
    [*(status(code) for code in (408, 425, 429, 500, 502, 503, 504, 507, 599))]
    + [lambda _, e=error: e("x") for error in (httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError)]
    + [lambda _: RuntimeError(URL), lambda _: OSError(TOKEN)],
)
async def test_what_may_pass_is_waited_for(failure: Answer) -> None:
    async with Rig(3, failing_until(1100, failure)).running() as rig:
        await rig.advance(99)
        assert (rig.delivery.state.health, len(rig.spool.waiting)) == ("failing", 3)
        await rig.advance(61)

    assert (rig.spool.waiting, rig.spool.buried, rig.delivery.state.health) == ({}, {}, "ok")
    assert all(post.bodies == rig.posts[0].bodies for post in rig.posts)


def test_every_status_has_a_meaning() -> None:
    responses = {code: classify(code, b"") for code in range(200, 600)}
    assert [code for code, response in responses.items() if response is SinkResponse.DUPLICATE] == [409]
    assert all(responses[code] is SinkResponse.MISCONFIGURED for code in range(300, 400))
    assert {responses[code] for code in range(500, 600)} == {SinkResponse.RETRY, SinkResponse.MISCONFIGURED}
    assert classify(400, b"duplicate") is SinkResponse.REFUSED


# Parts of a batch.


async def test_one_poison_among_a_hundred() -> None:
    poison = "req_000037.1"
    async with Rig(100, lambda post: httpx.Response(400 if poison in post.ids else 202)).running() as rig:
        assert rig.spool.waiting == {}

    assert list(rig.spool.buried.items()) == [(poison, "HTTP 400")]
    assert len(rig.spool.given) == len(set(rig.spool.given)) == 99
    assert len(rig.posts) <= 2 * 7 + 1


async def test_a_batch_refused_whole_for_a_duplicate_in_it_loses_nothing() -> None:
    known = {"req_000003.1", "req_000009.1"}

    def answer(post: Post) -> httpx.Response:
        if known.isdisjoint(post.ids):
            known.update(post.ids)
            return httpx.Response(202)
        return httpx.Response(409)

    async with Rig(16, answer).running() as rig:
        assert (rig.spool.waiting, rig.spool.buried) == ({}, {})

    assert known == {usage_event(n).id for n in range(16)}


async def test_too_large_batches_are_halved_and_grow_again() -> None:
    limit = 30
    answer: Answer = lambda post: httpx.Response(413 if len(post.ids) > limit else 202)
    async with Rig(100, answer, parallel=1).running() as rig:
        assert [len(post.ids) for post in rig.posts] == [100, 50, 25, 25, 50, 25, 25]
        rig.spool.add(*(usage_event(n) for n in range(100, 600)))
        rig.delivery.notify()
        await rig.advance(1)
        assert [len(post.ids) for post in rig.posts[7:]] == [25] * 20
        assert rig.delivery.state.batch == 25
        limit = 1000
        await rig.advance(5)
        rig.spool.add(*(usage_event(n) for n in range(600, 1100)))
        await rig.advance(1)
        assert [len(post.ids) for post in rig.posts[27:]] == [25, 50, 100, 100, 100, 100, 25]

    assert (rig.spool.waiting, rig.spool.buried, rig.delivery.state.batch) == ({}, {}, 100)


async def test_a_sink_that_never_takes_large_batches_is_asked_in_vain_once_in_five_seconds() -> None:
    answer: Answer = lambda post: httpx.Response(413 if len(post.ids) > 3 else 202)
    rig = Rig(0, answer, linger=0.0)
    async with rig.running():
        for second in range(60):
            rig.spool.add(*(usage_event(second * 100 + n) for n in range(30)))
            rig.delivery.notify()
            await rig.advance(1)

    assert rig.spool.waiting == {}
    in_vain = [post.at for post in rig.posts if len(post.ids) > 3]
    assert len(in_vain) <= 3 + 60 / 5 * 2
    assert len(rig.posts) <= 60 * 15 * 1.1  # batches of two or three


async def test_one_event_that_is_too_large_does_not_make_all_batches_small() -> None:
    answer: Answer = lambda post: httpx.Response(413 if "req_000000.1" in post.ids else 202)
    async with Rig(100, answer).running() as rig:
        assert (rig.spool.waiting, list(rig.spool.buried)) == ({}, ["req_000000.1"])
        assert rig.delivery.state.batch == 50


async def test_an_outage_while_a_batch_is_taken_apart() -> None:
    def answer(post: Post) -> httpx.Response:
        if len(post.ids) > 1:
            return httpx.Response(400)
        return httpx.Response(503 if post.at < 1010 else 400 if post.ids == ("req_000002.1",) else 202)

    async with Rig(4, answer).running() as rig:
        await rig.advance(60)

    assert (rig.spool.waiting, list(rig.spool.buried)) == ({}, ["req_000002.1"])


async def test_an_event_that_cannot_be_written_is_dead() -> None:
    rig = Rig(2)
    rig.spool.add(msgspec.structs.replace(usage_event(7), time=float("nan")))
    rig.spool.add(msgspec.structs.replace(usage_event(8), tenant="\ud800"))
    async with rig.running():
        assert len(rig.spool.given) == 2

    reasons = ["cannot be encoded (ValueError)", "cannot be encoded (UnicodeEncodeError)"]
    assert list(rig.spool.buried.values()) == reasons


# Outages.


@pytest.mark.parametrize("failure", [status(500), status(429), status(401), lambda _: httpx.ConnectError("x")])
async def test_ten_minutes_of_outage(failure: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway_middleware")
    async with Rig(1000, failing_until(1600, failure)).running() as rig:
        await rig.advance(600)
        assert len(rig.spool.waiting) == 1000
        tries = sorted({post.at for post in rig.posts})
        gaps = [after - before for before, after in itertools.pairwise(tries)]
        assert gaps == [0.5, 1, 2, 4, 8, 16, 32, *[60] * (len(gaps) - 7)]
        assert len(gaps) in range(14, 17)
        assert rig.delivery.state.consecutive_failures == len(tries)
        rig.spool.add(*(usage_event(n) for n in range(1000, 1200)))
        await rig.advance(60)

    assert (rig.spool.waiting, rig.delivery.state.consecutive_failures) == ({}, 0)
    assert rig.most_open <= 4
    assert len([r for r in caplog.records if r.name == "gateway_middleware"]) == 2


async def test_jitter_is_full() -> None:
    chances = iter([0.25, 0.5, 0.0, 1.0, 1.0])
    async with Rig(1, status(503), random=lambda: next(chances), linger=0).running() as rig:
        await rig.advance(4.63)
    assert [post.at - 1000 for post in rig.posts] == [0, 0.125, 0.625, 0.625, 4.625]


async def test_one_batch_at_a_time_while_it_fails() -> None:
    async with Rig(1000, failing_until(1020, status(503))).running() as rig:
        await rig.advance(16)
        rig.gate, rig.most_open = asyncio.Event(), 0
        rig.time.pass_until(1100)
        await until(lambda: rig.open > 0)
        await asyncio.sleep(0.02)
        assert (rig.open, rig.delivery.state.in_flight) == (1, 100)
        rig.gate.set()
        await rig.quiet()
        assert rig.spool.waiting == {}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), ("7.5", 7.5), (formatdate(EPOCH + 1000 + 300, usegmt=True), 300), (" 90 ", 90)],
)
@pytest.mark.parametrize("code", [429, 503, 401])
async def test_retry_after_is_kept(header: str, seconds: float, code: int) -> None:
    answer = failing_until(1001, status(code, headers={"retry-after": header}))
    async with Rig(1000, answer, random=lambda: 0.0).running() as rig:
        assert rig.delivery.state.retry_at == EPOCH + 1000 + seconds
        first = len(rig.posts)
        await rig.advance(seconds - 0.01)
        assert len(rig.posts) == first
        await rig.advance(0.01)

    assert rig.posts[first].at == 1000 + seconds
    assert not rig.spool.waiting
    assert rig.delivery.state.retry_at is None


async def test_a_success_elsewhere_does_not_end_a_wait_that_was_asked_for() -> None:
    refused: list[Post] = []

    def answer(post: Post) -> httpx.Response:
        if "req_000000.1" in post.ids and not refused:
            refused.append(post)
            return httpx.Response(429, headers={"retry-after": "50"})
        return httpx.Response(202)

    async with Rig(800, answer).running() as rig:
        await rig.advance(49)
        assert len(rig.posts) <= 4
        assert rig.delivery.state.health == "failing"
        await rig.advance(1)
        assert (rig.spool.waiting, rig.delivery.state.health) == ({}, "ok")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("-5", 0),
        ("soon", 0),
        ("1e9", 0),
        ("nan", 0),
        ("999999999", 86_400),
        (formatdate(EPOCH - 60, usegmt=True), 0),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60),
        ("Tue, 14 Nov 9999999 22:14:20 GMT", 0),
    ],
)
def test_odd_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after({} if header is None else {"retry-after": header}, wall=EPOCH) == seconds


@given(st.text())
def test_no_retry_after_is_too_odd(header: str) -> None:
    assert 0 <= retry_after({"retry-after": header}, wall=EPOCH) <= 86_400


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 100), st.floats(0, 100)), max_size=80))
def test_backoff_is_bounded(steps: list[tuple[float, float, float]]) -> None:
    now, chance = 0.0, 0.0
    backoff = Backoff(clock=lambda: now, random=lambda: chance)
    for number, (drawn, told, passed) in enumerate(steps):
        chance = drawn
        asked_before = backoff.until
        backoff.failed(backoff.round, retry_after=told)
        assert now + told <= backoff.until <= max(now + max(told, min(60, 0.5 * 2**number)), asked_before)
        now += passed


def test_attempts_that_fail_together_count_once() -> None:
    backoff = Backoff(clock=lambda: 0.0, random=lambda: 1.0)
    for told in (0, 7, 3, 0):
        backoff.failed(0, retry_after=told)
    assert (backoff.failures, backoff.until) == (1, 7)
    assert not backoff.succeeded(0)
    assert backoff.failures == 1
    assert backoff.succeeded(1)
    assert (backoff.failures, backoff.until) == (0, 7)


@given(st.integers(1, 200), st.lists(st.tuples(st.booleans(), st.integers(1, 200)), max_size=300))
def test_the_batch_size_stays_in_bounds(max_size: int, steps: list[tuple[bool, int]]) -> None:
    batch = BatchSize(max_size, clock=Clock())
    for is_taken, sent in steps:
        before = batch.size
        (batch.taken if is_taken else batch.too_large)(min(sent, max_size))
        assert 1 <= batch.size <= max_size
        assert is_taken or batch.size <= before


async def test_a_consumer_that_refuses_an_event_is_well_again() -> None:
    answer: Answer = lambda post: httpx.Response(503 if post.at < 1003 else 400)
    async with Rig(1, answer).running() as rig:
        await rig.advance(10)
    assert (rig.delivery.state.dead, rig.delivery.state.health) == (1, "ok")
    assert rig.delivery.state.consecutive_failures == 0


async def test_a_spool_that_fails_does_not_end_delivery() -> None:
    rig = Rig(5)
    rig.spool.failures = 3
    async with rig.running():
        assert rig.delivery.state.last_error == "spool: OSError"
        await rig.advance(10)
    assert (rig.spool.waiting, rig.delivery.state.health) == ({}, "ok")


async def test_a_spool_that_fails_after_the_sink_took_the_events_has_them_sent_again() -> None:
    rig = Rig(3)
    rig.spool.failures_of_delivered = 1
    async with rig.running():
        assert rig.delivery.state.last_error == "spool: OSError"
        await rig.advance(10)
    assert (rig.spool.waiting, rig.delivery.state.health) == ({}, "ok")
    assert [len(post.ids) for post in rig.posts] == [3, 3]
    assert rig.posts[0].bodies == rig.posts[1].bodies


async def test_events_none_of_which_can_be_written_are_dead_and_nothing_is_sent() -> None:
    rig = Rig(0)
    rig.spool.add(msgspec.structs.replace(usage_event(7), time=float("nan")))
    async with rig.running():
        assert (rig.posts, list(rig.spool.buried)) == ([], ["req_000007.1"])


async def test_dead_letters_are_logged_each_time_they_have_doubled(caplog: pytest.LogCaptureFixture) -> None:
    async with Rig(5, status(400), parallel=1).running() as rig:
        assert rig.delivery.state.dead == 5
    counts = [record.args for record in caplog.records if "refused for good" in record.msg]
    assert counts == [(1,), (2,), (4,)]


async def test_a_flush_waits_as_long_as_it_was_asked_to() -> None:
    answer = failing_until(1003, status(503, headers={"retry-after": "3"}))
    rig = Rig(1, answer)
    flushing = asyncio.create_task(rig.delivery.flush(5))
    await until(lambda: len(rig.posts) == 1 and bool(rig.time.sleepers))
    rig.time.pass_until(1003)
    assert await flushing
    assert [post.at for post in rig.posts] == [1000, 1003]


async def test_an_answer_without_an_end_is_read_no_further_than_is_needed() -> None:
    class Endless(httpx.AsyncByteStream):
        chunks = 0
        is_closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                self.chunks += 1
                yield b"x" * 10_000

        async def aclose(self) -> None:
            self.is_closed = True

    stream = Endless()
    async with Rig(1, status(202, stream=stream)).running() as rig:
        assert rig.spool.waiting == {}
    assert (stream.chunks, stream.is_closed) == (7, True)


# Many at a time.


async def test_parallel_batches_are_bounded_and_no_event_is_in_two() -> None:
    rig = Rig(1000)
    rig.gate = asyncio.Event()
    task = asyncio.create_task(rig.delivery.run())
    async with asyncio.timeout(5):
        while rig.open < 4:
            await asyncio.sleep(0.001)
        for _ in range(20):
            rig.delivery.notify()
            await asyncio.sleep(0.001)
        assert (rig.open, rig.delivery.state.in_flight) == (4, 400)
        rig.gate.set()
        await rig.quiet()
    task.cancel()

    assert rig.most_open == 4
    assert sorted(each for post in rig.posts for each in post.ids) == sorted(rig.spool.given)
    assert len(set(rig.spool.given)) == 1000


async def test_news_from_another_thread_are_sent_at_once() -> None:
    async with Rig(0).running() as rig:
        rig.spool.add(usage_event(1))
        await asyncio.to_thread(rig.delivery.notify)
        async with asyncio.timeout(5):
            while not rig.spool.given:
                await asyncio.sleep(0)
        assert [post.at for post in rig.posts] == [1000.0]


async def test_without_news_the_spool_is_read_each_second() -> None:
    async with Rig(0).running() as rig:
        rig.spool.add(usage_event(1))
        await rig.advance(0.9)
        assert rig.posts == []
        await rig.advance(0.1)
        assert len(rig.posts) == 1


async def test_small_batches_are_not_sent_one_upon_the_other() -> None:
    async with Rig(0).running() as rig:
        for number in range(200):
            rig.spool.add(usage_event(number))
            rig.delivery.notify()
            await rig.advance(0.005)
        await rig.advance(1)

    assert rig.spool.waiting == {}
    assert 9 <= len(rig.posts) <= 12


async def test_notify_is_allowed_at_any_time() -> None:
    delivery = Rig(0).delivery
    delivery.notify()
    task = asyncio.create_task(delivery.run())
    await asyncio.sleep(0.01)
    task.cancel()
    delivery.notify()


def test_notify_after_the_loop_is_closed() -> None:
    delivery = Rig(0).delivery
    asyncio.run(delivery.flush(1))
    delivery.notify()


# Ends.


async def test_cancelled_before_the_spool_knows_is_sent_again() -> None:
    rig = Rig(3)
    rig.gate = asyncio.Event()
    task = asyncio.create_task(rig.delivery.run())
    while not rig.posts:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (rig.delivery.state.in_flight, len(rig.spool.waiting)) == (0, 3)

    rig.gate.set()
    assert await rig.delivery.flush(5)
    assert rig.posts[0].bodies == rig.posts[1].bodies
    assert rig.spool.waiting == {}


async def test_flush_delivers_all_and_ends_the_run() -> None:
    rig = Rig(0)
    task = asyncio.create_task(rig.delivery.run())
    await rig.quiet()
    rig.spool.add(*(usage_event(n) for n in range(1234)))
    assert await rig.delivery.flush(5)
    await asyncio.wait_for(task, 10)

    assert len(rig.spool.given) == 1234


async def test_flush_waits_for_what_is_in_flight() -> None:
    async with Rig(50, linger=0).running() as rig:
        rig.gate = asyncio.Event()
        rig.spool.add(usage_event(50))
        rig.delivery.notify()
        await until(lambda: rig.open > 0)
        flushed = asyncio.create_task(rig.delivery.flush(5))
        await asyncio.sleep(0.05)
        assert not flushed.done()
        assert rig.spool.reads <= 8
        rig.gate.set()
        assert await flushed
        assert len(rig.posts) == 2


async def test_flush_ends_at_its_deadline() -> None:
    rig = Rig(5)
    rig.gate = asyncio.Event()
    async with asyncio.timeout(10):
        assert not await rig.delivery.flush(0.1)
    assert (len(rig.spool.waiting), rig.delivery.state.in_flight) == (5, 0)


async def test_flush_tries_once_more_at_once() -> None:
    async with Rig(5, failing_until(1100, status(503))).running() as rig:
        await rig.advance(100)
        assert rig.spool.waiting
        assert await rig.delivery.flush(5)


async def test_flush_does_not_ask_before_it_may() -> None:
    async with Rig(5, status(503, headers={"retry-after": "60"})).running() as rig:
        async with asyncio.timeout(10):
            assert not await rig.delivery.flush(30)
        assert len(rig.posts) == 1


# What is seen of it.


async def test_state_and_callbacks() -> None:
    seen: list[tuple[Any, ...]] = []
    poison = "req_000001.1"

    def answer(post: Post) -> httpx.Response:
        return httpx.Response(503 if post.at < 1001 else 400 if poison in post.ids else 202)

    rig = Rig(
        3,
        answer,
        on_dead=lambda event_id, reason: seen.append(("dead", event_id, reason)),
        on_health=lambda health: seen.append(("health", health)),
    )
    async with rig.running():
        failing = rig.delivery.state
        await rig.advance(10)

    assert seen == [
        ("health", "failing"),
        ("health", "ok"),
        ("dead", poison, "HTTP 400"),
    ]
    assert (failing.last_error, failing.retry_at, failing.last_success) == ("HTTP 503", EPOCH + 1000.5, None)
    state = rig.delivery.state
    assert (state.delivered, state.dead, state.last_success) == (2, 1, EPOCH + 1001.5)
    assert state.lag == pytest.approx(1001.498)
    assert msgspec.to_builtins(state)["standing"] == "ok"  # its name in /v1/health
    assert (state.in_flight, state.consecutive_failures, state.retry_at) == (0, 0, None)


async def test_neither_address_nor_token_is_ever_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers = iter([status(401, text=TOKEN), lambda _: httpx.ConnectError(f"{URL} {TOKEN}"), status(400, text=URL)])
    async with Rig(1, lambda post: next(answers)(post)).running() as rig:
        await rig.advance(10)

    assert rig.posts[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert rig.posts[0].headers["content-type"] == "application/cloudevents-batch+json"
    assert len(caplog.records) >= 3
    written = caplog.text + repr(rig.delivery.state) + repr(rig.spool.buried)
    assert "canary" not in written
    assert "usage-metering.test" not in written


# Whatever happens.


FAULTS = st.sampled_from([400, 401, 409, 413, 422, 429, 500, 503, "connect", "lost"])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.lists(FAULTS, max_size=12), st.integers(1, 4), st.integers(1, 20))
def test_no_event_is_lost_or_changed(count: int, faults: list[int | str], parallel: int, batch: int) -> None:
    stored: dict[str, bytes] = {}
    left = list(faults)

    def answer(post: Post) -> httpx.Response | Exception:
        fault = left.pop() if left else 202
        for each in post.ids:
            assert stored.get(each, post.bodies[each]) == post.bodies[each]
        if fault == 409 and not all(each in stored for each in post.ids):
            fault = 503
        if fault in {202, "lost"}:
            stored.update(post.bodies)
        return httpx.Response(fault) if isinstance(fault, int) else httpx.ReadError(fault)

    async def deliver() -> Rig:
        async with Rig(count, answer, parallel=parallel, batch=batch).running() as rig:
            while rig.spool.waiting and rig.time.now < 2000:
                await rig.advance(30)
        return rig

    rig = asyncio.run(deliver())
    assert rig.spool.waiting == {}
    assert set(rig.spool.given) <= set(stored)
    assert len(rig.spool.given) + len(rig.spool.buried) == count
    assert len(rig.spool.buried) <= len([fault for fault in faults if fault in {400, 413, 422}])


# Over sockets.


@contextlib.asynccontextmanager
async def delivering(spool: MemorySpool, url: str, **options: Any) -> AsyncIterator[Delivery]:
    of_sink = {name: options.pop(name) for name in ("token", "deadline") if name in options}
    sink = SinkClient(Engine(), url=f"{url}/events", **of_sink)
    delivery = Delivery(spool, sink, source=SOURCE, clocks=Clocks(random=lambda: 0.02), **options)
    delivery.start()
    try:
        yield delivery
    finally:
        await delivery.aclose()


async def test_stored_but_never_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    spool = MemorySpool([usage_event(n) for n in range(300)])
    async with Collector().serve() as server:
        server.collector.behave(Fault(stores=True, ends="drop"), times=5)
        async with delivering(spool, server.url, token=TOKEN):
            await until(lambda: not spool.waiting)

    collector = server.collector
    assert sorted(each.id for each in collector.events) == sorted(spool.given)
    assert (len(collector.events), collector.conflicts) == (300, 0)
    assert collector.duplicates >= 100
    assert f"127.0.0.1:{server.port}" not in caplog.text
    assert TOKEN not in caplog.text


async def test_a_consumer_that_hangs() -> None:
    spool = MemorySpool([usage_event(n) for n in range(300)])
    async with Collector().serve() as server:
        server.collector.behave(Fault(ends="hang", stores=True), times=6)
        async with delivering(spool, server.url, deadline=0.1) as delivery:
            await until(lambda: delivery.state.last_error == "no answer in time")
            await until(lambda: not spool.waiting)

    assert (len(server.collector.events), server.collector.conflicts) == (300, 0)


async def test_sums_arrive() -> None:
    spool = MemorySpool([usage_event(n) for n in range(10)])
    async with Collector(token=TOKEN).serve() as server:
        async with delivering(spool, server.url, token=TOKEN):
            await until(lambda: not spool.waiting)
        totals = server.collector.totals

    assert {name: sums.input_tokens for name, sums in totals.items()} == {
        "tenant-0": 0 + 3 + 6 + 9,
        "tenant-1": 1 + 4 + 7,
        "tenant-2": 2 + 5 + 8,
    }
    assert str(totals["tenant-0"].cost) == "0.004"


async def test_a_backlog_goes_out_in_full_batches() -> None:
    """What makes thousands of events a second possible."""
    spool = MemorySpool([usage_event(n) for n in range(5000)])
    async with Collector().serve() as server:
        async with delivering(spool, server.url, batch=100):
            await until(lambda: not spool.waiting, 60.0)

    assert len(server.collector.events) == 5000
    assert len(server.collector.log.entries) == 50


async def test_delivery_leaves_no_reference_cycles() -> None:
    async def cycles_after(count: int) -> int:
        spool = MemorySpool([usage_event(n) for n in range(count)])
        async with Collector().serve() as server, delivering(spool, server.url, batch=10):
            await until(lambda: not spool.waiting)
        spool.given.clear()
        return gc.collect()

    await cycles_after(100)
    gc.disable()
    try:
        few, many = await cycles_after(100), await cycles_after(2000)
    finally:
        gc.enable()
    assert many - few < 190, f"{few} objects after 10 batches, {many} after 200"


async def test_closing_delivers_the_rest_and_closes_the_connections() -> None:
    before, tasks = open_sockets(), asyncio.all_tasks()
    spool = MemorySpool([usage_event(n) for n in range(50)])
    engine = Engine()
    async with Collector().serve() as server:
        delivery = Delivery(spool, SinkClient(engine, url=f"{server.url}/events"), source=SOURCE, poll=600.0)
        delivery.start()
        delivery.start()
        await until(lambda: not spool.waiting)
        assert engine.idle_connections > 0
        spool.add(usage_event(51))
        await delivery.aclose(5.0)
        await delivery.aclose(5.0)
        assert (len(server.collector.events), engine.idle_connections) == (51, 0)
    assert asyncio.all_tasks() <= tasks
    assert open_sockets() <= before


async def test_closing_what_never_began_closes_the_sink() -> None:
    class Counting(httpx.AsyncBaseTransport):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    transport = Counting()
    await Delivery(MemorySpool([usage_event(1)]), SinkClient(HttpxExchange(transport), url=URL), source=SOURCE).aclose()
    assert transport.closed == 1


async def test_a_close_that_is_cut_short_closes_all_the_same() -> None:
    rig = Rig(5)
    rig.gate, tasks = asyncio.Event(), asyncio.all_tasks()
    rig.delivery.start()
    await until(lambda: rig.open > 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await rig.delivery.aclose(60.0)
    assert asyncio.all_tasks() <= tasks


async def test_a_flush_of_a_spool_that_cannot_be_read_says_that_something_is_left() -> None:
    rig = Rig(0)
    rig.spool.failures = 1_000_000
    assert not await rig.delivery.flush(0.1)


def open_sockets() -> int:
    places = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            places.append(str(descriptor.readlink()))
    return sum(place.startswith("socket:") for place in places)


def start_collector(database: Path, port: int) -> Popen[str]:
    module = "gateway_middleware.simulator.collector"
    command = [sys.executable, "-m", module, "--port", str(port), "--database", str(database)]
    process = Popen(command, stdout=PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


async def test_a_consumer_that_is_killed_twenty_times(tmp_path: Path) -> None:
    port, database = free_port(), tmp_path / "collector.db"
    spool, sent, kills = MemorySpool(), 0, 20
    async with delivering(spool, f"http://127.0.0.1:{port}", batch=20) as delivery:
        for round_ in range(kills + 1):
            process = await asyncio.to_thread(start_collector, database, port)
            try:
                before = len(spool.given)
                spool.add(*(usage_event(sent + n) for n in range(150)))
                sent += 150
                delivery.notify()
                await until(lambda b=before: len(spool.given) > b)  # type: ignore[misc]
                if round_ == kills:
                    await until(lambda: not spool.waiting)
            finally:
                process.kill()
                process.stdout.close() if process.stdout else None
                await asyncio.to_thread(process.wait)

    collector = Collector(database=str(database))
    assert sorted(each.id for each in collector.events) == [usage_event(n).id for n in range(sent)]
    assert (collector.conflicts, spool.buried, len(spool.given)) == (0, {}, sent)
