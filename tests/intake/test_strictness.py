"""Bodies that two parsers could read in two ways, or that cost more than they should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.intake.parsing import parse, parse_fields
from gateway_middleware.intake.strictness import MAX_BRACKETS, MAX_FIELDS

JSON = b"application/json"
MAX_DEPTH = 64
BLANKS = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])
AWKWARD = st.text(st.sampled_from('[]{}"\\u, :dn8é\n\t/'), max_size=12)


def is_taken(body: bytes) -> bool:
    try:
        parse_fields(body)
    except InvalidRequestError:
        return False
    return True


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def wrapped(value: Any, levels: str) -> Any:
    for level in levels:
        value = [1, value, "]"] if level == "a" else {"}": value, "b": 2}
    return value


trees = st.recursive(
    AWKWARD | st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(AWKWARD, inner, max_size=3)
)


@given(trees, st.text("ao", min_size=MAX_DEPTH - 5, max_size=MAX_DEPTH + 2), AWKWARD, st.sampled_from([None, 1]))
def test_depth_is_counted_outside_strings_only(tree: Any, levels: str, text: str, indent: int | None) -> None:
    document = {"text": text, "tree": wrapped(tree, levels)}

    assert is_taken(json.dumps(document, indent=indent).encode()) == (depth_of(document) <= MAX_DEPTH)


@pytest.mark.parametrize(("levels", "expected"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (900, False)])
def test_where_the_depth_ends(levels: int, expected: bool) -> None:
    arrays = b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"
    hidden = b'{"a":' + b'["]",' * (levels - 1) + b"1" + b"]" * (levels - 1) + b"}"

    assert is_taken(arrays) == expected
    assert is_taken(hidden) == expected


def test_brackets_in_strings_are_no_levels() -> None:
    assert is_taken(json.dumps({"a": "[" * 5000, "b": '"{' * 5000, "c": ["\\"] * 200}).encode())


names = st.sampled_from(["n", "model", "é", 'a"b', "a\\", "x"])
raw_values = st.sampled_from(["1", "12", "1.5", "1e3", '"a"', '"n"', '{"z":1}', '{"n":1}', "[1]", "null", '"}"'])


@st.composite
def objects(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    members = draw(st.lists(st.tuples(names, raw_values, st.booleans()), max_size=5))
    pieces = []
    for name, value, is_escaped in members:
        spelt = "".join(f"\\u{ord(c):04x}" for c in name) if is_escaped else json.dumps(name, ensure_ascii=False)[1:-1]
        pieces.append(f'{draw(BLANKS)}"{spelt}"{draw(BLANKS)}:{draw(BLANKS)}{value}{draw(BLANKS)}')
    return f"{draw(BLANKS)}{{{','.join(pieces)}}}{draw(BLANKS)}".encode(), [name for name, _, _ in members]


@given(objects())
def test_a_body_is_refused_exactly_when_a_name_stands_twice(made: tuple[bytes, list[str]]) -> None:
    body, found = made

    if len(set(found)) == len(found):
        assert {n: json.loads(bytes(raw)) for n, raw in parse_fields(body).items()} == json.loads(body)
    else:
        with pytest.raises(InvalidRequestError, match="twice") as caught:
            parse_fields(body)
        assert caught.value.param in found


def test_an_earlier_value_unlike_the_one_that_is_kept() -> None:
    with pytest.raises(InvalidRequestError, match="twice"):
        parse_fields(b'{"n":12,"n":1}')
    with pytest.raises(InvalidRequestError, match="twice"):
        parse_fields(b'{"n":{"z":1},"n":1}')
    with pytest.raises(InvalidRequestError, match="twice"):
        parse_fields(b'{"x": 0, "n": 12, "n": 1}')


@given(st.text(st.sampled_from('\ud83d\ude00\udbff\udc00\\ud8n"é'), max_size=10))
def test_half_a_surrogate_pair_is_refused_and_a_whole_one_is_not(text: str) -> None:
    """It is msgspec that sees to it, in values that stay raw too."""
    body = json.dumps({"a": [text], text: 1}).encode()
    try:
        "".join(json.loads(body)["a"]).encode()
        is_sound = True
    except UnicodeEncodeError:
        is_sound = False

    assert is_taken(body) == is_sound


@pytest.mark.parametrize("body", [b'{"a":"\\ud83d\\\\\\ude00"}', b'{"a":"\\uD83D"}', b'{"a":"\\uDE00\\uD83D"}'])
def test_halves_that_only_look_like_a_pair(body: bytes) -> None:
    assert not is_taken(body)


@pytest.mark.parametrize("extra", [b"", b" "])
@pytest.mark.parametrize("padding", [0, 300_000])
def test_the_number_of_fields(extra: bytes, padding: int) -> None:
    """Large bodies are counted while they are decoded: the same limit, the same answer."""

    def body(count: int) -> bytes:
        members = [b'"k%d":1' % i for i in range(count - 1)]
        return b"{" + b",".join([b'"pad":"' + b"x" * padding + b'"', *members]) + extra + b"}"

    fields = parse_fields(body(MAX_FIELDS))

    assert len(fields) == MAX_FIELDS
    assert {type(name) for name in fields} == {str}
    with pytest.raises(InvalidRequestError, match="more than 200 fields"):
        parse_fields(body(MAX_FIELDS + 1))


def test_a_large_body_with_a_field_twice() -> None:
    with pytest.raises(InvalidRequestError, match="twice"):
        parse_fields(b'{"pad":"' + b"x" * 300_000 + b'","model":"a","model":"b"}')


HOSTILE = [
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":[' + b"[]," * 3_400_000 + b"[]]}",
    b"{" + b",".join(b'"k%d":1' % i for i in range(700_000)) + b"}",
    b'{"n":NaN}',
    b'{"x":-Infinity}',
    b'{"x":"\\udc00"}',
    b"\xef\xbb\xbf{}",
    '{"x":1}'.encode("utf-16-le"),
    '{"x":1}'.encode("utf-16"),
    b'{"x":1}{"x":2}',
    b'{"x":"\xc0\xaf"}',
    b"null",
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse(body, JSON, Surface.CHAT)


@pytest.mark.parametrize("layout", [b'{"x":%b}', b'{ "x": %b }', b'{"\\u0078":%b}'])
@pytest.mark.parametrize("number", [b"9" * 5000, b"1e999"])
def test_numbers_of_fields_that_are_not_read_pass_as_they_are(layout: bytes, number: bytes) -> None:
    assert bytes(parse(layout % number, JSON, Surface.CHAT).fields["x"]) == number


@pytest.mark.parametrize("number", [b"9" * 5000, b"1e999"])
def test_a_cap_that_is_no_number_to_anybody_is_for_the_provider_to_refuse(number: bytes) -> None:
    parsed = parse(b'{"max_tokens":' + number + b"}", JSON, Surface.CHAT)

    assert parsed.output_cap is None
    assert bytes(parsed.fields["max_tokens"]) == number


@pytest.mark.parametrize(
    "options", [b'{"include_usage":true}', b'{"include_usage": true}', b'{"x":1,"include_usage":true}']
)
def test_stream_usage_that_is_asked_for(options: bytes) -> None:
    assert parse(b'{"stream_options":' + options + b"}", JSON, Surface.CHAT).wants_stream_usage
    assert not parse(
        b'{"stream_options":' + options.replace(b"true", b"false") + b"}", JSON, Surface.CHAT
    ).wants_stream_usage


def test_a_stream_option_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="twice"):
        parse(b'{"stream_options":{"include_usage":false,"include_usage":true}}', JSON, Surface.CHAT)


def test_a_byte_order_mark_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="byte order mark"):
        parse(b"\xef\xbb\xbf{}", JSON, Surface.CHAT)


@pytest.mark.parametrize("half", [rb"\ud83d", rb"\uD83d x", rb"\ud83d\ud83d"])
def test_half_of_a_character_is_refused_by_its_name(half: bytes) -> None:
    """The library says of it that the input was cut off."""
    with pytest.raises(InvalidRequestError, match="half of a surrogate pair"):
        parse_fields(b'{"model":"m","input":"%b"}' % half)
    assert parse_fields(b'{"input":"\\ud83d\\ude00"}')


def test_brackets_in_strings_are_not_counted() -> None:
    page = json.dumps({"input": "[]{}" * (MAX_BRACKETS // 2), "tools": [{"x": ['"['] * 10}]}).encode()
    rows = b'{"input":[' + b",".join([b"[1]"] * (MAX_BRACKETS - 2)) + b"]}"

    assert is_taken(page)
    assert is_taken(rows)
    assert not is_taken(rows.replace(b"[1]", b"[[1]]"))


def test_the_deepest_level_may_stand_beside_others() -> None:
    deepest = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)

    assert is_taken(deepest + b',"b":[[],[]]}')
