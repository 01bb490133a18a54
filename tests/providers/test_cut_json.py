"""JSON that was cut anywhere is made whole again, so that clients can read past it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway_middleware.providers.cut_json import end_of_document
from gateway_middleware.providers.events import ChatEvents
from gateway_middleware.providers.large_event import LARGE_EVENT, LargeEvent

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
TREES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
SURROGATES = {"errors": "surrogatepass"}


@given(tree=st.dictionaries(st.text(), TREES), text=st.text(min_size=1), at=st.integers(0), is_ascii=st.booleans())
@example(tree={}, text='\\"\\u12\U0001f600é漢', at=80, is_ascii=False)
@settings(deadline=None, max_examples=200)
def test_an_event_cut_anywhere_is_ended_as_json(tree: dict[str, Any], text: str, at: int, is_ascii: bool) -> None:
    long = text * (2000 // len(text) + 1)
    document = json.dumps({**tree, "long": long, "more": tree}, ensure_ascii=is_ascii).encode(**SURROGATES)
    event = b"event: x\ndata: " + document
    large = LargeEvent(10**7)
    first = len(b"event: x\ndata: {")
    passed, _ = large.feed(event[: max(at % (len(event) + 64), first + 64)])
    cut = passed + large.ending()
    assert isinstance(json.loads(cut.removeprefix(b"event: x\ndata: ")), dict)


@pytest.mark.parametrize(
    ("cut", "ending"),
    [
        (b'{"a": [1, {"b"', b":null}]}"),
        (b'{"a":', b"null}"),
        (b'{"a": 1,', b'"":null}'),
        (b'{"a": 1.', b"0}"),
        (b'{"a": tr', b"ue}"),
        (b'{"a": f', b"alse}"),
        (b'{"a": "[{"}', b""),
        (b"}{", b""),
        (b"no json", b""),
    ],
)
def test_what_is_open_is_closed(cut: bytes, ending: bytes) -> None:
    assert end_of_document(cut) == ending


def test_a_reader_ends_an_event_only_while_it_passes_one_on() -> None:
    reader = ChatEvents()
    event = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"a" * 3 * LARGE_EVENT
    assert reader.ending() == b""
    relayed = reader.feed(event)
    assert json.loads((relayed + reader.ending())[6:])["choices"][0]["index"] == 0
    relayed += reader.finish()
    assert relayed == event, "what was held back of it is not lost"
    assert json.loads((relayed + reader.ending())[6:])["choices"][0]["index"] == 0
    assert ChatEvents().ending() == b""
