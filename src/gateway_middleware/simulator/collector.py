"""`python -m gateway_middleware.simulator.collector`: what `usage-metering` must do, and what it may do to us.

    async with Collector().serve() as server:
        ...                                # POST batches of CloudEvents to any path of server.url
        server.collector.behave(Fault(status=503), times=2)

An event is named by `source` and `id`. That name is written in the same transaction as the event, and nothing is
acknowledged before. A batch is taken whole or not at all. Over HTTP: `GET /totals`, `GET /events`, and
`POST /control/faults` with `{"fault": {...}, "times": 2}`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Literal

import msgspec

from gateway_middleware.simulator.connection import Connection, Connections
from gateway_middleware.simulator.event_loop import loop_factory
from gateway_middleware.simulator.heads import status_line
from gateway_middleware.simulator.ledger import Ledger, Stored, Totals, read_batch
from gateway_middleware.simulator.record import Received, Request, RequestLog
from gateway_middleware.simulator.script import End, Step

_CONTENT_TYPE = b"application/cloudevents-batch+json"


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do wrong.

    `status` is answered instead, with `retry_after` and `body`; `stores`: but the events are stored before. `ends`:
    whether the answer is sent, or the connection dropped, or left hanging. `max_events`: 413 above it. `poison`: 400
    for a batch with one of these ids. `refuses_known`: this status, and nothing stored, for a batch with an event that
    is known.
    """

    status: int | None = None
    retry_after: str | None = None
    body: str = ""
    stores: bool = False
    ends: Literal["answer", "drop", "hang"] = "answer"
    max_events: int | None = None
    poison: frozenset[str] = frozenset()
    refuses_known: int | None = None


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    fault: Fault
    times: int | None = None


class CollectorServer(msgspec.Struct, frozen=True, kw_only=True):
    """A collector that listens."""

    url: str
    port: int
    collector: Collector


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Collector:
    """Takes usage events. `database`: an SQLite file, which outlives the process. `token`: the only one to take."""

    def __init__(self, *, database: str = ":memory:", token: str | None = None) -> None:
        self.log = RequestLog(time.time, record=True, capacity=1000)
        self._ledger = Ledger(database)
        self._token = token
        self._orders: list[_Order] = []

    @property
    def events(self) -> list[Stored]:
        """Each once, in the order they came."""
        return self._ledger.events()

    @property
    def duplicates(self) -> int:
        """How often an event came again."""
        return self._ledger.count("seen - 1")

    @property
    def conflicts(self) -> int:
        """How often an event came again with other bytes."""
        return self._ledger.count("differing")

    @property
    def totals(self) -> dict[str, Totals]:
        """By tenant."""
        return self._ledger.totals()

    def behave(self, fault: Fault, *, times: int | None = None) -> None:
        """Do so for the next `times` batches, or from now on. What was ordered last goes first."""
        self._orders.insert(0, _Order(fault=fault, times=times))

    def behave_well(self) -> None:
        """Forget all faults."""
        self._orders.clear()

    @contextlib.asynccontextmanager
    async def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[CollectorServer]:
        """Listen inside the block. At its end, connections that are still open are cut."""
        connections = Connections()
        listening = await asyncio.get_running_loop().create_server(
            lambda: Connection(self, connections, None), host, port
        )
        chosen: int = listening.sockets[0].getsockname()[1]
        try:
            yield CollectorServer(url=f"http://{host}:{chosen}", port=chosen, collector=self)
        finally:
            listening.close()
            await connections.abort()
            await listening.wait_closed()

    def close(self) -> None:
        """Close the database."""
        self._ledger.close()

    def respond(self, request: Request) -> tuple[Received | None, bytes | Iterator[Step]]:
        """The entry in the log (None for what is no batch) and what to send."""
        route = (request.method, request.target.partition(b"?")[0])
        if route[0] == "POST" and route[1] != b"/control/faults":
            entry = self.log.begin(request)
            fault = self._next_fault()
            entry.status, answer = self._take(request, fault)
            return entry, answer if fault.ends == "answer" else _cut(fault)
        return None, self._tell(route, request.body)

    def _tell(self, route: tuple[str, bytes], body: bytes) -> bytes:
        if route == ("GET", b"/totals"):
            counts = {"events": len(self._ledger), "duplicates": self.duplicates, "conflicts": self.conflicts}
            return _answer(200, {**counts, "tenants": self.totals})
        if route == ("GET", b"/events"):
            return _answer(200, [stored.event for stored in self.events])
        if route == ("POST", b"/control/faults"):
            try:
                self._orders.insert(0, msgspec.json.decode(body, type=_Order))
            except ValueError as error:
                return _answer(400, {"error": str(error)})
            return _answer(200, {"orders": len(self._orders)})
        return _answer(404, {"error": "There are GET /totals, GET /events and POST of batches."})

    def _next_fault(self) -> Fault:
        for order in self._orders:
            if order.times is None:
                return order.fault
            if order.times > 0:
                order.times -= 1
                return order.fault
        return Fault()

    def _take(self, request: Request, fault: Fault) -> tuple[int, bytes]:
        try:
            if fault.status is None or fault.stores:
                self._store(request, fault)
        except _RefusedError as error:
            return error.status, _answer(error.status, {"error": str(error)})
        if fault.status is None:
            return 202, _answer(202, None)
        return fault.status, _answer(fault.status, fault.body, retry_after=fault.retry_after)

    def _store(self, request: Request, fault: Fault) -> None:
        headers = dict(request.headers)
        if self._token is not None and headers.get(b"authorization") != f"Bearer {self._token}".encode():
            raise _RefusedError(401, "wrong token")
        if headers.get(b"content-type", b"").partition(b";")[0].strip() != _CONTENT_TYPE:
            raise _RefusedError(415, "not application/cloudevents-batch+json")
        try:
            batch = read_batch(request.body)
        except ValueError as error:
            raise _RefusedError(400, str(error)) from None
        self._refuse(batch, fault)
        self._ledger.store(batch)

    def _refuse(self, batch: Sequence[Stored], fault: Fault) -> None:
        if fault.max_events is not None and len(batch) > fault.max_events:
            raise _RefusedError(413, "too many events")
        if not fault.poison.isdisjoint(stored.id for stored in batch):
            raise _RefusedError(400, "an event cannot be read")
        if fault.refuses_known is not None and self._ledger.knows_any(batch):
            raise _RefusedError(fault.refuses_known, "duplicate")


def _cut(fault: Fault) -> Iterator[Step]:
    yield End.STALL if fault.ends == "hang" else End.RESET


def _answer(status: int, document: object, *, retry_after: str | None = None) -> bytes:
    body = b"" if document is None else msgspec.json.encode(document)
    wait = b"" if retry_after is None else b"retry-after: %b\r\n" % retry_after.encode()
    head = status_line(status) + wait + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="gateway_middleware.simulator.collector", description="A usage-metering.")
    made.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    made.add_argument("--port", type=int, default=9200, help="0 takes a free one (default 9200)")
    made.add_argument("--database", default=":memory:", help="an SQLite file to keep the events in (default: none)")
    made.add_argument("--token", help="the only bearer token to take (default: any)")
    made.add_argument("--fault", default="{}", help='what to do wrong from the beginning, in JSON: {"status": 503}')
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM."""
    options = parser().parse_args(arguments)
    try:
        fault = msgspec.json.decode(options.fault, type=Fault)
    except ValueError as error:
        sys.stderr.write(f"collector: --fault: {error}\n")
        return 2
    collector = Collector(database=options.database, token=options.token)
    collector.behave(fault)
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        return runner.run(_run(collector, options))


async def _run(collector: Collector, options: argparse.Namespace) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        async with collector.serve(host=options.host, port=options.port) as server:
            sys.stdout.write(f"Collector listening on {server.url}\n")
            sys.stdout.flush()
            await stopped.wait()
    except OSError as error:
        sys.stderr.write(f"collector: {error}\n")
        return 1
    finally:
        collector.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
