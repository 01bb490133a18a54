"""One model call at the simulator: what it asks for, and whether the vendor would take it."""

from __future__ import annotations

import re
from collections.abc import Container

import msgspec

from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.simulator.parameters import Parameters, StreamOptions, missing, read
from gateway_middleware.simulator.places import MODELS, STORED, Place
from gateway_middleware.simulator.record import Request
from gateway_middleware.simulator.refusals import Refusal
from gateway_middleware.simulator.vendors import VENDORS, Vendor

_UNKNOWN_PREFIX = "missing-"
_BARE = Parameters()
_NO_SIGNATURE = re.compile(rb'"signature":"[^"]*[^"A-Za-z0-9+/=_-]')
_BODILESS = frozenset({MODELS, STORED})


class Call(msgspec.Struct, kw_only=True):
    """A request that was understood as far as it can be. `complaint` is what is wrong with its body."""

    place: Place
    method: str
    headers: dict[bytes, bytes]
    body: bytes
    parameters: Parameters = _BARE
    complaint: str | None = None

    @property
    def model(self) -> str:
        """The model that is asked for, or nothing."""
        return self.place.model or self.parameters.model or ""

    @property
    def vendor(self) -> Vendor | None:
        """The vendor whose look-alike it is for, or None."""
        return VENDORS.get(self.place.vendor)


def understand(request: Request, place: Place) -> Call:
    """Read what a request asks for. Never raises."""
    headers = dict(request.headers)
    if place.kind in {"", MODELS} and place.provider is Dialect.OPENAI and b"anthropic-version" in headers:
        place = msgspec.structs.replace(place, provider=Dialect.ANTHROPIC)
    call = Call(place=place, method=request.method, headers=headers, body=request.body)
    if place.kind not in {"", *_BODILESS} and request.method == "POST":
        try:
            call.parameters = read(request.body, headers.get(b"content-type", b""))
            if call.vendor is not None and call.vendor.has_usage_unasked:
                asked = StreamOptions(include_usage=True)
                call.parameters = msgspec.structs.replace(call.parameters, stream_options=asked)
        except (ValueError, RecursionError) as error:
            call.complaint = f"We could not parse the body of your request: {error}"
    return call


_BEARER = b"authorization"
_CREDENTIALS = {
    Dialect.OPENAI: (_BEARER,),
    Dialect.ANTHROPIC: (b"x-api-key", _BEARER),
    Dialect.AZURE: (b"api-key", _BEARER),
}


def credential(headers: dict[bytes, bytes], names: tuple[bytes, ...]) -> str | None:
    """The key in the first of these headers that was sent; in `authorization` it is a bearer token."""
    for name in names:
        if name in headers and name != _BEARER:
            return _text(headers[name])
    scheme, _, key = headers.get(_BEARER, b"").partition(b" ")
    return _text(key.strip()) if scheme.lower() == b"bearer" and _BEARER in names else None


def key_of(call: Call) -> str | None:
    """The credential that the vendor looks at."""
    return credential(call.headers, _key_headers(call))


def _key_headers(call: Call) -> tuple[bytes, ...]:
    return _CREDENTIALS[call.place.provider] if call.vendor is None else call.vendor.credentials


def refusal_for(call: Call, keys: Container[str] | None) -> Refusal | None:
    """Why the vendor would not take the call, or None. With `keys` None every credential is right."""
    place = call.place
    if not place.kind or (place.vendor and not _is_served(place)):
        return Refusal(status=404, message=f"Invalid URL ({call.method} {place.path})", code=_unknown_path(place))
    if call.method not in place.methods:
        return Refusal(status=405, message=f"Not allowed to {call.method} on {place.path}", code="method_not_allowed")
    key = key_of(call)
    if _key_headers(call) and (not key or (keys is not None and key not in keys)):
        return Refusal(status=401, message=_unauthorized(key))
    return (
        _version_refusal(call)
        or _body_refusal(call)
        or _signature_refusal(call)
        or _model_refusal(call)
        or _vendor_refusal(call)
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _unknown_path(place: Place) -> str:
    return "404" if place.provider is Dialect.AZURE else "unknown_url"


def _unauthorized(key: str | None) -> str:
    if not key:
        return "You did not provide an API key in the header that this API takes."
    return f"Incorrect API key provided: {key}."


def _version_refusal(call: Call) -> Refusal | None:
    if call.place.provider is Dialect.ANTHROPIC and b"anthropic-version" not in call.headers:
        return Refusal(status=400, message="anthropic-version: header is required")
    if call.place.needs_api_version and not call.place.api_version:
        return Refusal(status=404, message="Resource not found", code="404")
    return None


def _body_refusal(call: Call) -> Refusal | None:
    if call.place.kind in _BODILESS:
        return None
    if call.complaint is not None:
        return Refusal(status=400, message=call.complaint)
    name = missing(call.place, call.parameters)
    if name is None:
        return None
    is_anthropic = call.place.provider is Dialect.ANTHROPIC
    message = f"{name}: Field required" if is_anthropic else f"Missing required parameter: '{name}'."
    return Refusal(status=400, message=message, param=name, code=None if is_anthropic else "missing_required_parameter")


def _signature_refusal(call: Call) -> Refusal | None:
    """Anthropic's signatures are base64."""
    if call.place.provider is not Dialect.ANTHROPIC or b'"signature"' not in call.body:
        return None
    if _NO_SIGNATURE.search(call.body) is not None:
        return Refusal(status=400, message="messages.1.content.0: Invalid `signature` in `thinking` block")
    return None


def _is_served(place: Place) -> bool:
    """Whether the vendor has this path."""
    vendor = VENDORS.get(place.vendor)
    return vendor is not None and place.base == vendor.base and place.kind in vendor.kinds


def _vendor_refusal(call: Call) -> Refusal | None:
    """What this vendor refuses of the format that it speaks."""
    if call.vendor is None or not call.body.startswith(b"{"):
        return None
    return call.vendor.refuses(msgspec.json.decode(call.body))


def _model_refusal(call: Call) -> Refusal | None:
    if not call.model.startswith(_UNKNOWN_PREFIX):
        return None
    if call.place.provider is Dialect.ANTHROPIC:
        return Refusal(status=404, message=f"model: {call.model}")
    message = f"The model `{call.model}` does not exist or you do not have access to it."
    if call.place.provider is Dialect.OPENAI and call.place.kind == Surface.RESPONSES:
        message = f"The requested model '{call.model}' does not exist."
        return Refusal(status=400, message=message, param="model", code="model_not_found")
    return Refusal(status=404, message=message)
