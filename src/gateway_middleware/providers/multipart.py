"""Replaces the part named `model` of a multipart form and leaves every other byte as it was."""

from __future__ import annotations

from gateway_middleware.core.multipart import boundary_of, part_of, part_spans


def with_model_part(body: bytes, content_type: bytes, model: str, *, is_added: bool) -> bytes:
    """The form with this model. A form that names none gets the part when `is_added`.

    Raises `InvalidRequestError` for a form that two parsers could read in two ways.
    """
    boundary = boundary_of(content_type)
    spans = part_spans(body, boundary)
    part = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + model.encode()
    pieces, done = [], 0
    for start, end in spans:
        name, content = part_of(body[start:end])
        if name == b"model":
            pieces += [body[done:start], part if content != model.encode() else body[start:end]]
            done = end
    if not pieces and is_added:
        first = spans[0][0]
        pieces, done = [body[:first], part, b"\r\n--", boundary], first
    return b"".join([*pieces, body[done:]])
