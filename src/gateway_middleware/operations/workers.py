"""Metrics of several worker processes as one: each leaves a snapshot of its own, and a scrape of any adds them up.

A snapshot is at most a second old. That of a process which has ended still counts, so counters never go back; gauges
are those of living processes. The directory belongs to one server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.core import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Families = Callable[[], Iterable[Metric]]

_SECONDS = 1.0
_SUFFIX = ".metrics"
_MAXIMA = frozenset(
    {
        "model_gateway_circuit_breaker_state",
        "model_gateway_cooling_down",
        "model_gateway_event_loop_lag_seconds",
        "model_gateway_journal_backlog",
        "model_gateway_journal_dead_letters",
        "model_gateway_journal_state",
        "model_gateway_limit",
        "model_gateway_limit_remaining",
        "model_gateway_storage_degraded",
        "model_gateway_usage_delivery_failures",
        "model_gateway_usage_delivery_lag_seconds",
    }
)
"""Gauges that say the same in each process, or whose worst matters: they are not added up."""


class Family(msgspec.Struct):
    """A metric family with its samples: name, labels, value."""

    name: str
    type: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Family]).decode


class WorkerMetrics:
    """The metrics of this process in the company of others. `families` are its own."""

    def __init__(self, directory: Path, families: Families) -> None:
        self._own = directory / f"{os.getpid()}{_SUFFIX}"
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

    def write(self) -> None:
        """One snapshot, whole or not at all."""
        draft = self._own.with_suffix(".draft")
        with contextlib.suppress(OSError):
            draft.write_bytes(_encode([_kept(family) for family in self._families()]))
            draft.replace(self._own)

    def collect(self) -> Iterable[Metric]:
        """The sums over all processes, of which this one is up to date."""
        merged: dict[str, Family] = {}
        for family in self._families():
            merged[family.name] = _kept(family)
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            if path != self._own:
                self._add(merged, path)
        return [_metric(family) for family in merged.values()]

    def _add(self, merged: dict[str, Family], path: Path) -> None:
        is_alive = _is_alive(int(path.stem))
        try:
            found = _decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return
        for family in found:
            if is_alive or family.type != "gauge":
                known = merged.get(family.name)
                merged[family.name] = family if known is None else _sum(known, family)


def _kept(family: Metric) -> Family:
    samples = [(s.name, dict(s.labels), float(s.value)) for s in family.samples]
    return Family(family.name, family.type, family.documentation, samples)


def _sum(one: Family, other: Family) -> Family:
    totals = {(name, *sorted(labels.items())): (name, labels, value) for name, labels, value in one.samples}
    combine = max if one.name in _MAXIMA else float.__add__
    for name, labels, value in other.samples:
        key = (name, *sorted(labels.items()))
        before = totals.get(key)
        totals[key] = (name, labels, value if before is None else combine(before[2], value))
    return Family(one.name, one.type, one.text, list(totals.values()))


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
