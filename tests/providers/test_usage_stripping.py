from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.providers.usage_stripping import without_null_usage

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from(["", "usage", '"usage":null', "{", "}", '\\"', ',"usage":null}']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["usage", "a", "b{"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("event", "hidden"),
    [
        (b'data: {"a":1,"usage":null}\n\n', b'data: {"a":1}\n\n'),
        (b'data: {"a":1,"usage":null,"b":"x"}\n\n', b'data: {"a":1,"b":"x"}\n\n'),
        (b'data: {"usage":null,"a":1}\n\n', b'data: {"a":1}\n\n'),
        (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
        (b'data: {"a": 1, "usage": null}\n\n', b'data: {"a": 1}\n\n'),
        (b'data: { "usage" : null , "a": 1}\n\n', b'data: {"a": 1}\n\n'),
        (b'data: {"a": 1, "usage": null, "b": 2}\r\n\r\n', b'data: {"a": 1, "b": 2}\r\n\r\n'),
        (b'data: {"a":[{"usage":null}],"usage":null,"c":[{}]}\n\n', b'data: {"a":[{"usage":null}],"c":[{}]}\n\n'),
        (b'data: {"c":[{}],"usage":null,"a":[{"usage":null}]}\n\n', b'data: {"c":[{}],"a":[{"usage":null}]}\n\n'),
        (b'data: {"a":"{{","usage":null,"b":"}}","c":{}}\n\n', b'data: {"a":"{{","b":"}}","c":{}}\n\n'),
    ],
)
def test_the_outermost_null_usage_is_taken_out(event: bytes, hidden: bytes) -> None:
    assert without_null_usage(event) == hidden


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"a":1}\n\n',
        b'data: {"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"a":{"usage":null}}\n\n',
        b'data: {"a":[{"usage":null}],"b":[{"usage":null}]}\n\n',
        b'data: {"content":"say \\"usage\\":null"}\n\n',
        b'data: {"content":"\\\\","x":"\\"usage\\":null,"}\n\n',
        b'data: {"a":"usage","b":[{},{}]}\n\n',
        b"data: [DONE]\n\n",
        b": usage\n\n",
    ],
)
def test_anything_else_stays(event: bytes) -> None:
    assert without_null_usage(event) == event


@given(
    st.dictionaries(st.sampled_from(["a", "b", "usages", "c}", "d"]), JSON_VALUES, max_size=4),
    st.integers(0, 4),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
)
def test_what_was_added_is_taken_away_byte_for_byte(
    chunk: dict[str, Any], place: int, separators: tuple[str, str]
) -> None:
    members = list(chunk.items())
    injected = dict([*members[:place], ("usage", None), *members[place:]])
    event, plain = (f"data: {json.dumps(o, separators=separators)}\n\n".encode() for o in (injected, chunk))

    if separators[0] == " , ":  # blanks around a first or last comma have no one place
        assert json.loads(without_null_usage(event)[6:]) == chunk
    else:
        assert without_null_usage(event) == plain
    assert without_null_usage(plain) == plain


@given(st.lists(st.sampled_from([
    b'data: {"a":1,"usage":null}\n\n',
    b'data: {"a":[{"usage":null}],"usage":null}\n\n',
    b'data: {"usage":null,"a":{"b":1}}\n\n',
    b'data: {"a": ",\\"usage\\":null}","usage" : null }\n\n',
    b'data: {"a":{"b":1,"usage":null}}\n\n',
    b": ping\n\n",
])))  # fmt: skip
def test_many_events_are_stripped_like_each_alone(events: list[bytes]) -> None:
    assert without_null_usage(b"".join(events)) == b"".join(map(without_null_usage, events))
