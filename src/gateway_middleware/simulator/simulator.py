"""The simulator: three providers behind one port."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Collection, Iterator

import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.simulator import control
from gateway_middleware.simulator.answering import Answering
from gateway_middleware.simulator.behaviour import PLAIN, Behaviour, Match, Replay, Rule, Rulebook
from gateway_middleware.simulator.calls import Call, understand
from gateway_middleware.simulator.connection import Connection, Connections
from gateway_middleware.simulator.places import CONTROL, Place, locate
from gateway_middleware.simulator.ready import ReadyAnswers, whole
from gateway_middleware.simulator.record import Counters, Received, Request, RequestLog
from gateway_middleware.simulator.script import Step

_BACKLOG = 4096
_MAX_PLACES = 4096


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A simulator that listens."""

    url: str
    host: str
    port: int
    simulator: Simulator


class Simulator:
    """Fake OpenAI, Anthropic and Azure OpenAI.

    `seed` makes ids and chances repeatable. `clock` is wall time, for what is written into answers and log. `keys` are
    the credentials that are taken, None takes any; with `has_accounts` each has stored responses of its own.
    `behaviour` is for requests that neither a rule nor a model name says more about. `keep_alive` closes connections
    that were idle for so many seconds. `record` off keeps no log.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        clock: Clock = time.time,
        keys: Collection[str] | None = None,
        has_accounts: bool = False,
        behaviour: Behaviour = PLAIN,
        record: bool = True,
        capacity: int = 1000,
        keep_alive: float | None = None,
    ) -> None:
        self.rules = Rulebook()
        self.log = RequestLog(clock, record=record, capacity=capacity)
        self._answering = Answering(
            self.rules, seed=seed, clock=clock, keys=keys, has_accounts=has_accounts, default=behaviour
        )
        self._ready = ReadyAnswers(clock)
        self._keep_alive = keep_alive
        self._places: dict[bytes, Place] = {}
        self._seed = seed
        self._answered = 0

    @property
    def requests(self) -> list[Received]:
        """The log, oldest first."""
        return self.log.entries

    @property
    def counters(self) -> Counters:
        """How many, and how many at a time."""
        return self.log.counters

    def behave(
        self,
        behaviour: Behaviour,
        *,
        model: str = "*",
        surface: str = "*",
        provider: str = "*",
        path: str = "*",
        times: int | None = None,
    ) -> None:
        """Answer the next `times` matching requests so, or all from now on. The four are shell patterns."""
        match = Match(model=model, surface=surface, provider=provider, path=path)
        self.rules.add(Rule(behaviour=behaviour, match=match, times=times))

    def replay(self, replay: Replay, *, path: str = "*", times: int | None = 1, gap: float = 0.0) -> None:
        """Answer the next requests to a path (a shell pattern) with a recorded answer, whatever they ask."""
        self.behave(Behaviour(replay=replay, gap=gap), path=path, times=times)

    def clear(self) -> None:
        """Forget all rules and the log."""
        self.rules.clear()
        self.log.clear()

    @contextlib.asynccontextmanager
    async def serve(
        self, *, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
    ) -> AsyncIterator[Server]:
        """Listen inside the block. At its end, connections that are still open are cut."""
        connections = Connections()
        listening = await asyncio.get_running_loop().create_server(
            lambda: Connection(self, connections, self._keep_alive), host, port, ssl=ssl_context, backlog=_BACKLOG
        )
        chosen: int = listening.sockets[0].getsockname()[1]
        authority = f"[{host}]:{chosen}" if ":" in host else f"{host}:{chosen}"
        scheme = "http" if ssl_context is None else "https"
        try:
            yield Server(url=f"{scheme}://{authority}", host=host, port=chosen, simulator=self)
        finally:
            listening.close()
            await connections.abort()
            await listening.wait_closed()

    def respond(self, request: Request) -> tuple[Received | None, bytes | Iterator[Step]]:
        """The entry in the log (None for a control request) and what to send."""
        ready = None if self.rules else self._ready.find(request)
        if ready is not None:
            entry = self.log.begin(request)
            entry.provider, entry.surface, entry.model, entry.status = ready.provider, ready.surface, ready.model, 200
            number = self._next_number()
            if ready.task is not None:
                self._answering.stored.keep(msgspec.structs.replace(ready.task, number=number))
            return entry, ready.numbered(number)
        place = self._place(request.target)
        if place.kind == CONTROL:
            return None, control.respond(self, request, place.path)
        return self._answer(request, understand(request, place))

    def _answer(self, request: Request, call: Call) -> tuple[Received, bytes | Iterator[Step]]:
        entry = self.log.begin(request)
        entry.provider, entry.surface, entry.model = call.place.provider, call.place.kind, call.model
        number = self._next_number()
        outcome = self._answering.answer(call, number)
        entry.status = outcome.status
        if not outcome.is_plain:
            return entry, outcome.steps
        answer = whole(outcome.steps)
        if not self.rules:
            self._ready.keep(request, answer, entry, number=number, task=outcome.task)
        return entry, answer

    def _place(self, target: bytes) -> Place:
        place = self._places.get(target)
        if place is None:
            if len(self._places) >= _MAX_PLACES:
                self._places.clear()
            place = self._places[target] = locate(target)
        return place

    def _next_number(self) -> str:
        self._answered += 1
        return f"sim{self._seed:x}n{self._answered:08d}"
