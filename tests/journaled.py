"""Calls for the journal, what is on its disk afterwards, and a process to kill."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import msgspec

from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.journal.daily_total import DailyTotal
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent, UsageSource

NOON = 1_767_268_800.0
"""2026-01-01T12:00:00Z."""
DAY = date(2026, 1, 1)

WORKER = """
import os, random, resource, signal, sys, time
from pathlib import Path
from gateway_middleware.metering.journal.state import JournalUnavailableError
from gateway_middleware.metering.journal.housekeeping import Retention
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.keeper import Keeper
from gateway_middleware.metering.journal.spool import Spool
from journaled import call, event

def tell(word, name):
    os.write(1, f"{word} {name}\\n".encode())

def keeper(path):
    spool = Spool(path)
    keeper = Keeper(spool, Retention(cap=10**6, on_full="reject", keeps=None), wall=time.time, clock=time.monotonic)
    while not keeper.begin():
        time.sleep(0.01)
    tell("ready", 0)
    while True:
        keeper.work()
        time.sleep(0.003)

def worker(path, seed, keeper="thread"):
    chance = random.Random(seed)
    journal = Journal(path, segment_bytes=3000, commit_delay=0.001, keeper=keeper)
    journal.start()
    tell("ready", seed)
    under_way, number = [], 0
    while True:
        name = f"{seed}-{number}"
        number += 1
        journal.open(call(name))
        tell("asked", name)
        under_way.append(name)
        while len(under_way) > chance.randrange(12):
            name = under_way.pop(chance.randrange(len(under_way)))
            if chance.random() < 0.2:
                tell("voiding", name)
                journal.void(name)
                tell("voided", name)
            else:
                journal.close(event(name))
                tell("told", name)
        time.sleep(0.0005)
"""


def call(name: str, *, tenant: str = "acme", time: float = NOON, tokens: int = 7) -> OpenCall:
    return OpenCall(
        id=name,
        time=time,
        tenant=tenant,
        provider="openai",
        deployment="openai/m",
        model="m",
        surface="chat",
        request_id=name,
        input_tokens=tokens,
    )


def event(
    name: str, *, tenant: str = "acme", time: float = NOON, cost: str | None = "0.1", raw: bytes = b"{}"
) -> UsageEvent:
    return UsageEvent(
        id=name,
        time=time,
        tenant=tenant,
        provider="openai",
        deployment="openai/m",
        model="m",
        surface="chat",
        request_id=name,
        outcome="success",
        usage=Usage(input_tokens=10, output_tokens=3),
        usage_source=UsageSource.PROVIDER,
        raw_usage=msgspec.Raw(raw),
        cost=cost,
    )


def run(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A process of its own that can import what tests import."""
    places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER + code, *map(str, arguments)],
        bufsize=0,  # what is read ahead would be lost to communicate()
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def spooled(path: Path) -> list[UsageEvent]:
    """Every undelivered event on disk."""
    spool = Spool(path)
    try:
        return usage_of(spool)
    finally:
        spool.close()


def usage_of(spool: Spool, limit: int = 1_000_000) -> list[UsageEvent]:
    """The undelivered usage events of an open spool."""
    return [event for event in spool.pending(limit) if isinstance(event, UsageEvent)]


def sums(path: Path) -> DailyTotal:
    """The one total of the one day."""
    spool = Spool(path)
    try:
        (total,) = spool.reconcile(DAY, DAY)
    finally:
        spool.close()
    return total


def leftovers(path: Path) -> list[Path]:
    """Segments that nobody has taken in."""
    return sorted(path.parent.glob(f"{path.name}.*.open"))
