"""The state of the whole fleet for `/v1/admin/status`: every process reports, whoever is asked puts it together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from gateway_middleware._version import __version__
from gateway_middleware.composition.fleet import overall, row_of, standing
from gateway_middleware.composition.part import Fixed
from gateway_middleware.operations.fleet_status import fleet_status, process_row
from gateway_middleware.operations.process_report import ProcessReport, decode_report, encode_report

if TYPE_CHECKING:
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.self_report import SelfReport
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.fleet.entries import Entry, Process

KIND = "status"
_ANSWER_SECONDS = 1.0
_FRESH_SECONDS = 1.0
"""However many consoles are open, the fleet is asked once in so many seconds."""


T = TypeVar("T")


class FleetStatus(Fixed):
    """Asks all processes for their reports, and answers those that ask."""

    def __init__(self, fleet: Fleet, report: SelfReport, clocks: Clocks) -> None:
        self._fleet = fleet
        self._report = report
        self._clock, self._wall = clocks.monotonic, clocks.wall
        self._gathering: asyncio.Task[dict[str, Any]] | None = None
        self._gathered_at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        fleet.on(KIND, self._hear)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out nothing is asked or answered any more."""
        try:
            yield
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def document(self) -> dict[str, Any]:
        """The whole, at most a second old. Processes that do not answer within a second are listed as such."""
        task = self._gathering
        if task is None or (task.done() and self._clock() - self._gathered_at >= _FRESH_SECONDS):
            task = self._gathering = self._start(self._gather())
        # Whoever waits for it may leave; the others still get it.
        return await asyncio.shield(task)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _gather(self) -> dict[str, Any]:
        own = self._fleet.process
        try:
            reports = await self._reports(own)
        finally:
            self._gathered_at = self._clock()
        processes = [own, *self._fleet.others()]
        rows = [self._row(process, reports.get(process.id)) for process in processes]
        named = {_name(process): reports[process.id] for process in processes if process.id in reports}
        return {
            "generated_at": datetime.fromtimestamp(self._wall(), UTC),
            "version": __version__,
            "config_hash": own.config_hash,
            "config": overall(rows),
            "asked": _name(own),
            **fleet_status(named),
            "processes": rows,
        }

    async def _reports(self, own: Process) -> Mapping[str, ProcessReport]:
        """By process. This one's own goes through JSON as well, so that there is one form of everything."""
        answers = {} if self._fleet.is_alone else await self._fleet.ask(KIND, None, within=_ANSWER_SECONDS)
        reports = {process: decode_report(entry.body) for process, entry in answers.items()}
        tenants = {name for report in reports.values() for name in report.tenants}
        return reports | {own.id: decode_report(encode_report(await self._report.make(also=tenants)))}

    def _row(self, process: Process, report: ProcessReport | None) -> dict[str, Any]:
        return {
            **row_of(process),
            "standing": standing(process.config_hash, self._fleet.process.config_hash),
            **process_row(report),
        }

    def _hear(self, question: Entry) -> None:
        self._start(self._answer(question))

    async def _answer(self, question: Entry) -> None:
        self._fleet.answer(question, await self._report.make())


def _name(process: Process) -> str:
    return f"{process.host}/{process.pid}"
