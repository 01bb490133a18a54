"""Forms with parts (RFC 7578), read as strictly as a proxy must: where two parsers could differ, refuse."""

from __future__ import annotations

import re

from gateway_middleware.core.errors import InvalidRequestError

_PARAMETER = re.compile(rb';\s*([a-z0-9_*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s"]*)', re.IGNORECASE)
_DISPOSITION = b"content-disposition"
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_ESCAPE = re.compile(rb"\\(.)")
_FOLD = re.compile(rb"\r\n[ \t]+")
_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*")
_LINE_END = re.compile(rb"[ \t]*\r\n")
_LAST_LINE_END = re.compile(rb"--[ \t]*(?:\r\n|$)")

_MAX_FIELD = 4096
_MAX_HEAD = 4096
_MAX_PARTS = 1000


def is_multipart(content_type: bytes) -> bool:
    """Whether a body of this type is a form with parts."""
    return content_type[:10].lower() == b"multipart/"


def form_fields(body: bytes, content_type: bytes) -> dict[bytes, bytes]:
    """The short fields of a form by name; files and long fields are left out, of a list (`name[]`) the last one stays.

    Raises `InvalidRequestError`.
    """
    fields: dict[bytes, bytes] = {}
    for start, end in part_spans(body, boundary_of(content_type)):
        if end - start < _MAX_FIELD:
            name, content = part_of(body[start:end])
            if name in fields and not name.endswith(b"[]"):
                raise InvalidRequestError("The form names a field twice.", param=name.decode("latin-1"))
            fields[name] = content
    return fields


def boundary_of(content_type: bytes) -> bytes:
    """The boundary that a content type names. Raises `InvalidRequestError`."""
    boundary = _parameters(content_type).get(b"boundary", b"")
    if _BOUNDARY.fullmatch(boundary) is None or any(c < 32 for c in content_type):
        raise _refusal("names no usable boundary")
    return boundary


def part_spans(body: bytes, boundary: bytes) -> list[tuple[int, int]]:
    """Each part, from behind its delimiter to before the CRLF of the next one. Raises `InvalidRequestError`."""
    delimiter = b"--" + boundary
    spans: list[tuple[int, int]] = []
    start, delimiter_at = -1, body.find(delimiter)
    while delimiter_at >= 0:
        after = delimiter_at + len(delimiter)
        line_end = _LINE_END.match(body, after)
        is_last = _LAST_LINE_END.match(body, after) is not None
        if (delimiter_at and body[delimiter_at - 2 : delimiter_at] != b"\r\n") or not (line_end or is_last):
            raise _refusal("holds its boundary inside a part")
        if start >= 0:
            spans.append((start, delimiter_at - 2))
        if len(spans) > _MAX_PARTS:
            raise _refusal(f"has more than {_MAX_PARTS} parts")
        start, delimiter_at = line_end.end() - 2 if line_end else after, body.find(delimiter, after)
        if is_last and spans and delimiter_at < 0:
            return spans
        if is_last:
            break
    raise _refusal("has no parts, or no end")


def part_of(part: bytes) -> tuple[bytes, bytes]:
    """The name of a part, which each must have (RFC 7578, 4.2), and its content. Raises `InvalidRequestError`."""
    head, end_of_head, content = part.partition(b"\r\n\r\n")
    if len(head) > _MAX_HEAD:
        raise _refusal(f"has a part with more than {_MAX_HEAD} bytes of headers")
    lines = _FOLD.sub(b" ", head).removeprefix(b"\r\n").split(b"\r\n")
    if not end_of_head or not all(_HEADER.fullmatch(line) for line in lines):
        raise _refusal("has a part whose headers are none")
    values = [value for field, _, value in (line.partition(b":") for line in lines) if field.lower() == _DISPOSITION]
    if len(values) != 1:
        raise _refusal("has a part that is not named once")
    return _name(values[0]), content


def _name(disposition: bytes) -> bytes:
    """The name, where it is told once and plainly.

    RFC 7578 has no `name*` in another character set (RFC 5987) and no pieces `name*0` (RFC 2231), but there are parsers
    that read them, and prefer them.
    """
    names = [name.lower() for name, _ in _PARAMETER.findall(disposition)]
    if any(name.startswith(b"name*") for name in names):
        raise _refusal("names a part in an extended way (`name*`)")
    if names.count(b"name") != 1 or _PARAMETER.sub(b"", disposition).strip(b" \t;").lower() != b"form-data":
        raise _refusal("has a part whose name is in doubt")
    return _parameters(disposition)[b"name"]


def _parameters(value: bytes) -> dict[bytes, bytes]:
    return {name.lower(): _unquoted(text) for name, text in _PARAMETER.findall(value)}


def _unquoted(text: bytes) -> bytes:
    return _ESCAPE.sub(rb"\1", text[1:-1]) if len(text) > 1 and text.startswith(b'"') else text


def _refusal(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"The form {what}.")
