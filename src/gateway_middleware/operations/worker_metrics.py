"""Metrics of several worker processes as one: each writes a snapshot to a file, and a scrape of any merges them.

A snapshot is at most a second old, and never older than what its process has told itself. That of a process which has
ended still counts, so counters never go back; gauges are those of living processes. The directory belongs to one
server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.core import Metric

from gateway_middleware.operations.metric import Aggregation, aggregation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Families = Callable[[], Iterable[Metric]]

_SECONDS = 1.0
_SUFFIX = ".metrics"


class Family(msgspec.Struct):
    """A metric family with its samples: name, labels, value."""

    name: str
    type: str
    text: str
    aggregation: Aggregation
    samples: list[tuple[str, dict[str, str], float]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Family]).decode


class WorkerMetrics:
    """The metrics of this process merged with those of the others. `families` are its own, `pid` is its number."""

    def __init__(self, directory: Path, families: Families, *, pid: int | None = None) -> None:
        self._own = directory / f"{pid or os.getpid()}{_SUFFIX}"
        self._directory = directory
        self._families = families
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Leave snapshots, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Leave the last one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.write()

    async def _run(self) -> None:
        while True:
            self.write()
            await asyncio.sleep(_SECONDS)

    def write(self) -> list[Family]:
        """Leave a snapshot, whole or not at all; returns it."""
        snapshot = [_snapshot(family) for family in self._families()]
        draft = self._own.with_suffix(".draft")
        with contextlib.suppress(OSError):
            draft.write_bytes(_encode(snapshot))
            draft.replace(self._own)
        return snapshot

    def collect(self) -> Iterable[Metric]:
        """The values of all processes as one, each metric by its aggregation; those of this process are up to date."""
        # What is told here is left for the others first: were this process killed next, no counter would go back.
        merged = {family.name: family for family in self.write()}
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            if path != self._own:
                self._add(merged, path)
        return [_metric(family) for family in merged.values()]

    def _add(self, merged: dict[str, Family], path: Path) -> None:
        is_alive = _is_alive(int(path.stem))
        try:
            families = _decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return
        for family in families:
            if is_alive or family.type != "gauge":
                known = merged.get(family.name)
                merged[family.name] = family if known is None else _merged(known, family)


def _snapshot(family: Metric) -> Family:
    samples = [(s.name, dict(s.labels), float(s.value)) for s in family.samples]
    return Family(family.name, family.type, family.documentation, aggregation_of(family), samples)


def _merged(one: Family, other: Family) -> Family:
    totals = {(name, *sorted(labels.items())): (name, labels, value) for name, labels, value in one.samples}
    combine = max if one.aggregation is Aggregation.MAX else float.__add__
    for name, labels, value in other.samples:
        key = (name, *sorted(labels.items()))
        before = totals.get(key)
        totals[key] = (name, labels, value if before is None else combine(before[2], value))
    return Family(one.name, one.type, one.text, one.aggregation, list(totals.values()))


def _metric(family: Family) -> Metric:
    metric = Metric(family.name, family.text, family.type)
    for name, labels, value in family.samples:
        metric.add_sample(name, labels, value)
    return metric


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
