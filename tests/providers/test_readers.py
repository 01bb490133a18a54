"""Readers, format by format: when content begins, when an answer is complete, what an error event does."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import StoredCall, Surface, Usage
from gateway_middleware.core.provider_api import ResponseReader
from gateway_middleware.core.sse import split_events
from provider_calls import KEY, OPENAI, model_request, pieces, reader_of, relay

CHUNK = b'data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
ROLE = b'data: {"id":"c1","model":"m","choices":[{"delta":{"role":"assistant","content":"","refusal":null}}]}\n\n'
FINISH = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
SPACED = b'data: {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}\n\n'
FILTER = b'data: {"choices":[],"id":"","model":"","prompt_filter_results":[{"prompt_index":0}]}\n\n'
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
CHAT_ERROR = b'data: {"error":{"message":"Overloaded","type":"server_error","param":null,"code":"busy"}}\n\n'

CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","model":"m"}}\n\n'
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n'

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"m",'
    b'"usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}}}\n\n'
)
MESSAGE_DELTA = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":4}}\n\n'
)
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
BLOCK = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}\n\n'
)
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
MESSAGES_ERROR = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'


def ended(kind: str, **response: object) -> bytes:
    data = {"type": f"response.{kind}", "response": {"id": "resp_1", "model": "m", "error": None, **response}}
    return f"event: response.{kind}\ndata: {json.dumps(data)}\n\n".encode()


def test_chat_stream_is_complete_with_done_and_knows_what_it_used() -> None:
    reader = reader_of(Surface.CHAT, is_event_stream=True)

    assert reader.feed(ROLE) == ROLE
    assert not reader.has_content
    assert reader.feed(CHUNK + USAGE) == CHUNK + USAGE
    assert (reader.has_content, reader.is_complete) == (True, False)
    assert reader.feed(DONE) == DONE
    assert reader.is_complete
    assert (reader.response_id, reader.response_model) == ("c1", "m")
    assert reader.usage == Usage(input_tokens=7, output_tokens=2)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n',
        b'data: {"choices":null,"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n',
        b'data: {"usage" : { "prompt_tokens" : 7 , "completion_tokens" : 2 } }\n\n',
        b'data: {\ndata: "usage":\ndata: {"prompt_tokens":7,"completion_tokens":2}}\n\n',
    ],
)
def test_usage_is_found_wherever_a_provider_puts_it(event: bytes) -> None:
    reader = reader_of(Surface.CHAT, is_event_stream=True)
    stream = CHUNK + event + CHUNK + DONE

    assert relay(reader, [stream]) == stream
    assert reader.usage == Usage(input_tokens=7, output_tokens=2)


def test_content_that_speaks_of_needles_changes_nothing() -> None:
    texts = ["[DONE]", 'error "error"', '"prompt_tokens": 1', '{"error": {"message": "no"}}', "data: [DONE]\n\n"]
    events = [f"data: {json.dumps({'choices': [{'delta': {'content': t}}]})}\n\n".encode() for t in texts]
    for wants_usage in (True, False):
        reader = reader_of(Surface.CHAT, is_event_stream=True, wants_usage=wants_usage)

        assert relay(reader, events) == b"".join(events)
        assert (reader.is_complete, reader.error, reader.usage) == (False, None, None)


SAID = b'data: {"choices":[{"delta":{"content":"error, _tokens\\": [DONE]"}}],"usage":null,"service_tier":"x"}\n\n'
READ = [
    (Surface.CHAT, [ROLE, FILTER, CHUNK, SAID, USAGE, CHAT_ERROR, DONE]),
    (Surface.RESPONSES, [CREATED, DELTA, SAID, ended("completed", usage={"input_tokens": 3, "output_tokens": 4})]),
    (Surface.MESSAGES, [START, PING, BLOCK, SAID, MESSAGES_ERROR, STOP]),
    (Surface.IMAGES_GENERATIONS, [SAID, CHUNK, USAGE, b'data: {"type":"transcript.text.done"}\n\n']),
]
LINE_ENDS = st.sampled_from([b"\n", b"\r\n"])


@given(st.sampled_from(READ), st.data(), LINE_ENDS, st.booleans())
def test_reads_of_whatever_size_teach_the_same(
    read: tuple[Surface, list[bytes]], data: st.DataObject, line_end: bytes, wants_usage: bool
) -> None:
    """Many events at once, one by one, or cut anywhere: the same goes to the client, and the same is known after it."""
    surface, events = read
    blanks = st.sampled_from([b"", b"\n", b": ping\n\n"])
    stream = data.draw(st.lists(st.tuples(st.sampled_from(events), blanks).map(b"".join), max_size=12))
    whole = b"".join(stream).replace(b"\n", line_end)
    cut = data.draw(st.integers(1, max(len(whole), 1)))
    results = []
    for reads in ([whole], [event.replace(b"\n", line_end) for event in stream], pieces(whole, cut)):
        reader = reader_of(surface, is_event_stream=True, wants_usage=wants_usage)
        relayed = b"".join(map(reader.feed, reads))
        known = (reader.usage, reader.raw_usage, reader.response_id, reader.response_model, reader.service_tier)
        ends = (reader.has_content, reader.is_complete, reader.is_usage_final, str(reader.error), str(reader.failure))
        said = [event.strip() for event in split_events(relayed) if event.strip()]  # blank lines say nothing
        results.append((said, known, ends))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_every_framing_is_relayed_untouched(line_end: bytes, size: int) -> None:
    stream = (b"\xef\xbb\xbf: hello\n\n" + ROLE + CHUNK + USAGE + DONE).replace(b"\n", line_end)
    reader = reader_of(Surface.CHAT, is_event_stream=True)

    assert relay(reader, pieces(stream, size)) == stream
    assert (reader.is_complete, reader.response_id) == (True, "c1")
    assert reader.usage == Usage(input_tokens=7, output_tokens=2)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_hidden_usage_leaves_the_stream_as_if_not_asked(line_end: bytes, size: int) -> None:
    asked = (ROLE + CHUNK).replace(b"}\n\n", b',"usage":null}\n\n') + USAGE + DONE
    reader = reader_of(Surface.CHAT, is_event_stream=True, wants_usage=False)
    plain = (FILTER + ROLE + CHUNK + DONE).replace(b"\n", line_end)

    assert relay(reader, pieces((FILTER + asked).replace(b"\n", line_end), size)) == plain
    assert reader.usage == Usage(input_tokens=7, output_tokens=2)


def test_completions_hide_usage_too() -> None:
    reader = reader_of(Surface.COMPLETIONS, is_event_stream=True, wants_usage=False)
    text = b'data: {"id":"cmpl","choices":[{"text":"Hi","index":0}],"usage":null}\n\n'

    assert relay(reader, [text + USAGE + DONE]) == text.replace(b',"usage":null', b"") + DONE
    assert reader.is_complete


@pytest.mark.parametrize(
    ("event", "has_content"),
    [
        (FILTER, False),
        (ROLE, False),
        (b": ping\n\n", False),
        (b'data: {"choices":[{"delta":{}}]}\n\n', False),
        (b'data: {"choices":[{"text":""}]}\n\n', False),
        (b"data: garbage\n\n", False),
        (b'data: {"choices":["odd"]}\n\n', False),
        (b'data: {"choices":[{"delta":{"role":"assistant","tool_calls":[{"index":0}]}}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n', True),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n', True),
        (b'data: {"choices":[{"text":"a"}]}\n\n', True),
    ],
)
def test_chat_content_begins_with_what_a_reader_would_see(event: bytes, *, has_content: bool) -> None:
    reader = reader_of(Surface.CHAT, is_event_stream=True)

    assert reader.feed(event) == event
    assert reader.has_content is has_content


def test_chat_error_event_is_withheld_and_ends_the_stream() -> None:
    for size in (1, 10_000):
        reader = reader_of(Surface.CHAT, is_event_stream=True)
        relayed = b"".join(reader.feed(piece) for piece in pieces(CHUNK + CHAT_ERROR + CHUNK, size))

        assert relayed == CHUNK
        assert reader.error is not None
        assert reader.error.message == "Overloaded"
        assert (reader.error.provider_type, reader.error.provider_code) == ("server_error", "busy")
        assert reader.error.frame == CHAT_ERROR
        assert reader.finish() == b""
        assert not reader.is_complete


@pytest.mark.parametrize(
    ("event", "message", "kind", "code"),
    [
        (b'data: {"id":"x","choices":[],"error":{"code":502,"message":"gone"}}\n\n', "gone", None, "502"),
        (b'data: {"error":"plain words"}\n\n', "plain words", None, None),
        (b'event: error\ndata: {"message":"said above"}\n\n', "said above", None, None),
        (b"event: error\ndata: <html>\n\n", "The provider reported an error inside its stream.", None, None),
    ],
)
def test_chat_errors_in_other_shapes(event: bytes, message: str, kind: str | None, code: str | None) -> None:
    reader = reader_of(Surface.CHAT, is_event_stream=True)
    reader.feed(CHUNK)

    assert reader.feed(event) == b""
    assert reader.error is not None
    assert (reader.error.message, reader.error.provider_type, reader.error.provider_code) == (message, kind, code)


@pytest.mark.parametrize("nothing", [b"null", b"{}", b'""', b"false"])
def test_an_empty_error_member_is_none(nothing: bytes) -> None:
    reader = reader_of(Surface.CHAT, is_event_stream=True)
    event = b'data: {"error":' + nothing + b',"choices":[{"delta":{"content":"a"}}]}\n\n'

    assert reader.feed(event) == event
    assert (reader.error, reader.has_content) == (None, True)


def test_no_secret_is_in_an_error_event() -> None:
    reader = reader_of(Surface.CHAT, is_event_stream=True)
    reader.feed(b'data: {"error":{"message":"bad key ' + KEY.encode() + b'","code":"' + KEY.encode() + b'"}}\n\n')

    assert reader.error is not None
    for text in (reader.error.message, reader.error.provider_code or "", reader.error.frame.decode()):
        assert KEY not in text
        assert "[redacted]" in text


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_responses_stream_ends_with_any_of_three_events(kind: str) -> None:
    usage = {"input_tokens": 4, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}}
    reader = reader_of(Surface.RESPONSES, is_event_stream=True)
    last = ended(kind, usage=usage)

    assert reader.feed(CREATED) == CREATED
    assert (reader.response_id, reader.response_model, reader.has_content) == ("resp_1", "m", False)
    assert reader.feed(DELTA) == DELTA
    assert (reader.has_content, reader.is_complete) == (True, False)
    assert reader.feed(last) == last
    assert (reader.is_complete, reader.error) == (True, None)
    assert reader.usage == Usage(input_tokens=4, output_tokens=3, reasoning_tokens=1)


OUTPUT: list[tuple[object, tuple[str, ...]]] = [
    ([{"id": "rs_1", "type": "reasoning"}, {"type": "message"}, {"id": 7}, {"id": "msg_1"}], ("rs_1", "msg_1")),
    ([], ()),
    (None, ()),
    ([1, 2], ()),
    ("text", ()),
    ([{"id": f"i{n}"} for n in range(1200)], tuple(f"i{n}" for n in range(1000))),
]


@pytest.mark.parametrize(("output", "ids"), OUTPUT)
def test_the_items_of_a_response_are_known_when_it_has_ended(output: object, ids: tuple[str, ...]) -> None:
    stream = reader_of(Surface.RESPONSES, is_event_stream=True)
    stream.feed(CREATED + DELTA)
    assert stream.item_ids == ()
    stream.feed(ended("completed", output=output))
    whole = reader_of(Surface.RESPONSES, is_event_stream=False)
    whole.feed(json.dumps({"id": "resp_1", "output": output}).encode())
    whole.finish()
    assert stream.item_ids == whole.item_ids == ids
    assert (whole.is_complete, whole.response_id) == (True, "resp_1")


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"type":"error","code":"busy","message":"Overloaded","param":null}\n\n',
        b'data: {"type":"error","code":"busy","message":"Overloaded"}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"x","code":"busy","message":"Overloaded"}}\n\n',
    ],
)
def test_responses_error_event_is_withheld(event: bytes) -> None:
    reader = reader_of(Surface.RESPONSES, is_event_stream=True)

    assert reader.feed(CREATED + DELTA + event) == CREATED + DELTA
    assert reader.error is not None
    assert (reader.error.message, reader.error.provider_code, reader.error.frame) == ("Overloaded", "busy", event)
    assert not reader.is_complete


def test_responses_without_event_lines_are_read_by_their_type() -> None:
    reader = reader_of(Surface.RESPONSES, is_event_stream=True)
    stream = b"".join(e.split(b"\n", 1)[1] for e in (CREATED, DELTA, ended("completed", usage={"input_tokens": 1})))

    assert relay(reader, pieces(stream, 30)) == stream
    assert (reader.is_complete, reader.response_id, reader.usage) == (True, "resp_1", Usage(input_tokens=1))


def test_messages_usage_is_replaced_and_merged_never_added() -> None:
    reader = reader_of(Surface.MESSAGES, is_event_stream=True)
    delta = (
        b'event: message_delta\ndata: {"type":"message_delta","delta":{},'
        b'"usage":{"output_tokens":40,"input_tokens":null,"cache_creation_input_tokens":2}}\n\n'
    )

    assert reader.feed(START) == START
    assert reader.usage == Usage(input_tokens=15, output_tokens=1, cached_input_tokens=5)
    assert (reader.response_id, reader.response_model, reader.has_content) == ("msg_1", "m", False)
    assert reader.feed(PING + BLOCK) == PING + BLOCK
    assert reader.feed(delta) == delta
    assert (reader.has_content, reader.is_complete) == (True, False)
    assert reader.feed(STOP) == STOP
    assert (reader.has_content, reader.is_complete) == (True, True)
    assert reader.usage == Usage(input_tokens=17, output_tokens=40, cached_input_tokens=5, cache_write_tokens=2)


def test_messages_error_event_is_withheld() -> None:
    reader = reader_of(Surface.MESSAGES, is_event_stream=True)

    assert reader.feed(START + MESSAGES_ERROR) == START
    assert reader.error is not None
    assert (reader.error.provider_type, reader.error.message) == ("overloaded_error", "Overloaded")
    assert not reader.has_content


@pytest.mark.parametrize(
    ("surface", "stream"),
    [
        (Surface.CHAT, CHUNK + b"data: [DONE]"),
        (Surface.CHAT, CHUNK + b"data: [DONE]\n"),
        (Surface.CHAT, CHUNK + b"data: [DONE]\r\n\r"),
        (Surface.MESSAGES, START + STOP[:-2]),
        (Surface.RESPONSES, CREATED + ended("completed")[:-1]),
    ],
)
def test_a_last_event_without_its_blank_line_is_complete(surface: Surface, stream: bytes) -> None:
    reader = reader_of(surface, is_event_stream=True)

    assert relay(reader, pieces(stream, 9)) == stream
    assert reader.is_complete


@pytest.mark.parametrize(
    ("surface", "stream", "added"),
    [
        (Surface.CHAT, CHUNK + FINISH, DONE),
        (Surface.CHAT, CHUNK + FINISH + USAGE, DONE),
        (Surface.CHAT, CHUNK + FINISH + b": bye\n\n" + FILTER, DONE),
        (Surface.CHAT, (CHUNK + FINISH).replace(b"\n", b"\r\n"), DONE),
        (Surface.CHAT, CHUNK + FINISH[:-1], b"\n\n" + DONE),
        (Surface.CHAT, CHUNK + FINISH[:-2], b"\n\n" + DONE),
        (Surface.CHAT, FINISH, DONE),
        (Surface.COMPLETIONS, CHUNK + SPACED, DONE),
        (Surface.MESSAGES, START + BLOCK + MESSAGE_DELTA, STOP),
        (Surface.MESSAGES, START + BLOCK + MESSAGE_DELTA + PING, STOP),
        (Surface.MESSAGES, START + BLOCK + MESSAGE_DELTA[:-1], b"\n\n" + STOP),
    ],
)
@pytest.mark.parametrize("size", [7, 10_000])
def test_a_stream_that_lacks_only_its_terminating_event_gets_it(
    surface: Surface, stream: bytes, added: bytes, size: int
) -> None:
    reader = reader_of(surface, is_event_stream=True)

    assert relay(reader, pieces(stream, size)) == stream + added
    assert reader.is_complete


@pytest.mark.parametrize(
    ("surface", "stream"),
    [
        (Surface.CHAT, CHUNK + USAGE),
        (Surface.CHAT, CHUNK + FINISH.replace(b'"stop"', b"null")),
        (Surface.CHAT, CHUNK + FINISH.replace(b'"stop"', b'""')),
        (Surface.CHAT, CHUNK + FINISH + CHAT_ERROR),
        (Surface.CHAT, CHUNK.replace(b"Hi", rb"\"finish_reason\":\"stop\"")),
        (Surface.MESSAGES, START + BLOCK),
        (Surface.MESSAGES, START + BLOCK + MESSAGE_DELTA.replace(b'"end_turn"', b"null")),
        (Surface.MESSAGES, START + BLOCK + MESSAGE_DELTA + MESSAGES_ERROR),
        (Surface.RESPONSES, CREATED + DELTA),
    ],
)
def test_a_stream_without_its_last_word_is_not_complete(surface: Surface, stream: bytes) -> None:
    reader = reader_of(surface, is_event_stream=True)
    relayed = relay(reader, [stream])

    assert stream.startswith(relayed)
    assert not reader.is_complete


@pytest.mark.parametrize(("indexes", "is_complete"), [((0,), False), ((1, 1), False), ((1, 0), True)])
def test_every_choice_that_was_asked_for_has_a_last_word(indexes: tuple[int, ...], *, is_complete: bool) -> None:
    request = model_request(Surface.CHAT, is_stream=True, wants_stream_usage=True, choices=2)
    reader = OPENAI.reader(request, is_event_stream=True)
    relay(reader, [CHUNK, *(FINISH.replace(b'"index":0', b'"index":%d' % index) for index in indexes)])

    assert reader.is_complete is is_complete


@pytest.mark.parametrize(
    ("surface", "whole", "rest"),
    [
        (Surface.CHAT, CHUNK, b"data: [DO"),
        (Surface.CHAT, CHUNK + FINISH, USAGE[:40]),
        (Surface.CHAT, CHUNK, CHUNK[:-5]),
        (Surface.MESSAGES, START, STOP[:20]),
        (Surface.MESSAGES, START, b"event: message_stop\n"),
        (Surface.RESPONSES, CREATED, ended("completed")[:-4]),
        (Surface.IMAGES_GENERATIONS, b"", b'data: {"type":"image_generation.comp'),
    ],
)
def test_an_event_cut_off_is_dropped(surface: Surface, whole: bytes, rest: bytes) -> None:
    reader = reader_of(surface, is_event_stream=True)

    assert relay(reader, [whole, rest]) == whole
    assert not reader.is_complete


def test_blank_lines_after_the_end_are_relayed() -> None:
    reader = reader_of(Surface.CHAT, is_event_stream=True)

    assert relay(reader, [CHUNK + DONE + b"\n"]) == CHUNK + DONE + b"\n"
    assert reader.is_complete


@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.RESPONSES, Surface.MESSAGES, Surface.IMAGES_EDITS])
def test_an_empty_stream_is_not_complete(surface: Surface) -> None:
    reader = reader_of(surface, is_event_stream=True)

    assert reader.finish() == b""
    assert not reader.is_complete


def test_images_are_complete_at_the_end_of_the_body_only() -> None:
    image = b'data: {"type":"image_generation.completed","b64_json":"AA","usage":{"input_tokens":50}}\n\n'
    reader = reader_of(Surface.IMAGES_GENERATIONS, is_event_stream=True)

    assert reader.feed(image) == image
    assert (reader.has_content, reader.is_complete) == (True, False)
    assert reader.feed(image) + reader.finish() == image
    assert reader.is_complete
    assert reader.usage == Usage(input_tokens=50)


@pytest.mark.parametrize(
    ("surface", "last"),
    [
        (
            Surface.AUDIO_TRANSCRIPTIONS,
            b'data: {"type":"transcript.text.done","usage":{"type":"tokens","input_tokens":3,"output_tokens":1}}\n\n',
        ),
        (
            Surface.AUDIO_SPEECH,
            b'data: {"type":"speech.audio.done","usage":{"input_tokens":3,"output_tokens":1,"total_tokens":4}}\n\n',
        ),
    ],
)
def test_sound_is_complete_with_its_last_event(surface: Surface, last: bytes) -> None:
    reader = reader_of(surface, is_event_stream=True)
    reader.feed(b'data: {"type":"x.delta","delta":"Hi"}\n\n')

    assert (reader.has_content, reader.is_complete) == (True, False)
    assert reader.feed(last) == last
    assert (reader.has_content, reader.is_complete) == (True, True)
    assert reader.usage == Usage(input_tokens=3, output_tokens=1)


def test_a_done_marker_ends_any_media_stream() -> None:
    reader = reader_of(Surface.AUDIO_TRANSCRIPTIONS, is_event_stream=True)
    delta = b'data: {"type":"transcript.text.delta","delta":"Hi"}\n\n'

    assert reader.feed(delta + DONE) == delta + DONE
    assert reader.is_complete


def test_an_error_event_among_images_is_withheld() -> None:
    reader = reader_of(Surface.IMAGES_EDITS, is_event_stream=True)
    reader.feed(b'data: {"type":"image_edit.partial_image","b64_json":"AA"}\n\n')

    assert reader.feed(CHAT_ERROR) + reader.finish() == b""
    assert reader.error is not None
    assert not reader.is_complete


@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.RESPONSES, Surface.MESSAGES, Surface.IMAGES_GENERATIONS])
def test_an_event_of_many_megabytes_is_whole_on_every_surface(surface: Surface) -> None:
    reader = reader_of(surface, is_event_stream=True)
    event = b'data: {"type":"x","b64_json":"' + b"A" * 10_000_000 + b'"}\n\n'

    assert b"".join(reader.feed(piece) for piece in pieces(event, 65_536)) == event


@pytest.mark.parametrize(
    ("surface", "body", "usage"),
    [
        (Surface.CHAT, b'{"id":"c1","model":"m","usage":{"prompt_tokens":1}}', Usage(input_tokens=1)),
        (
            Surface.IMAGES_GENERATIONS,
            b'{"data":[],"usage":{"input_tokens":5,"output_tokens":9}}',
            Usage(input_tokens=5, output_tokens=9),
        ),
        (
            Surface.AUDIO_TRANSCRIPTIONS,
            b'{"text":"","usage":{"type":"tokens","input_tokens":5}}',
            Usage(input_tokens=5),
        ),
        (Surface.AUDIO_TRANSCRIPTIONS, b'{"text":"","usage":{"type":"duration","seconds":5}}', None),
        (Surface.MODERATIONS, b'{"id":"modr-1","results":[]}', None),
        (Surface.COUNT_TOKENS, b'{"input_tokens":14}', None),
        (
            Surface.MESSAGES,
            b'{"usage":{"input_tokens":1,"cache_read_input_tokens":2}}',
            Usage(input_tokens=3, cached_input_tokens=2),
        ),
        (Surface.EMBEDDINGS, b'{"id":7,"model":null,"usage":{"prompt_tokens":1e999}}', None),
        (Surface.AUDIO_TRANSLATIONS, b"Hello there.\n", None),
        (Surface.AUDIO_TRANSCRIPTIONS, b"WEBVTT\n\n00:00.000 --> 00:01.000\nHi\n", None),
        (Surface.AUDIO_TRANSCRIPTIONS, b"", None),
        (Surface.AUDIO_SPEECH, b"\x00\xff\x00", None),
    ],
)
def test_answers_in_one_piece(surface: Surface, body: bytes, usage: Usage | None) -> None:
    for size in (1, 1000):
        reader = reader_of(surface, is_event_stream=False)

        assert relay(reader, pieces(body, size)) == body
        assert (reader.is_complete, reader.usage, reader.error) == (True, usage, None)
        assert reader.has_content is bool(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>502</html>", b'{"id":"c', b"[]", b'"text"', b'{"a":1} {"b":2}', b'{"a":' * 100_000, b"\x1f\x8b\x08"],
)
def test_what_is_no_json_object_is_not_complete(body: bytes) -> None:
    for surface in (Surface.CHAT, Surface.MESSAGES, Surface.EMBEDDINGS, Surface.IMAGES_EDITS):
        reader = reader_of(surface, is_event_stream=False)

        assert relay(reader, [body]) == body
        assert not reader.is_complete


@pytest.mark.parametrize("body", [b'{"text":"cut', b" <!DOCTYPE html><p>", b"<HTML>"])
def test_a_broken_transcript_is_not_complete(body: bytes) -> None:
    reader = reader_of(Surface.AUDIO_TRANSCRIPTIONS, is_event_stream=False)
    relay(reader, [body])

    assert not reader.is_complete


EVENTS = st.sampled_from(
    [
        ROLE,
        CHUNK,
        FINISH,
        SPACED,
        FILTER,
        USAGE,
        b": ping\n\n",
        b"data: x\n\n",
        CHAT_ERROR,
        DONE,
        CREATED,
        DELTA,
        START,
        MESSAGE_DELTA,
        STOP,
    ]
)


@given(
    events=st.lists(EVENTS, max_size=8),
    cuts=st.lists(st.integers(0, 900)),
    wants_usage=st.booleans(),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
)
def test_chunk_boundaries_never_matter(
    *, events: list[bytes], cuts: list[int], wants_usage: bool, line_end: bytes
) -> None:
    stream = b"".join(events).replace(b"\n", line_end)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    for surface in (Surface.CHAT, Surface.RESPONSES, Surface.MESSAGES):
        at_once, cut = (reader_of(surface, is_event_stream=True, wants_usage=wants_usage) for _ in range(2))
        assert relay(cut, chunks) == relay(at_once, [stream])
        for name in ("usage", "response_id", "response_model", "is_complete", "has_content"):
            assert getattr(cut, name) == getattr(at_once, name)
        assert (cut.error is None) is (at_once.error is None)


@pytest.mark.parametrize(
    ("surface", "end"),
    [
        (Surface.CHAT, b"data: [DONE]\n\n"),
        (
            Surface.RESPONSES,
            b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r"}}\n\n',
        ),
        (Surface.MESSAGES, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    ],
)
@pytest.mark.parametrize("is_at_once", [True, False])
def test_what_comes_after_the_end_of_a_stream_is_cut(surface: Surface, end: bytes, is_at_once: bool) -> None:
    content = b'data: {"type":"x","choices":[{"delta":{"content":"a"}}]}\n\n'
    surplus = b'data: {"choices":[{"delta":{"content":"second answer"}}]}\n\ndata: unfinished'
    reader = reader_of(surface, is_event_stream=True)

    assert relay(reader, [content + end + surplus] if is_at_once else [content, end, surplus]) == content + end
    assert reader.is_complete
    assert reader.error is None


ITEMS = b'[{"id":"msg_1"},{"id":"fc_1"}]'
FAILED = b'{"id":"resp_1","model":"m","error":{"message":"no"},"usage":{"input_tokens":3},"output":%b}' % ITEMS


def stored_reader(*, is_event_stream: bool) -> ResponseReader:
    call = StoredCall(method="GET", response_id="resp_1")
    return OPENAI.reader(model_request(Surface.STORED, stored=call), is_event_stream=is_event_stream)


@pytest.mark.parametrize(
    ("body", "is_complete", "response_id", "item_ids"),
    [
        (FAILED, True, "resp_1", ("msg_1", "fc_1")),
        (b'{"object":"list","data":%b}' % ITEMS, True, None, ("msg_1", "fc_1")),
        (b'{"id":"resp_1","object":"response","deleted":true}', True, "resp_1", ()),
        (b'{"id":"resp_1"', False, None, ()),
        (b"<html>", False, None, ()),
        (b"", False, None, ()),
    ],
)
def test_what_was_stored_says_what_is_in_it_and_used_nothing(
    body: bytes, is_complete: bool, response_id: str | None, item_ids: tuple[str, ...]
) -> None:
    reader = stored_reader(is_event_stream=False)

    assert relay(reader, [body[:9], body[9:]]) == body
    assert (reader.is_complete, reader.response_id, reader.item_ids) == (is_complete, response_id, item_ids)
    assert (reader.usage, reader.raw_usage, reader.failure) == (None, None, None)


@pytest.mark.parametrize("kind", ["completed", "failed", "incomplete"])
def test_stored_events_were_used_when_they_were_made(kind: str) -> None:
    reader = stored_reader(is_event_stream=True)
    stream = CREATED + DELTA + ended(kind, usage={"input_tokens": 3, "output_tokens": 4}, output=[{"id": "msg_1"}])

    assert relay(reader, [stream]) == stream
    assert (reader.is_complete, reader.failure, reader.usage, reader.raw_usage) == (True, None, None, None)
    assert (reader.response_id, reader.item_ids) == ("resp_1", ("msg_1",))


@pytest.mark.parametrize(("stream", "is_complete"), [(b"", True), (CREATED + DELTA, False), (CREATED[:-2], False)])
def test_after_the_last_event_there_may_be_none(stream: bytes, is_complete: bool) -> None:
    reader = stored_reader(is_event_stream=True)

    relay(reader, [stream] if stream else [])
    assert reader.is_complete is is_complete
