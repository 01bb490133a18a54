"""Short fields of forms, with bounded work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.core.multipart import form_fields, part_of
from gateway_middleware.intake.parsing import parse

TYPE = b"multipart/form-data; boundary=b"
HEAD = b'--b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n'


def form(*parts: tuple[bytes, bytes]) -> bytes:
    return b"".join(HEAD % name + value + b"\r\n" for name, value in parts) + b"--b--\r\n"


contents = st.binary(max_size=30).filter(lambda content: b"--b" not in content)


@given(st.dictionaries(st.text("abcmodel_", min_size=1, max_size=8), contents, min_size=1, max_size=5))
def test_fields_come_back(fields: dict[str, bytes]) -> None:
    sent = [(name.encode(), content) for name, content in fields.items()]

    assert form_fields(form(*sent), TYPE) == dict(sent)


def test_a_list_may_have_several_parts() -> None:
    """The OpenAI SDK sends `timestamp_granularities[]` and `image[]` once for each element."""
    body = form(
        (b"model", b"whisper-1"),
        (b"timestamp_granularities[]", b"word"),
        (b"timestamp_granularities[]", b"segment"),
        (b"image[]", b"1"),
        (b"image[]", b"2"),
    )

    assert parse(body, TYPE, Surface.AUDIO_TRANSCRIPTIONS).model == "whisper-1"


@pytest.mark.parametrize("name", [b"model", b"stream", b"prompt"])
def test_any_other_field_stands_once(name: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="twice") as caught:
        form_fields(form((name, b"a"), (name, b"b")), TYPE)

    assert caught.value.param == name.decode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (form(*[(b"x[]", b"1")] * 1001), "more than 1000 parts"),
        (b"--b\r\n" * 2_000_000 + b"--b--\r\n", "more than 1000 parts"),
        (b"--b\r\n\r\n" * 2_000_000 + b"--b--\r\n", "more than 1000 parts"),
        (b"--b\r\n\r\nx--b--\r\n", "inside a part"),
        (HEAD % b"model" + b"m\r\n", "no end"),
        (b"", "no parts"),
    ],
)
def test_a_form_that_is_too_much_or_none(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        form_fields(body, TYPE)


@pytest.mark.parametrize("filler", [b"\r\n ", b";a=", b"x"])
def test_the_head_of_a_part_is_short(filler: bytes) -> None:
    head = b'content-disposition: form-data; name="model"'

    assert part_of(head + b"\r\n\r\nm") == (b"model", b"m")
    with pytest.raises(InvalidRequestError, match="4096 bytes of headers"):
        part_of(head + filler * 2_000_000 + b"\r\n\r\nm")


def test_a_thousand_parts_pass() -> None:
    assert form_fields(form(*[(b"x[]", b"1")] * 1000), TYPE) == {b"x[]": b"1"}


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"b" * 71,
        b"multipart/form-data; boundary=" + b"b" * 1_000_000,
        b'multipart/form-data; boundary="b\nc"',
        b"multipart/form-data; boundary=b\xff",
    ],
)
def test_a_boundary_that_is_none(content_type: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="boundary"):
        form_fields(form((b"model", b"m")), content_type)


@pytest.mark.parametrize(
    "disposition",
    [
        b"form-data; name*=utf-8''model",
        b"form-data; name=\"x\"; name*=utf-8''model",
        b"form-data; NAME*0=mo; name*1=del",
        b'form-data; name="x"; name="model"',
        b'form-data; name="x"; name *= model',
        b'form-data; name="x"\r\ncontent-disposition: form-data; name="model"',
    ],
)
def test_a_name_that_two_parsers_could_read_in_two_ways_is_refused(disposition: bytes) -> None:
    body = b"--b\r\ncontent-disposition: " + disposition + b"\r\n\r\nm\r\n--b--\r\n"

    with pytest.raises(InvalidRequestError):
        form_fields(body, TYPE)


def test_the_name_of_a_file_may_be_in_any_character_set() -> None:
    part = b"content-disposition: form-data; name=\"file\"; filename*=utf-8''caf%C3%A9.mp3\r\n\r\nx"

    assert part_of(part) == (b"file", b"x")
