"""What intake takes of a body, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import InvalidRequestError, UnsupportedMediaTypeError
from gateway_middleware.intake.parsing import (
    MAX_CHOICES,
    MAX_TOKENS,
    ParsedBody,
    check_media_type,
    check_model,
    parse,
    parse_fields,
)

JSON = b"application/json"
FORM = b"multipart/form-data; boundary=b"
ODD: list[Any] = [None, -1, -0.5, 1.5, True, "5", [], {}]
MODELS = [
    "gpt-4o",
    "openai/gpt-5",
    "ft:gpt-4o:org::id",
    "a",
    "9b",
    "@cf/meta/llama-3.1-8b-instruct",
    "claude-sonnet-4-5[1m]",
    "~moonshotai/kimi",
    "Qwen/Qwen3-235B-A22B",
    "gemma-3+vision",
    "model#tuned",
    "My Deployment (EU)",
    "a%2e?b;c",
]


def read(document: Any, surface: Surface = Surface.CHAT) -> ParsedBody:
    return parse(json.dumps(document).encode(), JSON, surface)


def test_what_is_read() -> None:
    found = read(
        {"model": "gpt-5", "stream": True, "n": 2, "stream_options": {"include_usage": True}, "max_tokens": 7, "x": [1]}
    )

    assert (found.model, found.is_stream, found.wants_stream_usage) == ("gpt-5", True, True)
    assert (found.output_cap, found.choices) == (7, 2)
    assert bytes(found.fields["x"]) == b"[1]"


@pytest.mark.parametrize(
    ("surface", "document", "cap"),
    [
        (Surface.CHAT, {"max_tokens": 1, "max_completion_tokens": 10_000}, 10_000),
        (Surface.CHAT, {"max_tokens": 7, "max_output_tokens": 5}, 7),
        (Surface.CHAT, {"max_output_tokens": 5}, None),
        (Surface.RESPONSES, {"max_output_tokens": 5, "max_tokens": 1}, 5),
        (Surface.MESSAGES, {"max_tokens": 9, "max_completion_tokens": 1}, 9),
        (Surface.COMPLETIONS, {"max_tokens": 9, "max_completion_tokens": 90}, 9),
        (Surface.EMBEDDINGS, {"max_tokens": 9}, None),
        (Surface.CHAT, {"max_tokens": 0}, 0),
        (Surface.CHAT, {"max_tokens": 100.0}, 100),
        (Surface.CHAT, {"max_tokens": 10**40}, MAX_TOKENS),
        (Surface.CHAT, {"max_tokens": 1e300}, MAX_TOKENS),
        *((Surface.CHAT, {"max_tokens": odd}, None) for odd in ODD),
    ],
)
def test_the_largest_cap_of_the_surface_counts(surface: Surface, document: Any, cap: int | None) -> None:
    assert read(document, surface).output_cap == cap


@pytest.mark.parametrize(
    ("n", "choices"),
    [(1, 1), (3, 3), (2.0, 2), (0, 1), (129, 129), (10**9, MAX_CHOICES), (None, 1), (-1, 1), (True, 1), ("2", 1)],
)
def test_choices_are_counted_where_they_can_be(n: Any, choices: int) -> None:
    assert read({"n": n}).choices == choices


def test_null_is_not_given() -> None:
    empty = read({"model": None, "stream": None, "stream_options": None})
    assert (empty.model, empty.is_stream, empty.wants_stream_usage) == (None, False, False)


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": [1]}, "stream_options"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(document: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(document)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"  ", "empty"),
        (b"[]", "JSON object"),
        (b"nonsense", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": [1,]}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "Unicode|not valid JSON"),
        (b'{"a": "x \\uDfff x"}', "Unicode|not valid JSON"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":[' + b"[]," * 210_000 + b"[]]}", "too widely"),
        (b"{" + b",".join(b'"k%d":1' % i for i in range(201)) + b"}", "more than 200 fields"),
    ],
)
def test_what_is_no_body(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        parse_fields(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model": "a", "model": "b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{ "n" : 1 , "x" : {"y": 2} , "n" : 2 }',
        b'{"stream":true,\n"stream":false}',
    ],
)
def test_a_field_that_stands_twice_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="twice") as caught:
        parse_fields(body)

    assert caught.value.param in {"model", "n", "stream"}


@pytest.mark.parametrize(
    "body",
    [
        b'{ "model" : "a" , "x" : { "model" : 1 , "model" : 2 } }',
        b'{"\\u006dodel": "a"}',
        b'{"a": "\\ud83d\\ude00"}',
        b'{"a": "\\\\ud800"}',
        b'{"a/b": 1, "\\/": 2}',
        b"\n{}\t",
    ],
)
def test_unusual_but_sound_bodies_pass(body: bytes) -> None:
    assert set(parse_fields(body)) == set(json.loads(body))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), values, max_size=6), st.sampled_from([None, 2]), st.booleans())
def test_every_sound_object_passes_unchanged(document: dict[str, Any], indent: int | None, is_ascii: bool) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=is_ascii)

    fields = parse_fields(body.encode("utf-8", "surrogatepass"))

    assert {name: json.loads(bytes(raw)) for name, raw in fields.items()} == json.loads(body)
    assert json.loads(msgspec.json.encode(fields)) == json.loads(body)


@pytest.mark.parametrize("model", [*MODELS, "a" * 256])
def test_names_of_models(model: str) -> None:
    assert check_model(model) == model


@pytest.mark.parametrize(
    "model",
    ["", " ", " a", "a ", "a/../b", "a//b", "a\n", "a\r\nx: y", "ä", "a" * 257, "a\x00", "a\x7f", "é/a", "a\u2028b"],
)
def test_what_is_no_name_of_a_model(model: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_model(model)

    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("content_type", "encoding", "surface"),
    [
        (JSON, None, Surface.CHAT),
        (b"application/json; charset=utf-8", None, Surface.CHAT),
        (b'Application/JSON;charset="UTF-8"', b"identity", Surface.MESSAGES),
        (b"application/vnd.api+json", None, Surface.CHAT),
        (b"multipart/form-data; boundary=x", None, Surface.AUDIO_TRANSCRIPTIONS),
    ],
)
def test_media_types(content_type: bytes, encoding: bytes | None, surface: Surface) -> None:
    assert check_media_type(content_type, encoding, surface)


@pytest.mark.parametrize(
    ("content_type", "encoding", "surface"),
    [
        (None, None, Surface.CHAT),
        (b"text/plain", None, Surface.CHAT),
        (b"application/jsonp", None, Surface.CHAT),
        (b"application/json; charset=utf-16", None, Surface.CHAT),
        (JSON, b"gzip", Surface.CHAT),
        (b"multipart/form-data; boundary=x", None, Surface.CHAT),
        (b"multipart/mixed; boundary=x", None, Surface.IMAGES_EDITS),
    ],
)
def test_media_types_that_are_not_taken(content_type: bytes | None, encoding: bytes | None, surface: Surface) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        check_media_type(content_type, encoding, surface)


def form(*parts: tuple[str, str]) -> bytes:
    body = "".join(f'--b\r\ncontent-disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in parts)
    return (body + "--b--\r\n").encode()


def test_a_form_is_read_for_model_and_stream() -> None:
    found = parse(
        form(("model", "whisper-1"), ("stream", "true"), ("file", "x" * 5000)),
        b"multipart/form-data; boundary=b",
        Surface.AUDIO_TRANSCRIPTIONS,
    )

    assert (found.model, found.is_stream, dict(found.fields)) == ("whisper-1", True, {})


def test_a_form_that_names_the_model_twice_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="twice"):
        parse(form(("model", "a"), ("model", "b")), FORM, Surface.AUDIO_TRANSCRIPTIONS)


@pytest.mark.parametrize(
    ("surface", "fields", "outputs"),
    [
        (Surface.CHAT, {"n": 3, "best_of": 9, "prompt": ["a", "b"]}, 3),
        (Surface.COMPLETIONS, {"n": 3, "best_of": 9, "prompt": "a"}, 9),
        (Surface.COMPLETIONS, {"n": 9, "best_of": 3, "prompt": ["a", "b"]}, 18),
        (Surface.COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (Surface.COMPLETIONS, {"prompt": [[1, 2, 3], [4]]}, 2),
        (Surface.COMPLETIONS, {"prompt": []}, 1),
        (Surface.COMPLETIONS, {"prompt": {"odd": 1}}, 1),
        (Surface.COMPLETIONS, {"n": 10**9, "prompt": ["a"] * 2000}, 10**6),
        (Surface.MESSAGES, {"n": 7}, 1),
        (Surface.EMBEDDINGS, {"n": 7, "input": ["a", "b"]}, 1),
    ],
)
def test_the_outputs_that_are_asked_for(surface: Surface, fields: dict[str, object], outputs: int) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    assert parse(body, b"application/json", surface).choices == outputs
