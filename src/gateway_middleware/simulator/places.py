"""Reads a request target: which provider and surface it is for, and which model its path names.

The table is the simulator's own, so that a mistake in the gateway's is not repeated here.
"""

from __future__ import annotations

from urllib.parse import parse_qs, unquote

import msgspec

from gateway_middleware.core.domain import MODEL_SURFACES, Dialect, Surface

MODELS = "models"
STORED = "responses/{id}"
CONTROL = "control"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is at a request target. `kind` is the path of a surface, `models`, `control`, or empty for nothing."""

    provider: Dialect
    kind: str = ""
    path: str
    model: str | None = None
    """The deployment, or the model that is asked about."""
    api_version: str | None = None
    needs_api_version: bool = False
    vendor: str = ""
    """Whose look-alike it is, by its name below `/as/`; empty: one of the three themselves."""
    base: str = ""
    """The path between that name and the kind."""
    response_id: str = ""
    tail: str = ""
    """What follows the id of a stored response: `cancel`, `input_items`."""
    query: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods it takes."""
        if self.kind == STORED:
            return _TAILS[self.tail]
        return ("GET",) if self.kind == MODELS else ("POST",)


_ANTHROPIC = frozenset({Surface.MESSAGES.value, Surface.COUNT_TOKENS.value})
_OPENAI = frozenset(s.value for s in MODEL_SURFACES) - _ANTHROPIC
_TAILS = {"": ("GET", "DELETE"), "cancel": ("POST",), "input_items": ("GET",)}
_STORES = (
    ("/v1/responses/", Dialect.OPENAI, False),
    ("/openai/v1/responses/", Dialect.AZURE, False),
    ("/openai/responses/", Dialect.AZURE, True),
)
_PREFIXES = (
    ("/v1/", Dialect.OPENAI, _OPENAI),
    ("/v1/", Dialect.ANTHROPIC, _ANTHROPIC),
    ("/anthropic/v1/", Dialect.ANTHROPIC, _ANTHROPIC),
    ("/openai/v1/", Dialect.AZURE, _OPENAI),
)
_EXACT = {prefix + kind: (provider, kind) for prefix, provider, kinds in _PREFIXES for kind in kinds}
_MODELS = (
    ("/v1/models", Dialect.OPENAI),
    ("/anthropic/v1/models", Dialect.ANTHROPIC),
    ("/openai/v1/models", Dialect.AZURE),
    ("/openai/models", Dialect.AZURE),
)
_DATED = {f"/openai/{kind}": kind for kind in ("responses", "responses/input_tokens", "responses/compact")}
_DEPLOYMENTS = "/openai/deployments/"
_VENDORS = "/as/"


def locate(target: bytes) -> Place:
    """The place of a request target."""
    raw, _, query = target.decode("latin-1").partition("?")
    path = unquote(raw)
    version = parse_qs(query).get("api-version", [None])[0]
    exact = _EXACT.get(path)
    if exact is not None:
        return Place(provider=exact[0], kind=exact[1], path=path, api_version=version)
    if path.startswith("/control/"):
        return Place(provider=Dialect.OPENAI, kind=CONTROL, path=path)
    if path.startswith(_VENDORS):
        return _of_vendor(path)
    if path in _DATED:
        return _dated(path, _DATED[path], None, version)
    if path.startswith(_DEPLOYMENTS):
        return _deployment(path, raw, version)
    return _stored(path, raw, query, version) or _models(path, version)


def _stored(path: str, raw: str, query: str, version: str | None) -> Place | None:
    """What is at the path of a stored response. Its id is one segment as it was sent, before it is decoded."""
    for prefix, provider, is_dated in _STORES:
        response_id, _, tail = raw.removeprefix(prefix).partition("/")
        if raw.startswith(prefix) and response_id and tail in _TAILS:
            return Place(
                provider=provider,
                kind=STORED,
                path=path,
                api_version=version,
                needs_api_version=is_dated,
                response_id=unquote(response_id),
                tail=tail,
                query=query,
            )
    return None


def _of_vendor(path: str) -> Place:
    vendor, _, rest = path.removeprefix(_VENDORS).partition("/")
    for kind in sorted(_OPENAI | _ANTHROPIC, key=len, reverse=True):
        if f"/{rest}".endswith(f"/{kind}"):
            provider = Dialect.ANTHROPIC if kind in _ANTHROPIC else Dialect.OPENAI
            base = f"/{rest}".removesuffix(f"/{kind}")
            return Place(provider=provider, kind=kind, path=path, vendor=vendor, base=base)
    return Place(provider=_guess(f"/{rest}"), path=path, vendor=vendor)


def _dated(path: str, kind: str, model: str | None, version: str | None) -> Place:
    return Place(provider=Dialect.AZURE, kind=kind, path=path, model=model, api_version=version, needs_api_version=True)


def _deployment(path: str, raw: str, version: str | None) -> Place:
    name, _, kind = raw.removeprefix(_DEPLOYMENTS).partition("/")
    if kind in _OPENAI and kind not in _DATED.values() and name:
        return _dated(path, kind, unquote(name), version)
    return Place(provider=Dialect.AZURE, path=path)


def _models(path: str, version: str | None) -> Place:
    for prefix, provider in _MODELS:
        if path == prefix or path.startswith(prefix + "/"):
            model = path[len(prefix) + 1 :] or None
            needs = prefix == "/openai/models"
            return Place(
                provider=provider,
                kind=MODELS,
                path=path,
                model=model,
                api_version=version,
                needs_api_version=needs,
            )
    return Place(provider=_guess(path), path=path)


def _guess(path: str) -> Dialect:
    if path.startswith(("/v1/messages", "/anthropic/")):
        return Dialect.ANTHROPIC
    return Dialect.AZURE if path.startswith("/openai") else Dialect.OPENAI
