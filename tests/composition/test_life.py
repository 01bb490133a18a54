"""One task starts the parts in order and stops them in reverse, whoever asks, is cancelled or fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway_middleware.composition.life import Life, Phase
from gateway_middleware.composition.part import Fixed
from gateway_middleware.core.errors import GatewayNotStartedError
from rig import Rig

pytestmark = pytest.mark.anyio


class Step(Fixed):
    """A part that writes down what happens to it, and fails as it is told."""

    def __init__(
        self, name: str, log: list[str], *, start: BaseException | None = None, stop: BaseException | None = None
    ) -> None:
        self._name = name
        self._log = log
        self._start = start
        self._stop = stop
        self.gate = asyncio.Event()
        self.gate.set()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        await self.gate.wait()
        if self._start is not None:
            raise self._start
        self._log.append(f"+{self._name}")
        try:
            yield
        finally:
            self._log.append(f"-{self._name}")
            if self._stop is not None:
                raise self._stop


def steps(log: list[str]) -> list[Step]:
    return [Step(name, log) for name in "abc"]


async def test_parts_start_in_order_and_stop_in_reverse() -> None:
    log: list[str] = []
    life = Life(steps(log))
    assert (life.phase, life.is_started, life.is_stopping) == (Phase.STARTING, False, False)
    await life.start()
    await life.start()
    assert (life.phase, life.is_started) == (Phase.SERVING, True)
    life.drain()
    assert (life.phase, life.is_started, life.is_stopping) == (Phase.DRAINING, True, True)
    await life.stop()
    await life.stop()
    assert (log, life.is_started) == (["+a", "+b", "+c", "-c", "-b", "-a"], False)
    with pytest.raises(GatewayNotStartedError, match="make a new one"):
        await life.start()


async def test_a_part_that_cannot_start_stops_those_before_it() -> None:
    log: list[str] = []
    life = Life([Step("a", log), Step("b", log, start=OSError("no disk")), Step("c", log)])
    with pytest.raises(GatewayNotStartedError, match="no disk") as caught:
        await life.start()
    assert isinstance(caught.value.__cause__, OSError)
    assert (log, life.is_started, life.phase) == (["+a", "-a"], False, Phase.DRAINING)
    with pytest.raises(GatewayNotStartedError):
        await life.start()
    await life.stop()


async def test_a_part_that_cannot_stop_hinders_no_other_one() -> None:
    log: list[str] = []
    life = Life([Step("a", log), Step("b", log, stop=OSError("stuck")), Step("c", log)])
    await life.start()
    with pytest.raises(OSError, match="stuck"):
        await life.stop()
    assert log[-3:] == ["-c", "-b", "-a"]


async def test_a_first_caller_that_is_cancelled_cancels_nothing() -> None:
    log: list[str] = []
    parts = steps(log)
    parts[1].gate.clear()
    life = Life(parts)
    first = asyncio.create_task(life.start_late())
    second = asyncio.create_task(life.start_late())
    while log != ["+a"]:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    parts[1].gate.set()
    await second
    assert (log, life.is_started) == (["+a", "+b", "+c"], True)
    await life.stop()


async def test_a_start_that_hangs_can_be_stopped(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    parts = steps(log)
    parts[1].gate.clear()
    life = Life(parts)
    starting = asyncio.create_task(life.start())
    while log != ["+a"]:
        await asyncio.sleep(0)
    await life.stop()
    with pytest.raises(GatewayNotStartedError, match="was stopped before it had started"):
        await starting
    assert log == ["+a", "-a"]
    assert caplog.text == "", "who is asked to stop has not failed"


async def test_a_late_start_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    life = Life(steps([]))
    await life.start_late()
    await life.start_late()
    assert caplog.text.count("did not enter gateway.lifespan()") == 1
    await life.stop()


async def test_whoever_calls_a_gateway_that_is_closed_is_told_in_the_dialect() -> None:
    rig = Rig()
    assert (await rig.call()).status == 200
    await rig.gateway.aclose()
    answer = await rig.call(path="/v1/messages")
    assert (answer.status, answer.json()["error"]["type"]) == (503, "overloaded_error")
    assert answer.headers["retry-after"] == "1"
    assert (await rig.call()).json()["error"]["code"] == "not_running"


async def test_a_life_that_never_began_can_be_stopped() -> None:
    life = Life(steps([]))
    await life.stop()
    with pytest.raises(GatewayNotStartedError):
        await life.start()


@pytest.mark.parametrize("turns", range(4))
async def test_a_stop_at_any_moment_of_the_start_leaves_nobody_waiting(turns: int) -> None:
    log: list[str] = []
    life = Life(steps(log))
    waiting = [asyncio.create_task(life.start()) for _ in range(2)]
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await life.stop()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(result is None or isinstance(result, GatewayNotStartedError) for result in results)
    assert log in ([], ["+a", "+b", "+c", "-c", "-b", "-a"])


async def test_a_lifespan_scope_starts_and_stops_a_gateway_that_is_the_application_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Mounted nowhere, as in `uvicorn.run(gateway)`: what the server says of its life is meant for it."""
    rig = Rig()
    kinds = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if sent:
            assert (await rig.call()).status == 200
        return {"type": next(kinds)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await rig.gateway({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert "started at the first call" not in caplog.text
    assert (await rig.call()).json()["error"]["code"] == "not_running"
