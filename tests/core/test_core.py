"""The ground floor: endpoints, scope keys, outcomes, and the race against a client that leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway_middleware.core import errors
from gateway_middleware.core.asgi import UntilDisconnect, Watchtower, route_path
from gateway_middleware.core.domain import Dialect, Outcome, Surface
from gateway_middleware.core.endpoints import Access, guess_dialect, locate
from gateway_middleware.core.errors import ClientDisconnectedError, ContextError
from gateway_middleware.core.outcomes import outcome_of
from gateway_middleware.core.scope import ScopeKey


@pytest.mark.parametrize(
    ("path", "surface", "dialect", "argument"),
    [
        ("/v1/chat/completions", Surface.CHAT, Dialect.OPENAI, None),
        ("/v1/messages", Surface.MESSAGES, Dialect.ANTHROPIC, None),
        ("/anthropic/v1/messages/count_tokens", Surface.COUNT_TOKENS, Dialect.ANTHROPIC, None),
        ("/openai/v1/responses", Surface.RESPONSES, Dialect.AZURE, None),
        ("/openai/responses", Surface.RESPONSES, Dialect.AZURE, None),
        ("/openai/deployments/gpt/chat/completions", Surface.CHAT, Dialect.AZURE, "gpt"),
        ("/openai/deployments/openai/gpt-5/embeddings", Surface.EMBEDDINGS, Dialect.AZURE, "openai/gpt-5"),
    ],
)
def test_surfaces(path: str, surface: Surface, dialect: Dialect, argument: str | None) -> None:
    found = locate(path)

    assert found is not None
    assert (found.surface, found.dialect, found.argument) == (surface, dialect, argument)
    assert found.access is Access.TENANT


@pytest.mark.parametrize(
    "path",
    ["", "//", "/v1", "/v1/chat/completions/", "//v1/chat/completions", "/V1/messages",
     "/openai/deployments//embeddings", "/v1/providers//status", "/v1/providers/a/b/status", "/healthz/", "/v1/files"],
)  # fmt: skip
def test_nothing_else_is_an_endpoint(path: str) -> None:
    assert locate(path) is None


def test_only_operations_are_open() -> None:
    assert {p for p in ("/healthz", "/readyz", "/v1/health", "/v1/providers") if locate(p)} == {
        "/healthz", "/readyz", "/v1/health", "/v1/providers",
    }  # fmt: skip
    models = locate("/v1/models/any/name")
    assert models is not None
    assert (models.access, models.argument) == (Access.TENANT, "any/name")


@pytest.mark.parametrize(
    ("path", "names", "dialect"),
    [
        ("/x", frozenset(), Dialect.OPENAI),
        ("/v1/messages/batches", frozenset(), Dialect.ANTHROPIC),
        ("/x", frozenset({b"anthropic-version"}), Dialect.ANTHROPIC),
        ("/openai/files", frozenset(), Dialect.AZURE),
    ],
)
def test_the_dialect_of_a_path_that_is_none(path: str, names: frozenset[bytes], dialect: Dialect) -> None:
    assert guess_dialect(path, names) is dialect


@pytest.mark.parametrize(
    ("path", "root", "found"),
    [("/llm/v1/x", "/llm", "/v1/x"), ("/llm", "/llm", "/"), ("/llmx/v1", "/llm", "/llmx/v1"), ("/v1/x", "", "/v1/x")],
)
def test_the_path_below_a_mount(path: str, root: str, found: str) -> None:
    assert route_path({"path": path, "root_path": root}) == found


def test_a_key_is_written_once_and_names_the_cure() -> None:
    key: ScopeKey[int] = ScopeKey("number", set_by="Someone")
    scope: dict[str, Any] = {}

    with pytest.raises(ContextError, match="put Someone further out"):
        key.get(scope)
    assert key.peek(scope) is None
    key.set(scope, 1)
    with pytest.raises(ContextError, match="Someone in the stack twice"):
        key.set(scope, 2)
    assert key.get(scope) == 1


def _status(status: int) -> errors.UpstreamStatusError:
    return errors.UpstreamStatusError("x", upstream_status=status, upstream_headers=[], body=b"")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.SUCCESS),
        (_status(400), Outcome.CLIENT_ERROR),
        (_status(429), Outcome.THROTTLED),
        (_status(529), Outcome.SERVER_ERROR),
        (errors.UpstreamConnectError("x"), Outcome.CONNECT_ERROR),
        (errors.UpstreamTimeoutError("x", phase="idle"), Outcome.TIMEOUT),
        (errors.ProviderAuthError("x"), Outcome.PROVIDER_AUTH),
        (errors.UpstreamProtocolError("x"), Outcome.PROTOCOL_ERROR),
        (errors.RateLimitedError("x"), Outcome.REFUSED),
        (errors.UnknownModelError("x"), Outcome.CLIENT_ERROR),
        (errors.ClientDisconnectedError(), Outcome.CLIENT_DISCONNECT),
        (asyncio.CancelledError(), Outcome.CLIENT_DISCONNECT),
        (ValueError("x"), Outcome.GATEWAY_ERROR),
    ],
)
def test_outcomes(error: BaseException | None, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome


class Client:
    """A `receive` that says nothing until `leave` is called."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


@pytest.mark.anyio
async def test_a_client_that_leaves_interrupts_the_block() -> None:
    client = Client()
    asyncio.get_running_loop().call_later(0.01, client.left.set)

    with pytest.raises(ClientDisconnectedError):
        with UntilDisconnect(client.receive, Watchtower(patience=0)):
            await asyncio.Event().wait()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.anyio
async def test_a_block_that_ends_first_is_not_disturbed() -> None:
    client = Client()
    before = asyncio.all_tasks()

    with UntilDisconnect(client.receive, Watchtower(patience=0)):
        await asyncio.sleep(0.001)
    client.left.set()
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == before


@pytest.mark.anyio
async def test_a_cancellation_from_outside_stays_one() -> None:
    async def block() -> None:
        with UntilDisconnect(Client().receive, Watchtower(patience=0)):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await asyncio.sleep(0.005)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.anyio
async def test_an_error_of_the_block_is_kept() -> None:
    with pytest.raises(ValueError, match="mine"):
        with UntilDisconnect(Client().receive, Watchtower(patience=0)):
            raise ValueError("mine")


@pytest.mark.anyio
async def test_a_client_that_does_not_read_has_left() -> None:
    async def stuck(_: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ClientDisconnectedError):
        with UntilDisconnect(Client().receive, Watchtower(patience=0), stall=0.04) as watch:
            await watch.send(stuck, {})


@pytest.mark.anyio
async def test_a_slow_reader_that_reads_stays() -> None:
    async def slow(_: Any) -> None:
        await asyncio.sleep(0.004)

    with UntilDisconnect(Client().receive, Watchtower(patience=0), stall=0.02) as watch:
        for _ in range(20):
            await watch.send(slow, {})


@pytest.mark.anyio
async def test_a_client_that_leaves_while_it_does_not_read_leaves_once() -> None:
    async def stuck(_: Any) -> None:
        await asyncio.Event().wait()

    client = Client()
    client.left.set()

    async def block(watch: UntilDisconnect) -> None:
        try:
            await watch.send(stuck, {})
        finally:
            await asyncio.sleep(0.05)  # the stall is noticed while the block cleans up

    with pytest.raises(ClientDisconnectedError):
        with UntilDisconnect(client.receive, Watchtower(patience=0), stall=0.02) as watch:
            await block(watch)


@pytest.mark.anyio
async def test_a_block_outside_of_a_task_is_refused() -> None:
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def callback() -> None:
        try:
            with UntilDisconnect(Client().receive, Watchtower()):
                pass
        except RuntimeError as error:
            refused.set_result(str(error))

    asyncio.get_running_loop().call_soon(callback)
    assert await refused == "UntilDisconnect needs a running task"
