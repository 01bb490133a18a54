"""Reads the top level of a request body, and refuses what two JSON parsers could read in two ways."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from gateway_middleware.core.counted_fields import COUNTED
from gateway_middleware.core.errors import InvalidRequestError, UnsupportedMediaTypeError
from gateway_middleware.core.model_names import RULE, is_model_name
from gateway_middleware.core.multipart import form_fields, is_multipart
from gateway_middleware.intake.strictness import members_of, strict_members_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_middleware.core.domain import Surface

MAX_TOKENS = 10**9
MAX_CHOICES = 1024
"""Numbers are read for limits and prices only, so what is beyond these counts as these: the provider judges."""
MAX_OUTPUTS = 10**6
"""Choices times prompts, in the same sense."""
_LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FORM_SURFACES = frozenset({"images/edits", "images/variations", "audio/transcriptions", "audio/translations"})
_ONLY_USAGE = msgspec.Raw(b'{"include_usage":true}')


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_decode_text = msgspec.json.Decoder(str | None).decode
_decode_flag = msgspec.json.Decoder(bool | None).decode
_decode_number = msgspec.json.Decoder(int | float).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_options = msgspec.json.Decoder(_StreamOptions | None).decode


class ParsedBody(msgspec.Struct, frozen=True, kw_only=True):
    """What intake reads of a body. `model` is None when the body names none, and as unchecked as it came.

    `fields` are those of a JSON body, `form` the short ones of a form.
    """

    fields: Mapping[str, msgspec.Raw]
    content_type: bytes = b"application/json"
    form: Mapping[bytes, bytes] = MappingProxyType({})
    model: str | None = None
    is_stream: bool = False
    wants_stream_usage: bool = False
    output_cap: int | None = None
    choices: int = 1


def check_media_type(content_type: bytes | None, content_encoding: bytes | None, surface: Surface) -> bytes:
    """The content type of the body, if the surface takes it. Raises `UnsupportedMediaTypeError`."""
    if content_encoding is not None and content_encoding.strip().lower() not in {b"", b"identity"}:
        raise UnsupportedMediaTypeError("The body must not be compressed: content-encoding is not supported.")
    if content_type is None:
        raise UnsupportedMediaTypeError("The request has no content-type: application/json is expected.")
    if content_type == b"application/json":
        return content_type
    if is_multipart(content_type):
        if surface.value in _FORM_SURFACES and content_type[:20].lower().startswith(b"multipart/form-data;"):
            return content_type
    elif _is_json(content_type.lower()):
        return b"application/json"
    raise UnsupportedMediaTypeError("This content-type is not supported here: application/json is expected.")


def _is_json(content_type: bytes) -> bool:
    media, *parameters = [part.strip() for part in content_type.split(b";")]
    is_json = media == b"application/json" or (media.startswith(b"application/") and media.endswith(b"+json"))
    charsets = [p for p in parameters if p.startswith(b"charset=")]
    return is_json and all(c.removeprefix(b"charset=").strip(b'"') in {b"utf-8", b"utf8"} for c in charsets)


def parse(body: bytes, content_type: bytes, surface: Surface) -> ParsedBody:
    """Read a body of an accepted type. Raises `InvalidRequestError` that names the field at fault.

    Numbers that cannot be what they are for (`max_tokens: -1`, `n: "2"`) are for the provider to refuse: here they
    count as not given.
    """
    if content_type != b"application/json" and is_multipart(content_type):
        return _parse_form(body, content_type)
    fields = parse_fields(body)
    model, stream, options = fields.get("model"), fields.get("stream"), fields.get("stream_options")
    return ParsedBody(
        fields=fields,
        model=None if model is None else _read(_decode_text, model, "model", "a string"),
        is_stream=stream is not None and bool(_read(_decode_flag, stream, "stream", "a boolean")),
        wants_stream_usage=options is not None and _wants_usage(options),
        output_cap=_output_cap(fields, surface),
        choices=_outputs(fields, surface),
    )


def parse_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of the body, values still raw. Raises `InvalidRequestError`."""
    try:
        return strict_members_of(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse(body, error)


def _refuse(body: bytes, error: Exception) -> NoReturn:
    if isinstance(error, UnicodeDecodeError):
        raise InvalidRequestError("The body is not UTF-8.") from None
    if isinstance(error, RecursionError):
        raise InvalidRequestError("The body is nested too deeply.") from None
    if not body.strip():
        raise InvalidRequestError("The body is empty: a JSON object is expected.") from None
    if body.startswith(_BYTE_ORDER_MARK):
        raise InvalidRequestError("The body is not valid JSON: it begins with a byte order mark.") from None
    if isinstance(error, msgspec.ValidationError):
        raise InvalidRequestError("The body must be a JSON object.") from None
    if _LONE_SURROGATE.search(body):
        raise InvalidRequestError("The body is not valid JSON: half of a surrogate pair stands alone.") from None
    raise InvalidRequestError(f"The body is not valid JSON: {error}.") from None


def check_model(model: str) -> str:
    """The name, if it can be one. Raises `InvalidRequestError`."""
    if not is_model_name(model):
        raise InvalidRequestError(f"A model name has {RULE}.", param="model")
    return model


def _read(decode: Any, raw: msgspec.Raw, field: str, expected: str) -> Any:
    try:
        return decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidRequestError(f"The field `{field}` must be {expected}.", param=field) from None


def _wants_usage(raw: msgspec.Raw) -> bool:
    if raw == _ONLY_USAGE:
        return True
    options = _read(_decode_options, raw, "stream_options", "an object with a boolean `include_usage`")
    if options is None:
        return False
    members_of(bytes(raw))  # one that stands twice would be metered in one way and read upstream in another
    return bool(options.include_usage)


def _count(fields: Mapping[str, msgspec.Raw], field: str) -> int | None:
    """A whole number that is not negative, `100.0` too; None for anything else."""
    raw = fields[field]
    try:
        number = _decode_number(raw)
    except (ValueError, RecursionError):
        return None
    return int(number) if number >= 0 and number == number // 1 else None


def _output_cap(fields: Mapping[str, msgspec.Raw], surface: Surface) -> int | None:
    cap = _largest(fields, COUNTED[surface].caps)
    return None if cap is None else min(cap, MAX_TOKENS)


def _outputs(fields: Mapping[str, msgspec.Raw], surface: Surface) -> int:
    """How many outputs are asked for: the largest number of choices, for each prompt."""
    counted = COUNTED[surface]
    if counted.counted.isdisjoint(fields):
        return 1
    choices = _largest(fields, counted.choices) or 1
    prompts = fields.get(counted.prompts) if counted.prompts is not None else None
    return min(min(choices, MAX_CHOICES) * (1 if prompts is None else _prompts(bytes(prompts))), MAX_OUTPUTS)


def _largest(fields: Mapping[str, msgspec.Raw], names: tuple[str, ...]) -> int | None:
    """The largest count in these fields, None where there is none."""
    largest = None
    for name in names:
        if name in fields and (count := _count(fields, name)) is not None:
            largest = count if largest is None else max(largest, count)
    return largest


def _prompts(raw: bytes) -> int:
    """The prompts of a field that holds a text, a list of texts, the token ids of one text, or a list of such lists."""
    try:
        listed = _decode_list(raw)
    except msgspec.MsgspecError:
        return 1
    is_list_of_prompts = bool(listed) and bytes(listed[0])[:1] in {b'"', b"["}
    return len(listed) if is_list_of_prompts else 1


def _parse_form(body: bytes, content_type: bytes) -> ParsedBody:
    fields = form_fields(body, content_type)
    model = fields.get(b"model")
    return ParsedBody(
        fields={},
        content_type=content_type,
        form=fields,
        model=None if model is None else model.decode("utf-8", "replace"),
        is_stream=fields.get(b"stream", b"").strip().lower() == b"true",
    )
