"""Processes killed at random moments while they share one path with others and with a sink that drains it."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway_middleware.metering.journal.call_end import encode
from gateway_middleware.metering.journal.housekeeping import Retention
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.keeper import Keeper
from gateway_middleware.metering.journal.segment import OPEN, Segment, frame
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.usage_event import UsageEvent
from journaled import call, leftovers, run, spooled, sums, usage_of

KILLS = 20
HEIRS = 200


class Sink:
    """Takes what is pending, as delivery does, while everybody dies around it."""

    def __init__(self, path: Path) -> None:
        self.events: list[UsageEvent] = []
        self._spool = Spool(path)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over.wait(0.002):
            self.drain()

    def drain(self) -> None:
        while events := usage_of(self._spool, 100):
            self.events += events
            self._spool.delivered([e.id for e in events])

    @contextmanager
    def draining(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            self._thread.join()
            self._spool.close()


def lines(output: bytes) -> list[tuple[str, str]]:
    words = (line.split() for line in output.decode().split("\n")[:-1])
    return [(word, name) for word, name in words if word != "ready"]


def kill_workers(path: Path, kills: int, chance: random.Random) -> list[list[tuple[str, str]]]:
    """Two at a time, each killed after a random while; what each of them said before."""
    said: list[list[tuple[str, str]]] = []
    for pair in range(kills // 2):
        workers = [run("worker(Path(sys.argv[1]), int(sys.argv[2]))", path, pair * 2 + n) for n in range(2)]
        for worker in workers if pair % 4 else []:  # else one may die while it starts and adopts
            assert worker.stdout is not None
            assert worker.stdout.readline().startswith(b"ready"), worker.communicate()
        for worker in workers:
            time.sleep(0.0 if pair % 4 else 0.15)
            time.sleep(chance.uniform(0.0, 0.12))
            worker.send_signal(signal.SIGKILL)
        for worker in workers:
            said.append(lines(worker.communicate(timeout=10)[0]))
    return said


def verify(said: list[list[tuple[str, str]]], events: list[UsageEvent]) -> None:
    metered = Counter(e.id for e in events)
    assert {name: count for name, count in metered.items() if count > 1} == {}
    outcomes = {e.id: e.outcome for e in events}
    for number, process in enumerate(said):
        by_word = {word: {name for said_word, name in process if said_word == word} for word, _ in process}
        asked, told = by_word.get("asked", set()), by_word.get("told", set())
        voiding, voided = by_word.get("voiding", set()), by_word.get("voided", set())
        assert asked - voiding - outcomes.keys() == set(), "lost"
        assert voided & outcomes.keys() == set(), "billed what was void"
        assert {outcomes[name] for name in told} <= {"success"}
        mine = {name for name in outcomes if name.startswith(f"{number}-")}
        assert len(mine - asked) <= 1, "the last one may have died before it could say so"
        crashed = {name for name in mine & asked if outcomes[name] == "gateway_crash"}
        assert len(crashed - (asked - told - voided)) == 0


def test_killed_at_any_moment_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    sink = Sink(path)
    with sink.draining():
        said = kill_workers(path, KILLS, random.Random())
        heir = Journal(path)
        heir.start()
        assert heir.stop()
        assert leftovers(path) == []
    last = Spool(path)
    sink.events += usage_of(last)
    last.close()
    assert sum(len(process) for process in said) > 20 * KILLS
    verify(said, sink.events)
    total = sums(path)
    counted = Counter(e.outcome for e in sink.events)
    assert (total.closed, total.orphaned) == (counted["success"], counted["gateway_crash"])
    admitted = sum(word == "asked" for process in said for word, _ in process)
    unsaid = total.closed + total.orphaned + total.voided - admitted
    assert 0 <= unsaid <= KILLS


def killed_at_random(process: subprocess.Popen[bytes], least: float, most: float, chance: random.Random) -> bytes:
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert ready.startswith(b"ready"), process.communicate()
    time.sleep(chance.uniform(least, most))
    process.send_signal(signal.SIGKILL)
    return process.communicate(timeout=10)[0]


def keepers_that_die(path: Path, is_over: threading.Event, chance: random.Random) -> None:
    while not is_over.is_set():
        killed_at_random(run("keeper(Path(sys.argv[1]))", path), 0.0, 0.1, chance)


def test_workers_and_their_keeper_are_killed_at_any_moment(tmp_path: Path) -> None:
    path, is_over, chance = tmp_path / "usage.db", threading.Event(), random.Random()
    sink = Sink(path)
    dying = threading.Thread(target=keepers_that_die, args=(path, is_over, random.Random()))
    said: list[list[tuple[str, str]]] = []
    with sink.draining():
        dying.start()
        try:
            for number in range(KILLS):
                worker = run("worker(Path(sys.argv[1]), int(sys.argv[2]), 'process')", path, number)
                said.append(lines(killed_at_random(worker, 0.1, 0.3, chance)))
        finally:
            is_over.set()
            dying.join()
        keeper = Keeper(
            Spool(path), Retention(cap=10**6, on_full="reject", keeps=None), wall=time.time, clock=time.monotonic
        )
        assert keeper.begin()
        keeper.finish()
        keeper.close()
        assert leftovers(path) == []
    last = Spool(path)
    sink.events += usage_of(last)
    last.close()
    assert sum(len(process) for process in said) > 20 * KILLS
    verify(said, sink.events)
    counted = Counter(e.outcome for e in sink.events)
    assert (sums(path).closed, sums(path).orphaned) == (counted["success"], counted["gateway_crash"])


RACE = """
from gateway_middleware.metering.journal.recovery import adopt
from gateway_middleware.metering.journal.spool import Spool
spool = Spool(Path(sys.argv[1]))
spool.measure()
tell("ready", 0)
sys.stdin.read(1)
found = adopt(spool)
tell("orphaned", found.orphaned)
"""


@pytest.mark.parametrize("round_", range(3))
def test_two_heirs_of_the_same_dead_do_not_both_inherit(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "usage.db"
    for owner in range(10):
        segment = Segment.create(path, f"dead{owner}")
        segment.append(b"".join(frame(OPEN, n, encode(call(f"{owner}-{n}"))) for n in range(1, HEIRS // 10 + 1)))
        segment.close()
    heirs = [run(RACE, path) for _ in range(2)]
    for heir in heirs:
        assert heir.stdout is not None
        heir.stdout.readline()
    for heir in heirs:
        assert heir.stdin is not None
        heir.stdin.write(b"g")
        heir.stdin.flush()
    shares = [int(heir.communicate(timeout=10)[0].split()[-1]) for heir in heirs]
    late = Journal(path)
    late.start()
    late.stop()
    assert sum(shares) + late.counts.orphaned == HEIRS
    assert len(spooled(path)) == HEIRS
    assert sums(path).orphaned == HEIRS
    assert leftovers(path) == []
