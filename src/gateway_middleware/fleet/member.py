"""One process of a fleet: what it tells the others, what it hears of them, who they are."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware._version import __version__
from gateway_middleware.fleet.entries import Entry, Process
from gateway_middleware.fleet.link import INTERVAL, StoreLink
from gateway_middleware.fleet.shared_log import SharedLog

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.fleet.store import FleetStore

Listener = Callable[[Entry], None]
_ANSWER = ".answer"
_ANSWER_SECONDS = 10.0
_PUBLISH_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_FIRST_LOOKS = 5
_log = logging.getLogger("gateway_middleware")
_encode = msgspec.json.Encoder().encode


class FleetMember:
    """Tells all processes that share these stores what happens here, and hears what they tell.

    With several stores, what is heard from one is told to the others: each is a memory for the others' losses.
    `config_hash` gives that of the configuration in force. A listener is given every entry of its kind that says
    something new, also those from before this process began; never those of this process itself. What it raises is
    logged.
    """

    def __init__(
        self,
        stores: Sequence[FleetStore],
        *,
        config_hash: Callable[[], str],
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        interval: float = INTERVAL,
    ) -> None:
        self._config_hash = config_hash
        self._wall = wall
        self._process = _this_process(wall())
        self._shared_log = SharedLog(self._process.id, clock=clock, wall=wall)
        self._listeners: dict[str, list[Listener]] = {}
        self._questions: dict[str, dict[str, Entry]] = {}
        self.links = tuple(
            StoreLink(store, self._shared_log, on_entries=self._hear, describe=lambda: self.process, interval=interval)
            for store in stores
        )

    @property
    def process(self) -> Process:
        """This one."""
        config_hash = self._config_hash()
        if self._process.config_hash != config_hash:
            self._process = msgspec.structs.replace(self._process, config_hash=config_hash)
        return self._process

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Hear what is known, then stay in touch; on the way out take leave."""
        # Who made this may have forked since.
        self._process = _this_process(self._wall())
        self._shared_log.origin = self._process.id
        async with AsyncExitStack() as stack:
            for link in self.links:
                stack.push_async_callback(link.aclose)
            await asyncio.gather(*(_first_look(link) for link in self.links))
            tasks = [asyncio.get_running_loop().create_task(link.run()) for link in self.links]
            stack.push_async_callback(_ended, tasks)
            yield

    # Telling.

    def on(self, kind: str, listener: Listener) -> None:
        """Call this with every entry of a kind, from now on."""
        self._listeners.setdefault(kind, []).append(listener)

    def post(self, kind: str, key: str, body: Any, *, seconds: float | None) -> Entry:
        """Tell everybody, soon. `body` is anything that JSON can say; it holds for `seconds`, None: until replaced."""
        entry = self._shared_log.write(kind, key, _encode(body), seconds)
        for link in self.links:
            link.post(entry.name)
        return entry

    async def publish(self, kind: str, key: str, body: Any, *, seconds: float | None) -> bool:
        """Tell everybody; whether a store has it, from which the others take it within `INTERVAL`.

        False after a second without one: it is told as soon as a store is there.
        """
        entry = self.post(kind, key, body, seconds=seconds)
        await self._exchange(_PUBLISH_SECONDS)
        return any(link.is_told(entry.name) for link in self.links)

    async def told(self, entries: Iterable[Entry]) -> bool:
        """Wait until these are in the last of the stores, which most processes share; False after a second."""
        link = self.links[-1]
        # Not cancelled when the time is over: what was sent to a store is not taken back.
        await asyncio.wait([asyncio.ensure_future(link.tell())], timeout=_PUBLISH_SECONDS)
        return all(link.is_told(entry.name) for entry in entries)

    async def look(self) -> bool:
        """Hear now what is in the stores; False where the last of them, which most processes share, does not answer.

        It is given a second.
        """
        looks = [asyncio.ensure_future(link.exchange()) for link in self.links]
        if not looks:
            return True
        # Not cancelled when the time is over: what was sent to a store is not taken back.
        await asyncio.wait(looks, timeout=_PUBLISH_SECONDS)
        return looks[-1].done() and looks[-1].result()

    async def ask(self, kind: str, body: Any, *, within: float) -> Mapping[str, Entry]:
        """Have every other process answer; the answers that came within so many seconds, by the id of the process."""
        deadline = asyncio.get_running_loop().time() + within
        question = secrets.token_hex(8)
        answers = self._questions[question] = {}
        try:
            self.post(kind, question, body, seconds=_ANSWER_SECONDS)
            while (left := deadline - asyncio.get_running_loop().time()) > 0:
                await self._exchange(left)
                if not {process.id for process in self.others()} - answers.keys():
                    break
                await asyncio.sleep(min(_LOOK_SECONDS, left))
            return answers
        finally:
            del self._questions[question]

    def answer(self, question: Entry, body: Any) -> None:
        """The answer of this process."""
        self.post(question.kind + _ANSWER, f"{question.key}/{self._process.id}", body, seconds=_ANSWER_SECONDS)

    async def _exchange(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(link.exchange()) for link in self.links]
        if waits:
            # Not cancelled when the time is over: what was sent to a store is not taken back.
            await asyncio.wait(waits, timeout=seconds)

    # Hearing.

    @property
    def entry_count(self) -> int:
        """How many entries of all kinds are held; see `shared_log.MAX_ENTRIES`."""
        return len(self._shared_log)

    def entries(self, kind: str) -> list[Entry]:
        """All of a kind that hold now, oldest first, whoever wrote them."""
        return [entry for entry in self._shared_log.live() if entry.kind == kind]

    def others(self) -> list[Process]:
        """The other processes that live, as far as this one knows; the longest running first."""
        known: dict[str, Process] = {}
        for link in self.links:
            for process in link.processes:
                before = known.get(process.id)
                known[process.id] = process if before is None or process.silent < before.silent else before
        known.pop(self._process.id, None)
        alive = (process for process in known.values() if not self._is_dead(process))
        return sorted(alive, key=lambda process: (process.started, process.id))

    def _is_dead(self, process: Process) -> bool:
        """Whether it can be seen that it was killed."""
        if not process.machine or process.machine != self._process.machine:
            return False
        try:
            os.kill(process.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def _hear(self, source: StoreLink, entries: Sequence[Entry]) -> None:
        for entry in self._shared_log.read(entries):
            for link in self.links:
                if link is not source:
                    link.post(entry.name)
            if entry.kind.endswith(_ANSWER):
                question, _, process = entry.key.rpartition("/")
                self._questions.get(question, {})[process] = entry
            for listener in self._listeners.get(entry.kind, ()):
                _call(listener, entry)


def _call(listener: Listener, entry: Entry) -> None:
    try:
        listener(entry)
    except Exception:  # noqa: BLE001 - one bad entry must not keep the others from being heard
        _log.exception("Fleet: an entry of kind %s could not be taken", entry.kind)


async def _first_look(link: StoreLink) -> None:
    """A store that several processes make at once may be busy for a moment."""
    for _ in range(_FIRST_LOOKS):
        if await link.exchange():
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _this_process(now: float) -> Process:
    host = socket.gethostname()
    return Process(
        id=secrets.token_hex(8), host=host, pid=os.getpid(), started=round(now, 3), version=__version__,
        config_hash="", machine=_machine(host),
    )  # fmt: skip


def _machine(host: str) -> str:
    """Where this process's number means something: a container has numbers of its own."""
    try:
        return f"{host} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
