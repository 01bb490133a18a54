"""Rules and the request log: in the process, and over HTTP."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Behaviour, Match, Rule, Server, Simulator
from gateway_middleware.simulator.behaviour import Rulebook
from simulated import CREDENTIALS, PATHS, call, chat_body, request_bytes

pytestmark = pytest.mark.anyio
BODY = chat_body("gpt-5-mini")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Simulator().serve() as found:
        yield found


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, headers=CREDENTIALS["openai"]) as client:
        yield client


async def until_counted(server: Server, **expected: int) -> None:
    async with asyncio.timeout(10):
        while {name: getattr(server.simulator.counters, name) for name in expected} != expected:
            await asyncio.sleep(0.001)


def found(book: Rulebook, model: str = "gpt", **asked: str) -> int | None:
    rule = book.find(
        **{"model": model, "surface": "messages", "provider": "anthropic", "path": "/v1/messages", **asked}
    )
    return None if rule is None else rule.behaviour.status


def test_counted_rules_go_first_and_then_the_latest_standing_one() -> None:
    book = Rulebook()
    for status, times in ((500, None), (501, 1), (502, None), (503, 2)):
        book.add(Rule(behaviour=Behaviour(status=status), times=times))

    order = []
    for _ in range(5):
        rule = book.find(model="m", surface="", provider="", path="")
        assert rule is not None
        order.append(rule.behaviour.status)
        book.use(rule)

    assert order == [501, 503, 503, 502, 502]


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        (Match(), True),
        (Match(model="gp?"), True),
        (Match(model="claude-*"), False),
        (Match(provider="anthropic", surface="messages"), True),
        (Match(provider="anthropic", surface="responses"), False),
        (Match(path="/v1/*"), True),
        (Match(path="/openai/*"), False),
    ],
)
def test_all_of_a_match_must_fit(match: Match, *, fits: bool) -> None:
    book = Rulebook()
    book.add(Rule(behaviour=Behaviour(status=500), match=match))

    assert (found(book) == 500) is fits


async def test_a_rule_over_http_holds_for_its_times(http: httpx.AsyncClient) -> None:
    rule = {"match": {"model": "gpt-*", "surface": "chat/completions"}, "times": 2, "behaviour": {"status": 503}}
    assert (await http.post("/control/behaviour", json=rule)).json() == {"rules": 1}
    assert (await http.get("/control/behaviour")).json()["rules"][0]["times"] == 2

    statuses = [(await http.post(PATHS["openai"], json=BODY)).status_code for _ in range(3)]

    assert statuses == [503, 503, 200]


async def test_a_rule_stands_until_it_is_deleted_and_beats_the_model_name(http: httpx.AsyncClient) -> None:
    await http.post("/control/behaviour", json={"behaviour": {"status": 429, "retry_after": 1.2, "retry_after_ms": 70}})
    refused = await http.post(PATHS["openai"], json=chat_body("sim-status-400"))
    await http.delete("/control/behaviour")
    named = await http.post(PATHS["openai"], json=chat_body("sim-status-400"))

    assert (refused.status_code, named.status_code) == (429, 400)
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("2", "70")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


async def test_a_rule_takes_effect_on_a_request_that_was_answered_before(http: httpx.AsyncClient) -> None:
    before = await http.post(PATHS["openai"], json=BODY)
    await http.post("/control/behaviour", json={"behaviour": {"status": 500}})
    after = await http.post(PATHS["openai"], json=BODY)

    assert (before.status_code, after.status_code) == (200, 500)


async def test_a_refused_request_uses_no_rule_up(http: httpx.AsyncClient) -> None:
    await http.post("/control/behaviour", json={"times": 1, "behaviour": {"status": 503}})
    refused = await http.post(PATHS["openai"], json={"model": "gpt"})
    struck = await http.post(PATHS["openai"], json=BODY)

    assert (refused.status_code, struck.status_code) == (400, 503)


async def test_an_error_can_be_spelled_out(http: httpx.AsyncClient) -> None:
    spelled = {"status": 418, "error_type": "tea", "error_code": "pot", "error_message": "short and stout"}
    await http.post("/control/behaviour", json={"times": 1, "behaviour": {**spelled, "headers": {"x-tea": "green"}}})
    await http.post("/control/behaviour", json={"times": 1, "behaviour": {"status": 500, "body": "<oops>"}})

    teapot, raw = [await http.post(PATHS["openai"], json=BODY) for _ in range(2)]

    assert teapot.json() == {"error": {"message": "short and stout", "type": "tea", "param": None, "code": "pot"}}
    assert (teapot.status_code, teapot.headers["x-tea"]) == (418, "green")
    assert raw.text == "<oops>"


WRONG: list[Any] = [
    {},
    {"behaviour": {"nonsense": 1}},
    {"behaviour": {"fault": "reset+explode"}},
    {"behaviour": {"ttft": -1}},
    {"behaviour": {"chunk_split": [0]}},
    {"behaviour": {}, "times": 0},
    {"behaviour": {}, "match": {"colour": "red"}},
]


@pytest.mark.parametrize("rule", WRONG)
async def test_a_wrong_rule_is_refused_with_the_reason(http: httpx.AsyncClient, rule: Any) -> None:
    answer = await http.post("/control/behaviour", json=rule)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert (await http.get("/control/behaviour")).json() == {"rules": []}


async def test_an_unknown_control_is_404(http: httpx.AsyncClient) -> None:
    answer = await http.post("/control/nothing")

    assert answer.status_code == 404
    assert "GET /control/requests" in answer.json()["error"]


async def test_the_log_hides_nothing(http: httpx.AsyncClient) -> None:
    await http.post(PATHS["openai"], json=BODY)
    await http.post("/v1/audio/transcriptions", data={"model": "w"}, files={"file": b"\xff\x00"})

    log = (await http.get("/control/requests")).json()
    first, second = log["requests"]
    assert (first["method"], first["target"], first["status"]) == ("POST", PATHS["openai"], 200)
    assert ["authorization", "Bearer sk-any"] in first["headers"]
    assert (first["provider"], first["surface"], first["model"]) == ("openai", "chat/completions", "gpt-5-mini")
    assert '"gpt-5-mini"' in first["body"]
    assert (second["model"], "\\xff" in second["body"]) == ("w", True)
    assert first["at"] <= first["finished_at"]
    assert log["counters"]["requests"] == 2
    assert log["counters"]["open_connections"] == 1


async def test_the_log_can_be_cleared(http: httpx.AsyncClient, server: Server) -> None:
    await http.post(PATHS["openai"], json=BODY)
    await http.delete("/control/requests")

    assert server.simulator.requests == []
    assert server.simulator.counters.requests == server.simulator.counters.in_flight == 0
    assert server.simulator.counters.open_connections == 1


async def test_the_log_is_bounded_and_can_be_off() -> None:
    async with Simulator(capacity=2).serve() as server:
        for model in ("a", "b", "c"):
            await call(server, model)
        assert [entry.model for entry in server.simulator.requests] == ["b", "c"]
    async with Simulator(record=False).serve() as server:
        await call(server, "a")
        assert server.simulator.requests == []
        assert server.simulator.counters.requests == 1


async def test_concurrency_is_counted(server: Server) -> None:
    waiting = [asyncio.create_task(call(server, "sim-slow-80")) for _ in range(7)]
    await until_counted(server, in_flight=7, open_connections=7)
    await asyncio.gather(*waiting)

    counters = server.simulator.counters
    assert (counters.in_flight, counters.max_in_flight, counters.requests) == (0, 7, 7)
    await until_counted(server, open_connections=0)
    assert counters.max_open_connections == 7


@pytest.mark.parametrize("model", ["sim-stall", "sim-slow-60000", "sim-stall-2", "sim-gap-60000"])
async def test_a_peer_that_leaves_is_noticed(server: Server, model: str) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(request_bytes(PATHS["openai"], chat_body(model, stream=True), CREDENTIALS["openai"]))
    await until_counted(server, in_flight=1)
    writer.close()
    await until_counted(server, in_flight=0, open_connections=0, peer_closed=1)

    entry = server.simulator.requests[-1]
    assert entry.finished_at is None
    assert entry.peer_closed_at is not None
    assert entry.peer_closed_at >= entry.at
    assert reader is not None


@pytest.mark.parametrize("model", ["gpt", "sim-reset-1", "sim-truncate-1", "sim-close"])
async def test_an_end_that_the_simulator_makes_is_not_the_peers(server: Server, model: str) -> None:
    await call(server, model, stream=True)
    await until_counted(server, in_flight=0, open_connections=0, peer_closed=0)

    entry = server.simulator.requests[-1]
    assert entry.finished_at is not None
    assert entry.peer_closed_at is None


async def test_a_replay_over_http(http: httpx.AsyncClient) -> None:
    replay = {"status": 207, "headers": [["content-type", "text/x"]], "body": base64.b64encode(b"\x00hi").decode()}
    await http.post("/control/behaviour", json={"times": 1, "behaviour": {"replay": replay}})

    answer = await http.post("/anything/at/all")

    assert (answer.status_code, answer.headers["content-type"], answer.content) == (207, "text/x", b"\x00hi")
