"""What the vendors would refuse, and which headers they send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway_middleware.simulator import Server, Simulator
from simulated import CREDENTIALS, PATHS, Wire, call, chat_body, exchange, request_bytes

pytestmark = pytest.mark.anyio
PROVIDERS = list(PATHS)
DATED = "/openai/deployments/gpt/chat/completions"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Simulator().serve() as found:
        yield found


async def send(
    server: Server, path: str, body: Any, headers: dict[str, str] | None = None, method: str = "POST"
) -> Wire:
    request = request_bytes(path, body, {"connection": "close", **(headers or {})}, method)
    return await exchange(server, request, patience=1)


def error_of(wire: Wire, provider: str) -> Any:
    """The error, after its dialect was looked at."""
    document = wire.json
    assert (document.get("type") == "error") is (provider == "anthropic")
    assert ("request_id" in document) is (provider == "anthropic")
    if provider == "openai":
        assert set(document["error"]) == {"message", "type", "param", "code"}
    if provider == "azure":
        assert "code" in document["error"]
    return document["error"]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("other", ["x-api-key", "api-key", "authorization", "nothing"])
async def test_a_credential_in_the_wrong_header_is_none(server: Server, provider: str, other: str) -> None:
    own = {"openai": set(), "anthropic": {"x-api-key"}, "azure": {"api-key"}}[provider] | {"authorization"}
    value = "Bearer k" if other == "authorization" else "k"
    wire = await send(server, PATHS[provider], chat_body("gpt"), {other: value, "anthropic-version": "2023-06-01"})

    assert wire.status == (200 if other in own else 401)
    if wire.status == 401:
        assert error_of(wire, provider)["message"]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_only_the_given_keys_are_taken(provider: str) -> None:
    async with Simulator(keys={"sk-right"}).serve() as server:
        headers = {"authorization": "Bearer sk-right", "anthropic-version": "2023-06-01"}
        right = await send(server, PATHS[provider], chat_body("gpt"), headers)
        wrong = await send(server, PATHS[provider], chat_body("gpt"), {**headers, "authorization": "Bearer sk-wrong"})

    assert (right.status, wrong.status) == (200, 401)
    assert "sk-wrong" in error_of(wrong, provider)["message"]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_missing_model_is_404(server: Server, provider: str) -> None:
    wire = await call(server, "missing-one", provider=provider)

    assert wire.status == 404
    assert error_of(wire, provider)


async def test_a_missing_model_of_the_responses_api_is_400(server: Server) -> None:
    wire = await send(server, "/v1/responses", {"model": "missing-one", "input": "x"}, CREDENTIALS["openai"])

    assert wire.status == 400
    assert error_of(wire, "openai")["code"] == "model_not_found"


BAD: list[tuple[str, Any]] = [
    ("no model", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
    ("no messages", {"model": "gpt", "max_tokens": 1}),
    ("empty messages", {"model": "gpt", "messages": [], "max_tokens": 1}),
    ("wrong type", {"model": "gpt", "messages": "x", "max_tokens": 1}),
    ("not JSON", b"{nope"),
    ("not UTF-8", b'{"model":"\xff"}'),
    ("nothing", b""),
    ("too deep", b'{"model":"gpt","input":' + b"[" * 100_000),
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", [body for _, body in BAD], ids=[name for name, _ in BAD])
async def test_a_wrong_body_is_400_in_the_dialect(server: Server, provider: str, body: Any) -> None:
    wire = await send(server, PATHS[provider], body, CREDENTIALS[provider])

    assert wire.status == 400
    assert error_of(wire, provider)["message"]


REQUIRED = {
    "/v1/completions": "prompt",
    "/v1/responses": "input",
    "/v1/embeddings": "input",
    "/v1/moderations": "input",
    "/v1/images/generations": "prompt",
    "/v1/audio/speech": "input",
    "/v1/audio/transcriptions": "file",
}


@pytest.mark.parametrize(("path", "field"), REQUIRED.items())
async def test_each_surface_has_its_required_field(server: Server, path: str, field: str) -> None:
    wire = await send(server, path, {"model": "m"}, CREDENTIALS["openai"])

    assert wire.status == 400
    assert error_of(wire, "openai")["param"] == field


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_anthropic_wants_its_version(server: Server, path: str) -> None:
    wire = await send(server, path, chat_body("claude"), {"x-api-key": "k"})

    assert wire.status == 400
    assert "anthropic-version" in error_of(wire, "anthropic")["message"]


async def test_messages_want_max_tokens(server: Server) -> None:
    body = chat_body("claude")
    del body["max_tokens"]
    wire = await send(server, PATHS["anthropic"], body, CREDENTIALS["anthropic"])

    assert error_of(wire, "anthropic")["message"] == "max_tokens: Field required"


@pytest.mark.parametrize(("path", "status"), [(DATED, 404), (f"{DATED}?api-version=2024-10-21", 200)])
async def test_dated_azure_paths_want_an_api_version(server: Server, path: str, status: int) -> None:
    assert (await send(server, path, chat_body("x"), CREDENTIALS["azure"])).status == status


UNKNOWN = [
    ("POST", "/v1/nothing", "openai", 404),
    ("GET", "/v1/messages/batches", "anthropic", 404),
    ("POST", "/openai/nothing", "azure", 404),
    ("POST", "/openai/deployments/gpt/responses?api-version=2024-10-21", "azure", 404),
    ("GET", "/v1/chat/completions", "openai", 405),
    ("POST", "/v1/models", "openai", 405),
]


@pytest.mark.parametrize(("method", "path", "provider", "status"), UNKNOWN)
async def test_unknown_paths_and_methods(server: Server, method: str, path: str, provider: str, status: int) -> None:
    wire = await send(server, path, {}, CREDENTIALS[provider], method)

    assert wire.status == status
    assert error_of(wire, provider)["message"]


async def test_a_name_that_cannot_be_read_is_400_and_says_why(server: Server) -> None:
    wire = await call(server, "sim-explode-7")

    assert wire.status == 400
    assert "explode-7" in error_of(wire, "openai")["message"]


async def test_models_are_in_the_shape_that_the_headers_ask_for(server: Server) -> None:
    both = {**CREDENTIALS["openai"], **CREDENTIALS["anthropic"]}
    openai = await send(server, "/v1/models", b"", CREDENTIALS["openai"], "GET")
    anthropic = await send(server, "/v1/models", b"", both, "GET")

    assert openai.json["object"] == "list"
    assert anthropic.json["has_more"] is False


@pytest.mark.parametrize(
    ("provider", "request_id", "own"),
    [
        ("openai", "x-request-id", {"openai-organization", "x-ratelimit-remaining-tokens", "openai-processing-ms"}),
        ("anthropic", "request-id", {"anthropic-ratelimit-tokens-reset", "anthropic-organization-id"}),
        ("azure", "apim-request-id", {"x-ms-region", "x-ratelimit-remaining-requests"}),
    ],
)
async def test_each_vendor_sends_its_headers(server: Server, provider: str, request_id: str, own: set[str]) -> None:
    first, second = await call(server, "gpt", provider=provider), await call(server, "gpt", provider=provider)

    assert own | {"set-cookie", "server"} <= first.headers.keys()
    assert first.headers[request_id] != second.headers[request_id]
    assert first.json["id"] != second.json["id"]
    assert len(first.raw) == len(second.raw)


async def test_ids_are_repeatable_and_follow_the_seed() -> None:
    async def first_id(seed: int) -> Any:
        async with Simulator(seed=seed, clock=lambda: 1_800_000_000.0).serve() as server:
            return (await call(server, "gpt")).raw

    assert await first_id(5) == await first_id(5)
    assert await first_id(5) != await first_id(6)


async def test_the_time_is_that_of_the_clock() -> None:
    now = 1_800_000_000.0
    async with Simulator(clock=lambda: now).serve() as server:
        assert (await call(server, "gpt")).json["created"] == 1_800_000_000
        now += 2
        assert (await call(server, "gpt")).json["created"] == 1_800_000_002
        assert [entry.at for entry in server.simulator.requests] == [1_800_000_000, 1_800_000_002]
