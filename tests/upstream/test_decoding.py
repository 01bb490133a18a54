"""Answers that are not what was asked for: compressed, or with a wrong label."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.errors import ProtocolFault, UpstreamProtocolError
from gateway_middleware.upstream.decoding import DecodedAnswer, PeekedAnswer, decoded
from rig import GOOD, JSON, SSE, Rig, answering, chat_events
from scripted import ScriptedAnswer, pieces

pytestmark = pytest.mark.anyio
GZIP: HeaderList = [(b"content-encoding", b"gzip")]


def compressed(body: bytes, *, size: int = 7, encoding: bytes = b"gzip") -> ScriptedAnswer:
    packed = zlib.compress(body) if encoding == b"deflate" else gzip.compress(body)
    headers = [*JSON, (b"content-encoding", encoding), (b"content-length", b"%d" % len(packed))]
    return ScriptedAnswer(200, headers, pieces(packed, size))


@pytest.mark.parametrize("encoding", [b"gzip", b"x-gzip", b"deflate", b" GZIP "])
@pytest.mark.parametrize("size", [1, 5, 100_000])
async def test_what_is_compressed_is_read_as_it_was(encoding: bytes, size: int) -> None:
    body = b"abc" * 1000
    answer = decoded(compressed(body, size=size, encoding=encoding.strip().lower()))
    assert await answer.read(10_000) == body
    assert answer.headers == JSON
    assert await answer.chunk() == b""


async def test_what_is_not_compressed_is_left_alone() -> None:
    for headers in (JSON, [(b"content-encoding", b"identity")]):
        answer = ScriptedAnswer(200, headers, [b"x"])
        assert decoded(answer) is answer


async def test_another_compression_is_a_broken_protocol() -> None:
    with pytest.raises(UpstreamProtocolError, match="not asked for"):
        decoded(ScriptedAnswer(200, [(b"content-encoding", b"br")], []))


async def test_a_small_answer_cannot_fill_the_memory() -> None:
    bomb = compressed(b"\0" * 50_000_000, size=1_000_000)
    with pytest.raises(UpstreamProtocolError, match="longer than 1000000 bytes") as refused:
        await decoded(bomb).read(1_000_000)
    assert refused.value.fault is ProtocolFault.TOO_LONG
    assert len(await DecodedAnswer(compressed(b"\0" * 50_000_000)).chunk()) <= 256 * 1024


async def test_what_is_cut_or_broken_is_said_to_be() -> None:
    packed = gzip.compress(b"abc" * 1000)
    with pytest.raises(UpstreamProtocolError) as cut:
        await decoded(ScriptedAnswer(200, GZIP, [packed[:-5]])).read(10_000)
    assert cut.value.fault is ProtocolFault.TRUNCATED
    with pytest.raises(UpstreamProtocolError, match="cannot be decompressed"):
        await decoded(ScriptedAnswer(200, GZIP, [b"{}" + packed])).read(10_000)


async def test_what_wraps_an_answer_closes_it() -> None:
    for leave in (DecodedAnswer.close, DecodedAnswer.conclude):
        inner = compressed(b"x")
        leave(DecodedAnswer(inner))
        assert inner.is_closed


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"data: {}\n\n"], True),
        ([b"d", b"at", b"a: {}\n\n"], True),
        ([b"\xef\xbb\xbf", b"data: {}\n\n"], True),
        ([b"\r\n: comment\n\n"], True),
        ([b"event: x\ndata: {}\n\n"], True),
        ([b'{"id":"c"}'], False),
        ([b"<html>"], False),
        ([b"dat"], False),
        ([], False),
    ],
)
async def test_event_streams_are_known_by_how_they_begin(chunks: Sequence[bytes], expected: bool) -> None:
    answer = PeekedAnswer(ScriptedAnswer(200, JSON, chunks))
    assert await answer.begins_like_events() is expected
    assert await answer.read(1000) == b"".join(chunks)


@given(st.binary(max_size=5000), st.integers(1, 200))
async def test_any_cut_of_any_body_decodes_to_it(body: bytes, size: int) -> None:
    assert await decoded(compressed(body, size=size)).read(5000) == body


@pytest.mark.parametrize("label", [b"text/plain; charset=utf-8", b"application/json", b"Text/Event-Stream", None])
async def test_a_stream_with_a_wrong_label_is_relayed_as_one(label: bytes | None) -> None:
    rig = Rig()
    headers: HeaderList = [] if label is None else [(b"content-type", label)]
    rig.scripts["a"] = lambda _: ScriptedAnswer(200, headers, chat_events("Hello"))
    answer = await rig.call(stream=True)
    assert answer.body == b"".join(chat_events("Hello"))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert rig.calls == {"a": 1}


async def test_a_whole_answer_where_a_stream_was_asked_for_stays_whole() -> None:
    rig = Rig()
    rig.scripts["a"] = answering()
    answer = await rig.call(stream=True)
    assert (answer.body, answer.headers["content-type"]) == (GOOD, "application/json")


async def test_compressed_answers_errors_and_streams_reach_the_client_plain() -> None:
    rig = Rig({"fast": ["a/m"]})
    packed = gzip.compress(GOOD)
    rig.scripts["a"] = lambda _: ScriptedAnswer(200, [*JSON, *GZIP], [packed])
    whole = await rig.call()
    assert (whole.body, "content-encoding" in whole.headers) == (GOOD, False)
    refusal = gzip.compress(b'{"error":{"message":"too small","type":"invalid_request_error"}}')
    rig.scripts["a"] = lambda _: ScriptedAnswer(400, [*JSON, *GZIP], [refusal])
    assert (await rig.call()).json()["error"]["message"] == "too small"
    events = chat_events("Hello")
    rig.scripts["a"] = lambda _: ScriptedAnswer(200, [*SSE, *GZIP], pieces(gzip.compress(b"".join(events)), 9))
    assert (await rig.call(stream=True)).body == b"".join(events)


@pytest.mark.parametrize("routes", [{"fast": ["a/m"]}, {"fast": ["a/m", "b/m"]}])
async def test_a_200_that_is_only_an_error_is_one_with_and_without_a_backup(routes: dict[str, list[str]]) -> None:
    rig = Rig(routes)
    document = {"error": {"message": "The model is overloaded.", "type": "server_error"}}
    rig.scripts["a"] = answering(json.dumps(document).encode())
    answer = await rig.call()
    is_alone = len(routes["fast"]) == 1
    assert answer.status == (502 if is_alone else 200)
    if is_alone:
        assert "overloaded" in answer.json()["error"]["message"]
