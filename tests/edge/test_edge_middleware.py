"""The outermost layer: records, refusals, headers, errors before and inside an answer."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_driver import Client, Transcript, drive, http_scope
from clock import Clock
from gateway_middleware.core import errors
from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
from gateway_middleware.core.domain import Deployment, Dialect, Outcome, Surface
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.core.scope import ENDPOINT, RECORD
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.middleware import EdgeMiddleware

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json"), (b"content-length", b"4")]


class Kit:
    """An EdgeMiddleware around an app, with everything it reports."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        self.clock = Clock()
        self.records: list[CallRecord] = []
        self.written: list[bytes] = []
        self.log = AccessLog(self.written.append)
        chosen: dict[str, Any] = {"clock": self.clock, "wall": lambda: 1.7e9, "request_ids": lambda: "id-1"} | options
        self.app = EdgeMiddleware(app, observe=self.records.append, access_log=self.log, **chosen)

    async def call(self, path: str = CHAT, *, method: str = "POST", **options: Any) -> Transcript:
        return await drive(self.app, method=method, path=path, **options)

    @property
    def record(self) -> CallRecord:
        (record,) = self.records
        return record

    @property
    def lines(self) -> list[dict[str, Any]]:
        self.log.flush()
        return [json.loads(line) for line in b"".join(self.written).splitlines()]


async def start(send: Send, headers: Any = JSON, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def body(send: Send, content: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": more})


async def fine(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"fine", more=False)


def raising(error: BaseException) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


def broken_stream(error: BaseException, sent: bytes = b"data: 1\n\n", headers: Any = EVENTS) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, headers)
        await body(send, sent)
        raise error

    return app


async def test_a_good_call() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((RECORD.get(scope), ENDPOINT.get(scope)))
        kit.clock.advance(0.25)
        await fine(scope, receive, send)
        kit.clock.advance(0.5)

    kit = Kit(app)
    answer = await kit.call()

    assert (answer.status, answer.body, answer.is_complete) == (200, b"fine", True)
    assert answer.headers["x-request-id"] == "id-1"
    assert "request-id" not in answer.headers
    assert answer.headers["server-timing"] == "gateway;dur=250.00, upstream;dur=0.00"
    assert "x-gateway-attempts" not in answer.headers
    record, endpoint = seen[0]
    assert record is kit.record
    assert (endpoint.label, record.endpoint, record.surface) == ("chat", "chat", Surface.CHAT)
    assert (record.status, record.outcome, record.error_code) == (200, Outcome.SUCCESS, None)
    assert (record.started, record.first_byte, record.ended) == (1000.0, 1000.25, 1000.75)
    assert (record.method, record.path, record.bytes_out, record.received_at) == ("POST", CHAT, 4, 1.7e9)
    assert kit.lines[0]["duration_ms"] == 750


async def test_the_last_bytes_go_out_when_the_call_is_on_record() -> None:
    order: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"tail", more=False)
        order.append("the app has returned")

    async def send(message: Any) -> None:
        order.append(message["type"])

    middleware = EdgeMiddleware(app, observe=lambda r: order.append(f"observed {r.bytes_out}"))
    await middleware(http_scope("POST", CHAT), Client([b""]).receive, send)

    assert order == ["http.response.start", "the app has returned", "observed 4", "http.response.body"]


async def test_a_message_of_the_app_is_not_changed() -> None:
    begin: dict[str, Any] = {"type": "http.response.start", "status": 204, "headers": ((b"x-own", b"1"),)}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(begin)
        await send({"type": "http.response.body"})

    kit = Kit(app)
    for _ in range(2):
        answer = await kit.call()
        assert answer.all("x-own") == ["1"]
        assert len(answer.all("x-request-id")) == 1
    assert begin["headers"] == ((b"x-own", b"1"),)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("abc-1._Z", "abc-1._Z"), ("a b", "id-1"), ("", "id-1"), ("x" * 65, "id-1"), ("\x1b[1m", "id-1")],
)
async def test_the_clients_id_where_it_is_harmless(sent: str, expected: str) -> None:
    answer = await Kit(fine).call(headers={"x-request-id": sent})
    assert answer.headers["x-request-id"] == expected


async def test_anthropics_clients_find_the_id_under_its_name() -> None:
    answer = await Kit(fine).call("/v1/messages")
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == "id-1"


async def test_headers_about_attempts() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first, second = (Deployment(provider=p, model="a/b\n\u2028") for p in ("openai", "azure-eu"))
        record = RECORD.get(scope)
        kit.clock.advance(0.001)
        record.attempts.append(Attempt(deployment=first, started=kit.clock(), outcome=Outcome.TIMEOUT))
        kit.clock.advance(0.3)
        record.attempts[0].ended = kit.clock()
        kit.clock.advance(0.002)
        record.attempts.append(Attempt(deployment=second, started=kit.clock()))
        kit.clock.advance(0.05)
        await fine(scope, receive, send)

    kit = Kit(app)
    answer = await kit.call()

    assert answer.headers["x-gateway-attempts"] == "openai;timeout;300, azure-eu;success;50"
    assert answer.headers["x-gateway-provider"] == "azure-eu"
    assert answer.headers["x-gateway-deployment"] == "azure-eu/a/b\\n\\u2028"
    assert answer.headers["server-timing"] == "gateway;dur=3.00, upstream;dur=350.00"


@pytest.mark.parametrize(
    ("path", "headers", "is_anthropic"),
    [
        ("/v1/nothing", {}, False),
        ("/v1/messages/batches", {}, True),
        ("/anthropic/v1/nothing", {}, True),
        ("/v1/nothing", {"anthropic-version": "2023-06-01"}, True),
        ("/openai/nothing", {}, False),
        ("/v1//chat/completions", {}, False),
        ("/v1/chat/completions/", {}, False),
        ("/V1/chat/completions", {}, False),
        ("/v1/./chat/completions", {}, False),
        ("/v1/chat/completions;x=1", {}, False),
        ("/x/../v1/chat/completions", {}, False),
        ("", {}, False),
    ],
)
async def test_an_unknown_path_is_404_in_the_likely_dialect(path: str, headers: Any, is_anthropic: bool) -> None:
    kit = Kit(raising(AssertionError("must not be called")))
    answer = await kit.call(path, headers=headers)
    assert answer.status == 404
    assert ("type" in answer.json()) is is_anthropic
    assert (kit.record.endpoint, kit.record.error_code) == ("other", "unknown_url")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("TRACE", CHAT, "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/v1/models/m", "GET, HEAD"),
        ("TRACE", "/nowhere", ""),
        ("CONNECT", "example.com:443", ""),
        ("post", CHAT, "POST"),
    ],
)
async def test_a_wrong_method_is_405_and_says_what_is_right(method: str, path: str, allow: str) -> None:
    answer = await Kit(raising(AssertionError())).call(path, method=method, headers={"x-http-method-override": "POST"})
    assert answer.status == 405
    assert answer.headers["allow"] == allow
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_head_is_allowed_where_get_is() -> None:
    assert (await Kit(fine).call("/healthz", method="HEAD")).status == 200


@pytest.mark.parametrize("host", ["a/admin?x=", "a#b", "a@b", "", "a b", "a\\b", "é"])
async def test_a_broken_host_is_400(host: str) -> None:
    kit = Kit(raising(AssertionError()))
    answer = await kit.call(headers={"host": host})
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_host")
    assert kit.record.outcome is Outcome.CLIENT_ERROR


async def test_no_host_and_two_hosts_are_400() -> None:
    assert (await Kit(fine).call(has_host=False)).status == 400
    assert (await Kit(fine).call(headers=[(b"host", b"a"), (b"host", b"a")])).status == 400


@pytest.mark.parametrize("host", ["a", "127.0.0.1:8080", "[::1]:80", "my_svc.example.com"])
async def test_hosts_that_are_fine(host: str) -> None:
    assert (await Kit(fine).call(headers={"host": host})).status == 200


async def test_paths_are_found_below_a_mount() -> None:
    kit = Kit(fine)
    answer = await kit.call(root_path="/llm")
    assert answer.status == 200
    assert kit.record.endpoint == "chat"


async def test_the_list_of_models_has_two_dialects() -> None:
    app = raising(errors.AuthenticationError("no"))
    assert "type" not in (await Kit(app).call("/v1/models", method="GET")).json()
    answer = await Kit(app).call("/v1/models", method="GET", headers={"anthropic-version": "2023-06-01"})
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("path", "dialect"),
    [(CHAT, Dialect.OPENAI), ("/v1/messages", Dialect.ANTHROPIC), ("/openai/v1/embeddings", Dialect.AZURE)],
)
async def test_an_error_before_the_answer_is_rendered(path: str, dialect: Dialect) -> None:
    kit = Kit(raising(errors.RateLimitedError("slow down", retry_after=2)))
    answer = await kit.call(path)
    assert (answer.status, answer.is_complete, answer.headers["retry-after"]) == (429, True, "2")
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert (kit.record.dialect, kit.record.status) == (dialect, 429)
    assert (kit.record.outcome, kit.record.error_code) == (Outcome.REFUSED, "rate_limit_exceeded")
    assert kit.record.bytes_out == len(answer.body)


async def test_an_error_inside_a_stream_ends_it_in_the_dialect() -> None:
    kit = Kit(broken_stream(errors.UpstreamTimeoutError("silence", phase="idle")))
    answer = await kit.call()
    assert (answer.status, answer.is_complete) == (200, True)
    assert answer.chunks[0] == b"data: 1\n\n"
    assert answer.chunks[1].startswith(b'data: {"error":{"message":"silence"')
    assert b"[DONE]" not in answer.body
    assert (kit.record.status, kit.record.outcome) == (200, Outcome.TIMEOUT)
    assert kit.record.bytes_out == len(answer.body)


async def test_an_error_frame_never_joins_half_an_event() -> None:
    answer = await Kit(broken_stream(errors.UpstreamProtocolError("cut"), sent=b'data: {"half')).call()
    assert answer.chunks[1].startswith(b'\n\ndata: {"error"')


async def test_a_stream_of_messages_ends_with_anthropics_event() -> None:
    answer = await Kit(broken_stream(errors.UpstreamProtocolError("cut"))).call("/v1/messages")
    assert answer.chunks[1].startswith(b'event: error\ndata: {"type":"error"')


async def test_an_answer_that_cannot_be_mended_is_cut() -> None:
    kit = Kit(broken_stream(errors.UpstreamProtocolError("cut"), headers=JSON))
    answer = await kit.call(catches=True)
    assert isinstance(answer.error, errors.UpstreamProtocolError)
    assert not answer.is_complete
    assert kit.record.outcome is Outcome.PROTOCOL_ERROR


async def test_an_unknown_fault_is_500_without_detail(caplog: pytest.LogCaptureFixture) -> None:
    kit = Kit(raising(ValueError("detail sk-secret")), scrub=lambda text: text.replace("sk-secret", "***"))
    with caplog.at_level(logging.ERROR, logger="gateway_middleware"):
        answer = await kit.call()
    assert answer.status == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert b"detail" not in answer.body
    (entry,) = caplog.records
    assert "id-1" in entry.getMessage()
    assert "ValueError: detail ***" in entry.getMessage()
    assert (kit.record.outcome, kit.record.error_code) == (Outcome.GATEWAY_ERROR, "internal_error")


async def test_an_unknown_fault_inside_a_stream_ends_it() -> None:
    answer = await Kit(broken_stream(ValueError("detail"))).call()
    assert answer.is_complete
    assert b"internal_error" in answer.chunks[1]
    assert b"detail" not in answer.body


async def test_a_fault_after_the_end_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await fine(scope, receive, send)
        raise ValueError("late")

    answer = await Kit(app).call()
    assert answer.is_complete
    assert "late" in caplog.text


@pytest.mark.parametrize("more", [False, True])
async def test_nothing_replaces_or_overtakes_the_end_of_an_answer(more: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await fine(scope, receive, send)
        await body(send, b"more", more=more)

    with caplog.at_level(logging.CRITICAL):
        answer = await Kit(app).call()
    assert (answer.status, answer.body, len(answer.messages)) == (200, b"fine", 2)


async def test_an_app_that_does_not_answer_is_a_fault() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    assert (await Kit(silent).call()).status == 500


async def test_an_app_that_stops_in_the_middle_is_at_fault_itself() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, EVENTS)
        await body(send, b"data: 1\n\n")

    for checks_paths in (True, False):
        kit = Kit(app, checks_paths=checks_paths)
        answer = await kit.call()
        assert b"internal_error" in answer.chunks[-1], "a stream that stops must not look as if it had ended"
        assert (kit.record.outcome, kit.record.error_code) == (Outcome.GATEWAY_ERROR, "internal_error")


async def test_an_app_that_stops_because_its_client_left_is_not() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, EVENTS)
        await body(send, b"data: 1\n\n")
        while (await receive())["type"] != "http.disconnect":
            pass

    kit = Kit(app, checks_paths=False)
    answer = await kit.call(leave_after=2)
    assert (len(answer.messages), answer.dropped) == (2, [])
    assert (kit.record.outcome, kit.record.status) == (Outcome.CLIENT_DISCONNECT, 499)


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_foreign_app_that_waits_for_the_end_of_its_own_answer_sees_it(is_early: bool) -> None:
    """A server tells it when it has got the last message, which is held back here."""
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append((await receive())["type"])
        await start(send)
        waiting = asyncio.ensure_future(receive()) if is_early else None
        await asyncio.sleep(0)
        await body(send, b"fine", more=False)
        received.append((await (waiting or receive()))["type"])

    kit = Kit(app, checks_paths=False)
    async with asyncio.timeout(5):
        assert (await kit.call(body=b"{}")).body == b"fine"
    assert received == ["http.request", "http.disconnect"]
    assert kit.record.outcome is Outcome.SUCCESS


async def test_a_client_that_left_gets_nothing() -> None:
    kit = Kit(raising(errors.ClientDisconnectedError()))
    answer = await kit.call()
    assert not answer.is_started
    assert (kit.record.status, kit.record.outcome) == (499, Outcome.CLIENT_DISCONNECT)

    kit = Kit(broken_stream(errors.ClientDisconnectedError()))
    answer = await kit.call()
    assert not answer.is_complete
    assert kit.lines[0]["status"] == 499


async def test_a_cancelled_call_is_on_record() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    kit = Kit(app)
    task = asyncio.create_task(kit.call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (kit.record.outcome, kit.record.status) == (Outcome.CLIENT_DISCONNECT, 499)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, Outcome.SUCCESS), (304, Outcome.SUCCESS), (404, Outcome.CLIENT_ERROR), (503, Outcome.GATEWAY_ERROR)],
)
async def test_outcomes_of_answers_that_were_not_raised(status: int, outcome: Outcome) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, [], status)
        await body(send, b"", more=False)

    kit = Kit(app)
    await kit.call()
    assert kit.record.outcome is outcome


async def test_an_observer_that_fails_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def observe(record: CallRecord) -> None:
        raise ValueError("observer")

    assert (await drive(EdgeMiddleware(fine, observe=observe), method="POST", path=CHAT)).is_complete
    assert "observer" in caplog.text


async def test_a_client_that_does_not_take_the_last_event_is_cut_off() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, EVENTS)
        await body(send, b"data: 1\n\n")
        await body(send, b"data: [DONE]\n\n", more=False)

    async def send(message: Any) -> None:
        if not message.get("more_body", True):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await EdgeMiddleware(app, write_stall=0.01)(http_scope("POST", CHAT), Client([b""]).receive, send)


async def called(app: Callable[[ASGIApp], ASGIApp], scope: Scope) -> tuple[bool, list[Any]]:
    """Whether the inner app was called, and what was sent."""
    seen: list[Any] = []
    sent: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    def send(message: Any) -> Awaitable[None]:
        sent.append(message)
        return asyncio.sleep(0)

    await app(inner)(scope, receive, send)
    return bool(seen), sent


async def test_websockets_are_refused_and_lifespans_pass() -> None:
    refusal = [{"type": "websocket.close", "code": 1008}]
    assert await called(EdgeMiddleware, {"type": "websocket"}) == (False, refusal)
    assert await called(EdgeMiddleware, {"type": "lifespan"}) == (True, [])
    assert await called(EdgeMiddleware, {"type": "webtransport"}) == (False, [])


async def test_a_foreign_application_keeps_its_paths() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(ENDPOINT.peek(scope))
        await fine(scope, receive, send)

    kit = Kit(app, checks_paths=False)
    for path, method in [("/theirs", "DELETE"), ("/metrics", "GET"), ("/v1/models", "POST"), (CHAT, "GET")]:
        assert (await kit.call(path, method=method)).status == 200
    assert seen == [None] * 4, "an open path of ours must not open theirs"
    assert (await kit.call(CHAT)).status == 200
    assert seen[-1].surface is Surface.CHAT
    assert (await kit.call("/theirs", method="TRACE")).status == 405
    assert (await called(lambda a: EdgeMiddleware(a, checks_paths=False), {"type": "websocket"}))[0]


async def test_twice_in_one_stack_is_a_fault_of_the_programmer() -> None:
    answer = await Kit(EdgeMiddleware(fine)).call()
    assert answer.status == 500


async def holding_its_error(scope: Scope, receive: Receive, send: Send) -> None:
    error = errors.UpstreamProtocolError("held by a local variable")
    raise error


@pytest.mark.parametrize(
    "app",
    [
        fine,
        raising(errors.RateLimitedError("x", retry_after=1)),
        broken_stream(errors.UpstreamProtocolError("cut")),
        holding_its_error,
    ],
    ids=["fine", "refused", "broken", "held by its own frames"],
)
async def test_a_call_leaves_nothing_for_the_collector(app: ASGIApp) -> None:
    middleware = Kit(app).app
    scopes = [http_scope("POST", CHAT) for _ in range(100)]

    async def send(message: Any) -> None:
        return

    async def receive() -> Any:
        return {"type": "http.request"}

    await middleware(http_scope("POST", CHAT), receive, send)
    gc.collect()
    gc.disable()
    try:
        while scopes:
            await middleware(scopes.pop(), receive, send)
        assert gc.collect() <= 20
    finally:
        gc.enable()
