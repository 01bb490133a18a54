"""The log: one valid line for each call whatever the client sent, batches, secrets, a sink that blocks or fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core import errors
from gateway_middleware.core.domain import Deployment, Outcome, Surface, Usage
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.fd_sink import FdSink, _whole_lines
from gateway_middleware.edge.log_line import HumanForm, shown
from gateway_middleware.edge.python_logging import logging_to


def record(**changes: Any) -> CallRecord:
    facts: dict[str, Any] = {
        "request_id": "id-1",
        "started": 10.0,
        "received_at": 1_700_000_000.5,
        "ended": 10.25,
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": Outcome.SUCCESS,
    }
    return CallRecord(**(facts | changes))


def full_record() -> CallRecord:
    deployment = Deployment(provider="openai", model="gpt-5-mini")
    answering = Attempt(
        deployment=deployment, started=10.06, ended=10.24, usage=Usage(input_tokens=12, output_tokens=0)
    )
    return record(
        endpoint="chat",
        surface=Surface.CHAT,
        tenant="acme",
        key_id="aaaqeaye",
        model="fast",
        route="fast",
        is_stream=True,
        first_byte=10.1,
        attempts=[
            Attempt(deployment=deployment, started=10.0, ended=10.05, outcome=Outcome.TIMEOUT),
            answering,
        ],
        answered_by=answering,
        bytes_in=5,
        bytes_out=7,
    )


class Written:
    """Collects what a log writes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def __call__(self, lines: bytes) -> None:
        self.pieces.append(lines)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.pieces).splitlines()]


def logged(call: CallRecord) -> bytes:
    written = Written()
    AccessLog(written).call(call)
    (piece,) = written.pieces
    return piece


def test_a_line_has_every_fact() -> None:
    assert json.loads(logged(full_record())) == {
        "ts": "2023-11-14T22:13:20.500000Z",
        "level": "info",
        "event": "call",
        "request_id": "id-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "endpoint": "chat",
        "status": 200,
        "outcome": "success",
        "duration_ms": 250.0,
        "stream": True,
        "attempts": 2,
        "bytes_in": 5,
        "bytes_out": 7,
        "tenant": "acme",
        "key_id": "aaaqeaye",
        "surface": "chat",
        "model": "fast",
        "route": "fast",
        "provider": "openai",
        "deployment": "openai/gpt-5-mini",
        "ttft_ms": 100.0,
        "upstream_ms": 230.0,
        "input_tokens": 12,
        "output_tokens": 0,
    }


@pytest.mark.parametrize(
    ("outcome", "level"),
    [(Outcome.REFUSED, "info"), (Outcome.STREAM_ERROR, "error"), (Outcome.GATEWAY_ERROR, "error")],
)
def test_faults_are_errors(outcome: Outcome, level: str) -> None:
    assert json.loads(logged(record(outcome=outcome)))["level"] == level


HOSTILE = st.one_of(
    st.text(max_size=400),
    st.text(st.sampled_from('\r\n\0\x1b\x7f\x9b\u2028\u2029\u202e\ud800"\\{}%s'), max_size=2100),
)


@given(method=HOSTILE, path=HOSTILE, model=HOSTILE, upstream=HOSTILE, error_code=st.none())
def test_a_line_is_one_line_of_json_whatever_the_client_sent(
    method: str, path: str, model: str, upstream: str, error_code: None
) -> None:
    deployment = Deployment(provider="openai", model=upstream)
    attempts = [Attempt(deployment=deployment, started=1.0)]
    line = logged(record(method=method, path=path, model=model, route=model, attempts=attempts))

    text = line.decode("utf-8")
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()
    assert len(json.loads(text)["path"]) <= 256
    assert len(line) < 6000


@given(HOSTILE, HOSTILE)
def test_an_event_is_one_line_of_json_whatever_is_in_it(message: str, name: str) -> None:
    written = Written()
    AccessLog(written).event("something", message=message, name=name, count=3)
    (piece,) = written.pieces
    assert len(piece.decode().splitlines()) == 1
    assert json.loads(piece)["count"] == 3


@given(HOSTILE)
def test_a_terminal_gets_no_escapes_of_strangers(path: str) -> None:
    written = Written()
    AccessLog(written, form=HumanForm()).call(record(path=path, method=path, model=path))
    text = written.pieces[0].decode()
    assert len(text.splitlines()) == 1
    assert text.replace("\x1b[32m", "").replace("\x1b[0m", "")[:-1].isprintable()


@given(HOSTILE, st.integers(1, 50))
def test_shown_text_is_printable_and_short(text: str, limit: int) -> None:
    assert shown(text, limit).isprintable()
    assert len(shown(text, limit)) <= limit


def test_a_terminal_gets_what_a_person_looks_for() -> None:
    written = Written()
    log = AccessLog(written, form=HumanForm(), wall=lambda: 1_700_000_000.0)
    log.call(full_record())
    log.call(record(status=429, error_code="rate_limit_exceeded", outcome=Outcome.REFUSED, refused_by="tpm"))
    log.call(record(status=None))
    log.event("note", message="plain")
    log.event("note", level="warning", message="loud")
    first, second, third, plain, loud = b"".join(written.pieces).decode().splitlines()

    moment = datetime.fromtimestamp(1_700_000_000).astimezone().strftime("%H:%M:%S")
    arrow = "\N{RIGHTWARDS ARROW}"
    assert first == (
        f"{moment} \x1b[32m200\x1b[0m POST /v1/chat/completions fast {arrow} openai/gpt-5-mini 250 ms 12+0 tokens "
        "acme id-1"
    )
    assert second.endswith("\x1b[33m429\x1b[0m POST /v1/chat/completions 250 ms rate_limit_exceeded (tpm) id-1")
    assert " --- POST" in third
    assert plain == f"{moment} plain"
    assert loud == f"{moment} \x1b[33mloud\x1b[0m"


def test_a_provider_failure_can_be_found_by_its_first_words() -> None:
    written = Written()
    log = AccessLog(written, wall=lambda: 1_700_000_000.0, scrub=lambda text: text.replace("sk-secret", "***"))
    call = full_record()
    attempt = call.attempts[-1]
    attempt.status, attempt.outcome, attempt.upstream_request_id = 503, Outcome.SERVER_ERROR, "up-1"
    error = errors.UpstreamStatusError("key sk-secret", upstream_status=503, upstream_headers=[], body=b"")
    log.provider_error(call, attempt, error)

    (line,) = written.lines
    assert line["message"] == (
        "Provider error: openai/gpt-5-mini: UpstreamStatusError, status 503, attempt 2, request id-1: key ***"
    )
    wanted = {"event": "provider_error", "level": "warning", "provider": "openai", "status": 503, "attempt": 2}
    wanted |= {"class": "UpstreamStatusError", "outcome": "server_error", "upstream_request_id": "up-1"}
    assert wanted.items() <= line.items()


@pytest.mark.anyio
async def test_lines_are_written_together_after_a_moment() -> None:
    written = Written()
    log = AccessLog(written, delay=0.001)
    for _ in range(3):
        log.call(record())
    assert written.pieces == []
    async with asyncio.timeout(5):
        while not written.pieces:
            await asyncio.sleep(0.001)
    assert len(written.pieces) == 1
    assert len(written.lines) == 3


@pytest.mark.anyio
async def test_sixty_four_lines_do_not_wait() -> None:
    written = Written()
    log = AccessLog(written, delay=60)
    for _ in range(64 + 5):
        log.call(record())
    assert [piece.count(b"\n") for piece in written.pieces] == [64]
    log.close()
    log.close()
    assert [piece.count(b"\n") for piece in written.pieces] == [64, 5]


@pytest.mark.anyio
async def test_a_log_goes_on_after_its_close() -> None:
    written = Written()
    log = AccessLog(written, delay=60)
    log.call(record())
    log.close()
    log.call(record())
    log.close()
    assert len(written.lines) == 2


def test_what_a_sink_refuses_is_counted_and_breaks_nothing() -> None:
    def refuse(lines: bytes) -> None:
        raise OSError("disk full")

    log = AccessLog(refuse)
    log.call(record())
    log.call(record())
    assert log.dropped == 2


def test_a_refusal_names_its_limit_and_an_answer_the_providers_own_request_id() -> None:
    refused = json.loads(logged(record(status=429, tenant="acme", refused_by="model-tpm")))
    assert (refused["tenant"], refused["limit"]) == ("acme", "model-tpm")
    call = full_record()
    call.attempts[-1].upstream_request_id = "req_up\n1"
    line = json.loads(logged(call))
    assert line["upstream_request_id"] == "req_up\\n1"
    assert "limit" not in line


@pytest.mark.parametrize("endpoint", ["healthz", "readyz", "health", "metrics"])
def test_probes_can_be_left_out_unless_they_fail(endpoint: str) -> None:
    written = Written()
    log = AccessLog(written, omits_probes=True)
    for status in (200, 503, None):
        log.call(record(endpoint=endpoint, status=status))
    log.call(record(endpoint="chat", status=200))
    assert [line.get("status") for line in written.lines] == [503, None, 200]


@pytest.mark.parametrize(("log_format", "is_json"), [("json", True), ("human", False), (None, True)])
def test_the_format_can_be_forced(log_format: str | None, is_json: bool) -> None:
    for make in (AccessLog.to_fd, AccessLog.to_fd_at_once):
        reader, writer = os.pipe()
        log = make(writer, log_format=log_format)
        log.event("bye", message="gone")
        log.close()
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read().startswith(b"{") is is_json


@pytest.fixture
def log_of_python() -> Iterator[Written]:
    written = Written()
    log = AccessLog(written, scrub=lambda text: text.replace("sk-secret", "***"))
    with logging_to(log):
        yield written


def test_what_python_logs_is_a_line_of_this_log_with_its_traceback(log_of_python: Written) -> None:
    logger = logging.getLogger("somebody")
    logger.info("not worth a line")
    logging.getLogger("gateway_middleware").info("ours is")
    logger.warning("odd: %s", "sk-secret")
    try:
        raise ValueError("sk-secret\x1b[2J")
    except ValueError:
        logger.exception("broken\nin two")
    warnings.simplefilter("always")
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    ours, odd, broken, old = log_of_python.lines
    assert (ours["level"], ours["message"]) == ("info", "ours is")
    assert (odd["event"], odd["level"], odd["logger"], odd["message"]) == ("log", "warning", "somebody", "odd: ***")
    assert (broken["level"], broken["message"]) == ("error", "broken")
    assert broken["traceback"].startswith("in two")
    assert "ValueError: ***\\x1b[2J" in broken["traceback"].splitlines()[-1]
    assert "DeprecationWarning: old" in old["message"]


def test_threads_may_log_and_a_broken_record_breaks_nobody(log_of_python: Written) -> None:
    logger = logging.getLogger("somebody")
    thread = threading.Thread(target=lambda: logger.error("from a thread"))
    thread.start()
    thread.join()
    assert [line["message"] for line in log_of_python.lines] == ["from a thread"]


def test_on_a_terminal_the_traceback_follows_its_line() -> None:
    written = Written()
    AccessLog(written, form=HumanForm()).event_now("log", level="error", message="broken", traceback="one\ntwo")
    assert b"".join(written.pieces).decode().endswith("broken\x1b[0m\none\ntwo\n")


def test_a_line_that_cannot_be_written_at_once_is_counted() -> None:
    def refuse(_: bytes) -> None:
        raise OSError

    log = AccessLog(refuse)
    log.event_now("log", message="lost")
    assert log.dropped == 1


def test_a_descriptor_gets_everything() -> None:
    reader, writer = os.pipe()
    log = AccessLog.to_fd(writer)
    log.call(record())
    log.event("bye")
    log.close()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert [json.loads(line)["event"] for line in pipe] == ["call", "bye"]
    assert log.dropped == 0


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_reader_that_does_not_read_stops_nobody(is_blocking: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, is_blocking)
    sink = FdSink(writer, capacity=4)
    sent = 0
    while sink.dropped == 0:
        sink(b"x" * 9_999 + b"\n")
        sent += 1
        assert sent < 1000
    with os.fdopen(reader, "rb") as pipe:
        for _ in range(sent - sink.dropped):
            assert len(pipe.readline()) == 10_000
        sink.close()
    os.close(writer)


@given(st.lists(st.integers(1, 6000), max_size=12))
def test_pieces_are_whole_lines_that_a_pipe_does_not_mix(lengths: list[int]) -> None:
    lines = b"".join(b"x" * length + b"\n" for length in lengths)
    pieces = list(_whole_lines(lines))
    assert b"".join(pieces) == lines
    for piece in pieces:
        assert piece.endswith(b"\n")
        assert len(piece) <= 4096 or piece.count(b"\n") == 1


def test_a_reader_that_left_is_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = FdSink(writer)
    log = AccessLog(sink)
    log.call(record())
    log.close()
    os.close(writer)
    assert log.dropped == 1


def test_closing_does_not_wait_for_ever() -> None:
    reader, writer = os.pipe()
    sink = FdSink(writer, capacity=2)
    while sink.dropped == 0:
        sink(b"x" * 65_536 + b"\n")
    sink.close(timeout=0.01)
    os.close(reader)
    FdSink(writer).close()


def test_a_log_without_a_loop_drops_what_its_reader_has_no_room_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    log = AccessLog.to_fd_at_once(writer)
    log.event("stopping")
    assert log.dropped == 1
    while size:
        size -= len(os.read(reader, size))
    log.event("stopped")
    assert json.loads(os.read(reader, 4096))["event"] == "stopped"
    os.close(reader)
    os.close(writer)
