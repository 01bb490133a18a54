"""Our reading of forms beside python-multipart, which Starlette uses: what we take, it reads alike."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.core.multipart import boundary_of, form_fields, part_of, part_spans
from gateway_middleware.providers.multipart import with_model_part

NAME = st.text(st.sampled_from("abcdefgh_[]-. é"), min_size=1, max_size=10)
CONTENT = st.binary(max_size=80)
BOUNDARY = st.from_regex(r"[0-9A-Za-z'()+_,./:=?-]{1,40}", fullmatch=True).map(str.encode)
EXTRA = st.sampled_from([b"", b'; filename="a.wav"', b'; filename="we \\"say\\".wav"', b"\r\nContent-Type: audio/wav"])


def part(name: str, content: bytes, extra: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="%s"%s\r\n\r\n%s' % (name.encode(), extra, content)


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A content type and a body, as a good client makes them."""
    boundary = draw(BOUNDARY)
    parts = [part(*p) for p in draw(st.lists(st.tuples(NAME, CONTENT, EXTRA), min_size=1, max_size=5))]
    assume(not any(b"--" + boundary in p for p in parts))
    lines = [b"--%s\r\n%s\r\n" % (boundary, p) for p in parts]
    return b'multipart/form-data; boundary="%s"' % boundary, b"".join(lines) + b"--%s--\r\n" % boundary


@st.composite
def damaged_forms(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A form in which bytes were taken out, put in or doubled."""
    content_type, body = draw(forms())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 12)))
        put = draw(st.sampled_from([b"", b"\r\n", b"--", b'"', b";", b"name=b", b"\n", body[start : end + 8]]))
        body = body[:start] + put + body[end:]
    return content_type, body


def theirs(content_type: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of each part. Raises FormParserError."""
    parts: list[tuple[bytes, bytes]] = []
    field, value, name, content = bytearray(), bytearray(), [b""], bytearray()

    def header_end() -> None:
        if bytes(field).lower() == b"content-disposition":
            name[0] = parse_options_header(bytes(value))[1].get(b"name", b"")
        field.clear()
        value.clear()

    def part_end() -> None:
        parts.append((name[0], bytes(content)))
        name[0] = b""
        content.clear()

    parser = MultipartParser(
        parse_options_header(content_type)[1][b"boundary"],
        {
            "on_header_field": lambda data, start, end: field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: value.extend(data[start:end]),
            "on_header_end": header_end,
            "on_part_data": lambda data, start, end: content.extend(data[start:end]),
            "on_part_end": part_end,
        },
    )
    parser.write(body)
    parser.finalize()
    return parts


def ours(content_type: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of each part. Raises InvalidRequestError."""
    return [part_of(body[start:end]) for start, end in part_spans(body, boundary_of(content_type))]


@settings(deadline=None)
@given(form=forms())
def test_good_forms_are_read_alike(form: tuple[bytes, bytes]) -> None:
    assert ours(*form) == theirs(*form)


@settings(deadline=None, max_examples=500)
@given(form=damaged_forms())
def test_what_we_take_has_the_same_fields_for_a_server_behind_us(form: tuple[bytes, bytes]) -> None:
    try:
        fields = form_fields(form[1], form[0])
    except InvalidRequestError:
        return  # refused: nothing can be understood in two ways
    try:
        read_behind_us = dict(theirs(*form))
    except FormParserError:
        return  # the server refuses it
    assert {name: read_behind_us.get(name) for name in fields} == fields
    assert set(read_behind_us) == set(fields)


@settings(deadline=None)
@given(form=forms(), model=CONTENT, is_named=st.booleans(), is_added=st.booleans())
def test_a_form_with_another_model_is_the_same_form_with_another_model(
    form: tuple[bytes, bytes], model: bytes, is_named: bool, is_added: bool
) -> None:
    content_type, body = form
    boundary = boundary_of(content_type)
    if is_named:
        named = part("model", model, b"")
        assume(b"--" + boundary not in named)
        body = b"--%s\r\n%s\r\n" % (boundary, named) + body
    before = theirs(content_type, body)
    after = theirs(content_type, with_model_part(body, content_type, "gpt-x", is_added=is_added))

    if is_named:
        assert after == [(name, b"gpt-x" if name == b"model" else content) for name, content in before]
    else:
        assert after == ([(b"model", b"gpt-x"), *before] if is_added else before)
