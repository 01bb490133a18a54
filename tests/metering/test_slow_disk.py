"""A slow disk holds up the calls that wait for it, and nothing else: the event loop never waits for a second write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from call_list import attempt_at
from clock import Clock
from gateway_middleware.composition.journal_metrics import journal_families
from gateway_middleware.core.asgi import Message, Receive, Scope, Send
from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest, Outcome, Route, Surface, Tenant, Usage
from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.core.outbox import Entry, Outbox
from gateway_middleware.core.record import CallRecord
from gateway_middleware.core.scope import METER, RECORD, REQUEST, TENANT
from gateway_middleware.metering import call_journal
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.slow_disk import DiskPace
from gateway_middleware.metering.middleware import MeteringMiddleware
from gateway_middleware.metering.usage_middleware import UsageMiddleware
from gateway_middleware.operations.metric import Aggregation
from journaled import call, event, spooled

pytestmark = pytest.mark.anyio
ASKED = ModelRequest(
    surface=Surface.CHAT,
    dialect=Dialect.OPENAI,
    model="fast",
    route=Route(name="fast", deployments=(Deployment(provider="openai", model="m"),)),
    body=b"x" * 40,
    fields={},
)


class Disk:
    """Writes that take as long as the test says: `slow` seconds of its clock each, and until the gate is open."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.slow = 0.0
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()
        self.stops_loop = True
        self.threads: list[str] = []

    def write(self, fd: int, content: bytes) -> int:
        self.threads.append(threading.current_thread().name)
        if self.stops_loop or threading.current_thread() is not threading.main_thread():
            assert self.gate.wait(20)
        self.clock.advance(self.slow)
        if self.fails:
            raise OSError(28, "No space left on device")
        return os.write(fd, content)

    @property
    def is_aside(self) -> bool:
        return self.threads[-1] == "usage-journal-append"


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def disk(clock: Clock) -> Disk:
    return Disk(clock)


@asynccontextmanager
async def running(path: Path, disk: Disk, **options: Any) -> AsyncIterator[Journal]:
    options = {"outbox": Outbox(), "clock": disk.clock, "segment_seconds": 1e9, **options}
    async with Journal(path / "usage.db", write=disk.write, **options) as journal:
        try:
            yield journal
        finally:
            disk.gate.set()


async def slowed(journal: Journal, disk: Disk) -> None:
    """One write that takes 0.2 s."""
    disk.slow = 0.2
    assert journal.enter(call("first")).written is None
    await asyncio.sleep(0)
    assert not disk.is_aside


async def written(entry: Entry) -> None:
    assert entry.written is not None
    async with asyncio.timeout(20):
        await entry.written


def test_the_pace_of_a_disk(clock: Clock) -> None:
    pace = DiskPace(clock)
    for seconds, is_slow in ((0.09, False), (0.11, True), (0.3, True), (0.01, True), (4.9, True), (0.01, True)):
        began = clock()
        clock.advance(seconds)
        pace.note(began, clock())
        assert pace.is_slow == pace.was_slow_lately == is_slow
    clock.advance(5.0)
    assert (pace.is_slow, pace.was_slow_lately) == (True, False)
    pace.note(clock(), clock())
    assert not pace.is_slow
    assert pace.slow_writes == 3


async def test_calls_wait_for_a_slow_disk_and_the_loop_goes_on(tmp_path: Path, disk: Disk) -> None:
    async with running(tmp_path, disk) as journal:
        await slowed(journal, disk)
        disk.gate.clear()
        assert (journal.is_disk_slow, journal.slow_writes) == (True, 1)
        entries = [journal.enter(call(name)) for name in ("a", "b")]
        assert entries[0].written is entries[1].written
        journal.close(event("first"))
        for _ in range(20):  # the disk does not answer: everything else goes on, and what comes later waits its turn
            await asyncio.sleep(0.001)
        later = journal.enter(call("c"))
        journal.close(event("a"))
        await asyncio.sleep(0.01)
        assert not any(entry.written.done() for entry in (*entries, later) if entry.written)
        assert journal.pending is later.written
        disk.gate.set()
        await written(later)
        assert disk.is_aside
        assert entries[0].written is not None
        assert entries[0].written.done()
        assert [entry.fault for entry in (*entries, later)] == [None] * 3
        assert journal.pending is None
        for name in ("b", "c"):
            journal.close(event(name))
        assert await asyncio.to_thread(journal.flush)
        assert journal.counts.closed == 4
    assert {e.id: e.outcome for e in spooled(tmp_path / "usage.db")} == dict.fromkeys(
        ("first", "a", "b", "c"), "success"
    )


async def test_well_again_the_loop_writes_itself(tmp_path: Path, disk: Disk) -> None:
    async with running(tmp_path, disk) as journal:
        await slowed(journal, disk)
        disk.slow = 0.0
        disk.clock.advance(4.9)
        await written(journal.enter(call("a")))
        disk.clock.advance(0.2)
        await written(journal.enter(call("b")))
        assert disk.is_aside
        assert journal.enter(call("c")).written is None
        await asyncio.sleep(0)
        assert not disk.is_aside


async def test_what_waited_behind_the_last_slow_write_is_released(tmp_path: Path, disk: Disk) -> None:
    """The disk is well again when that write ends: the next turn, which expects a thread, is written by the loop."""
    async with running(tmp_path, disk) as journal:
        await slowed(journal, disk)
        disk.slow = 0.0
        disk.clock.advance(5.1)
        disk.gate.clear()
        first = journal.enter(call("a"))
        await asyncio.sleep(0.01)
        behind = journal.enter(call("b"))
        journal.close(event("first"))
        disk.gate.set()
        await written(first)
        await written(behind)
        assert journal.pending is None
        for name in ("a", "b"):
            journal.close(event(name))
            assert journal.pending is None
        assert not journal.is_disk_slow


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("has_outbox", [True, False])
async def test_nobody_waits_for_ever_whatever_the_disk_does(
    tmp_path: Path, disk: Disk, *, seed: int, has_outbox: bool
) -> None:
    chance, disk.stops_loop = random.Random(seed), False
    waiting: list[asyncio.Future[None]] = []
    async with running(tmp_path, disk, **({} if has_outbox else {"outbox": None})) as journal:
        opened: list[str] = []
        for number in range(40):
            disk.slow, disk.fails = chance.choice([0.0, 0.0, 0.2]), chance.random() < 0.1
            disk.clock.advance(chance.choice([0.0, 0.0, 1.0, 6.0]))
            if chance.random() < 0.6 or not opened:
                with contextlib.suppress(UnavailableError):
                    entry = journal.enter(call(f"c{number}"))
                    opened.append(f"c{number}")
                    waiting += [entry.written] if entry.written is not None else []
                if not has_outbox:
                    journal.commit()
            else:
                journal.close(event(opened.pop(chance.randrange(len(opened)))))
                waiting += [pending] if (pending := journal.pending) is not None else []
            if chance.random() < 0.5:
                disk.gate.clear()
            for _ in range(chance.choice([0, 1, 3])):
                await asyncio.sleep(chance.choice([0, 0, 0.002]))
            disk.gate.set()
        disk.fails, disk.slow = False, 0.0
        async with asyncio.timeout(20):
            for one in waiting:
                await one
            while journal.is_degraded or journal.pending is not None:
                await asyncio.sleep(0.002)


async def test_a_slow_write_that_fails_refuses_what_begins_in_it_and_after_it(tmp_path: Path, disk: Disk) -> None:
    async with running(tmp_path, disk) as journal:
        await slowed(journal, disk)
        disk.gate.clear()
        disk.fails = True
        one = journal.enter(call("one"))
        await asyncio.sleep(0.01)
        two = journal.enter(call("two"))
        journal.close(event("first"))
        disk.gate.set()
        await written(one)
        await written(two)
        assert isinstance(one.fault, UnavailableError)
        assert isinstance(two.fault, UnavailableError)
        assert journal.pending is None
        with pytest.raises(UnavailableError):
            journal.open(call("three"))
        disk.fails = False
        assert await asyncio.to_thread(journal.flush)
        async with asyncio.timeout(20):
            while journal.is_degraded:
                await asyncio.sleep(0.01)
        counts = journal.counts
        assert (counts.admitted, counts.closed, counts.open) == (1, 1, 0)
    assert [e.id for e in spooled(tmp_path / "usage.db")] == ["first"]


async def test_metrics_tell_that_the_disk_is_slow(tmp_path: Path, disk: Disk) -> None:
    def told(journal: Journal) -> tuple[float, float]:
        families = journal_families(journal, None, of_losses=Aggregation.SUM)
        values = {family.name: family.samples[0].value for family in families}
        return values["model_gateway_journal_disk_slow"], values["model_gateway_journal_slow_writes"]

    async with running(tmp_path, disk) as journal:
        assert told(journal) == (0, 0)
        await slowed(journal, disk)
        assert told(journal) == (1, 1)
        disk.clock.advance(5.1)
        assert told(journal) == (0, 1)
        disk.gate.clear()
        entry = journal.enter(call("a"))
        await asyncio.sleep(0.01)
        assert told(journal) == (1, 1)  # a write that does not come back
        disk.gate.set()
        await written(entry)


async def test_who_opens_without_an_outbox_waits_too(tmp_path: Path, disk: Disk) -> None:
    async with running(tmp_path, disk, outbox=None) as journal:
        disk.slow = 0.2
        assert journal.open(call("first")).written is None
        disk.gate.clear()
        entry = journal.open(call("a"))
        waiting = asyncio.create_task(call_journal.recorded(journal, "a", entry))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        disk.gate.set()
        await waiting
        journal.close(event("a"))
        assert journal.pending is not None
        assert await call_journal.on_disk(journal.pending)


async def test_a_call_that_is_cancelled_while_it_waits_costs_nothing(tmp_path: Path, disk: Disk) -> None:
    async with running(tmp_path, disk) as journal:
        await slowed(journal, disk)
        disk.gate.clear()
        entry = journal.enter(call("a"))
        waiting = asyncio.create_task(call_journal.recorded(journal, "a", entry))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert entry.fault is not None
        disk.gate.set()
        journal.close(event("first"))
        assert await asyncio.to_thread(journal.flush)
        assert journal.counts.voided == 1
    assert [e.id for e in spooled(tmp_path / "usage.db")] == ["first"]


async def test_a_journal_that_is_stopped_waits_for_what_is_being_written(tmp_path: Path, disk: Disk) -> None:
    async with running(tmp_path, disk) as journal:
        await slowed(journal, disk)
        disk.gate.clear()
        journal.close(event("first"))
        await asyncio.sleep(0.01)
        stopping = asyncio.create_task(journal.aclose())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        disk.gate.set()
        assert await stopping
    assert [e.id for e in spooled(tmp_path / "usage.db")] == ["first"]


async def test_without_threads_the_loop_writes_itself(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, disk) as journal:
        await slowed(journal, disk)

        def none_left(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none_left)
            entry = journal.enter(call("a"))
            await written(entry)
        assert entry.fault is None
        assert not disk.is_aside


async def metered(journal: Journal, steps: list[str], *, ends: asyncio.Event | None = None) -> None:
    """A call through the gateway's layer, with an application that plays dispatch."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        meter, attempt = METER.get(scope), attempt_at(outcome=Outcome.SUCCESS, usage=Usage(input_tokens=1))
        attempt.is_complete = True
        entry = meter.begin(attempt)
        assert entry is not None
        if entry.written is not None:
            steps.append("waits")
            await meter.recorded(entry)
        steps.append("asks")
        if ends is not None:
            await ends.wait()

    layer = MeteringMiddleware(
        app,
        journal=journal,
        appraise=lambda event, _: event,
        estimate_input=lambda request, tenant: 1,
        wall=lambda: 7.0,
    )
    scope: Scope = {"type": "http"}
    RECORD.set(scope, CallRecord(request_id="r", started=0.0, received_at=0.0))
    TENANT.set(scope, Tenant(name="acme", key_id="k"))
    REQUEST.set(scope, ASKED)
    await layer(scope, no_receive, no_send)
    steps.append("ends")


async def no_receive() -> Message:
    raise NotImplementedError


async def no_send(_: Message) -> None:
    raise NotImplementedError


async def test_a_provider_is_asked_and_an_answer_ends_only_after_a_slow_disk(tmp_path: Path, disk: Disk) -> None:
    async with running(tmp_path, disk, outbox=None) as journal:
        disk.slow = 0.2
        steps: list[str] = []
        await metered(journal, steps)
        assert steps == ["asks", "ends"]
        steps.clear()
        disk.gate.clear()
        ends = asyncio.Event()
        running_call = asyncio.create_task(metered(journal, steps, ends=ends))
        await asyncio.sleep(0.01)
        assert steps == ["waits"]
        disk.gate.set()
        async with asyncio.timeout(20):
            while steps != ["waits", "asks"]:
                await asyncio.sleep(0.001)
        disk.gate.clear()
        ends.set()
        await asyncio.sleep(0.02)
        assert steps == ["waits", "asks"]
        disk.gate.set()
        await running_call
        assert steps == ["waits", "asks", "ends"]


async def test_a_call_does_not_wait_for_ever(tmp_path: Path, disk: Disk) -> None:
    async with running(tmp_path, disk) as journal:
        await slowed(journal, disk)
        disk.gate.clear()
        entry = journal.enter(call("a"))
        with pytest.raises(UnavailableError, match="disk of the call journal is slow"):
            await call_journal.recorded(journal, "a", entry, patience=0.0)
        assert journal.pending is not None
        assert not await call_journal.on_disk(journal.pending, patience=0.0)
        disk.gate.set()
        assert await asyncio.to_thread(journal.flush)
        assert journal.counts.voided == 1


async def test_the_layer_for_other_applications_waits_too(tmp_path: Path, disk: Disk) -> None:
    asked: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])

    async with running(tmp_path, disk, outbox=None) as journal:
        layer = UsageMiddleware(app, journal=journal, tenant_of=lambda _: "acme")
        disk.slow = 0.2
        await layer({"type": "http", "path": "/one"}, no_receive, no_send)
        disk.gate.clear()
        waiting = asyncio.ensure_future(layer({"type": "http", "path": "/two"}, no_receive, no_send))
        await asyncio.sleep(0.02)
        assert asked == ["/one"]
        disk.gate.set()
        await waiting
        assert asked == ["/one", "/two"]
