from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.providers.multipart import with_model_part

TYPE = b"multipart/form-data; boundary=xYz"
MODEL_HEAD = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'


def form(*parts: bytes, boundary: bytes = b"xYz") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def replaced(body: bytes, content_type: bytes = TYPE, model: str = "new", *, is_added: bool = True) -> bytes:
    return with_model_part(body, content_type, model, is_added=is_added)


@pytest.mark.parametrize(
    "head",
    [
        MODEL_HEAD,
        b"content-disposition:form-data;name=model",
        b'CONTENT-DISPOSITION: form-data; NAME="model"',
        b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"\r\nContent-Length: 3',
        b'Content-Disposition: form-data;\r\n name="model"',
        b'Content-Disposition: form-data; name="mod\\el"',
    ],
)
def test_the_part_is_found_however_it_is_written(head: bytes) -> None:
    body = form(FILE + b"\x00\xff", head + b"\r\n\r\nold", b'Content-Disposition: form-data; name="x"\r\n\r\n1')
    wanted = form(FILE + b"\x00\xff", MODEL_HEAD + b"\r\n\r\nnew", b'Content-Disposition: form-data; name="x"\r\n\r\n1')

    assert replaced(body) == wanted


def test_every_part_of_that_name_is_replaced() -> None:
    old = MODEL_HEAD + b"\r\n\r\n"
    assert replaced(form(old + b"a", FILE, old + b"b")) == form(old + b"new", FILE, old + b"new")


@pytest.mark.parametrize(
    "part",
    [
        b'Content-Disposition: form-data; filename="; name=model"\r\n\r\nold',
        b'X-Other: form-data; name="model"\r\n\r\nold',
        b"\r\nno header",
        b"",
        b'Content-Disposition: form-data; name="model"\r\n',
        b'Content-Disposition: form-data; name="mod\nel"\r\n\r\nold',
        b'Content-Disposition form-data; name="model"\r\n\r\nold',
    ],
)
def test_a_part_without_a_name_or_with_a_broken_head_is_refused(part: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        replaced(form(part), is_added=False)


@pytest.mark.parametrize(
    "part",
    [
        b'Content-Disposition: form-data; name="models"\r\n\r\nold',
        b'Content-Disposition: form-data; name="x"\r\n\r\nContent-Disposition: form-data; name="model"\r\n\r\nold',
        b'Content-Disposition: form-data; name="x"; filename="y; name=\\"model\\""\r\n\r\nold',
        FILE + b"\r\n--xY\r\n-xYz\r\n",
    ],
)
def test_what_only_looks_like_the_part_stays(part: bytes) -> None:
    assert replaced(form(part), is_added=False) == form(part)
    assert replaced(form(part)) == form(MODEL_HEAD + b"\r\n\r\nnew", part)


def test_a_form_with_this_model_is_untouched() -> None:
    body = form(b'content-disposition: form-data; name="model"\r\nX: y\r\n\r\nnew', FILE)
    assert replaced(body) == body


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data; boundary=xYz",
        b'Multipart/Form-Data; charset=utf-8; Boundary="xYz"',
        b"multipart/form-data;boundary=xYz ; x=y",
    ],
)
def test_the_boundary_is_found(content_type: bytes) -> None:
    assert replaced(form(MODEL_HEAD + b"\r\n\r\nold"), content_type) == form(MODEL_HEAD + b"\r\n\r\nnew")


def test_preamble_padding_and_epilogue_stay() -> None:
    body = b"hello\r\n--xYz \t\r\n" + MODEL_HEAD + b"\r\n\r\n%s\r\n--xYz--\r\nbye"
    assert replaced(body % b"old") == body % b"new"


def test_a_form_may_end_without_a_line_end() -> None:
    body = form(MODEL_HEAD + b"\r\n\r\nold").removesuffix(b"\r\n")
    assert replaced(body) == form(MODEL_HEAD + b"\r\n\r\nnew").removesuffix(b"\r\n")


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b'multipart/form-data; boundary="x\r\nevil: y"',
        b"multipart/form-data; boundary=xYz; a=\r\nevil: y",
        b'multipart/form-data; boundary="\xff"',
    ],
)
def test_an_unusable_boundary_is_refused(content_type: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="boundary"):
        replaced(form(MODEL_HEAD + b"\r\n\r\nold"), content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        b"--xYz--\r\n",
        form(MODEL_HEAD + b"\r\n\r\nold")[:-8],
        b"--xYz\n" + MODEL_HEAD + b"\n\nold\n--xYz--\n",
        form(FILE + b"a\n--xYz\nb"),
        form(FILE + b"a\n--xYz\r\nb"),
        form(FILE + b"a\r\n--xYzb"),
        form(FILE + b"a") + form(MODEL_HEAD + b"\r\n\r\nold"),
    ],
)
def test_a_form_that_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="form"):
        replaced(body)


@given(
    st.lists(st.binary(max_size=40), max_size=4),
    st.integers(0, 4),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20),
)
def test_every_other_part_survives(contents: list[bytes], place: int, model: str) -> None:
    assume(not any(b"--xYz" in content for content in contents))
    others = [b'Content-Disposition: form-data; name="f"\r\n\r\n' + content for content in contents]
    old, new = (MODEL_HEAD + b"\r\n\r\n" + name for name in (b"old", model.encode()))

    assert replaced(form(*others[:place], old, *others[place:]), model=model) == form(
        *others[:place], new, *others[place:]
    )
