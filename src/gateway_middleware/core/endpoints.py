"""Every path the gateway answers, in one table: what it is, in which dialect, and who may ask."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway_middleware.core.domain import MODEL_SURFACES, Dialect, Surface


class Access(StrEnum):
    """Who may call an endpoint. Whoever reads this treats everything but OPEN as closed."""

    OPEN = "open"
    TENANT = "tenant"
    TENANT_OR_ADMIN = "tenant_or_admin"
    ADMIN = "admin"
    METRICS = "metrics"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of the contract. `surface` is None for those that are not model calls.

    `label` names it in logs and metrics. `argument` is the path parameter, percent-decoded: a deployment, a model, a
    provider, a response.
    """

    label: str
    path: str
    """The path in Starlette's notation, below the mount prefix."""
    methods: tuple[str, ...]
    access: Access
    dialect: Dialect = Dialect.OPENAI
    surface: Surface | None = None
    argument: str | None = None
    key_id: str | None = None
    """The second path parameter, of paths that have one."""


_OPENAI_SURFACES = tuple(s for s in MODEL_SURFACES if s not in (Surface.MESSAGES, Surface.COUNT_TOKENS))
_ANTHROPIC_SURFACES = (Surface.MESSAGES, Surface.COUNT_TOKENS)
_WITHOUT_DEPLOYMENT = (Surface.RESPONSES, Surface.INPUT_TOKENS, Surface.COMPACT)
"""What Azure's dated versions have at a path without a deployment: the model is in the body."""
_READ = ("GET", "HEAD")
_BREAKERS = "/v1/admin/circuit-breakers"
_TENANTS = "/v1/admin/tenants"
_BREAKER_COMMANDS = ("reset", "force-open", "force-close", "auto")


def _surface(path: str, surface: Surface, dialect: Dialect) -> Endpoint:
    return Endpoint(
        label=surface.label, path=path, methods=("POST",), access=Access.TENANT, dialect=dialect, surface=surface
    )


def _surfaces() -> list[Endpoint]:
    endpoints = [_surface(f"/v1/{s}", s, Dialect.OPENAI) for s in _OPENAI_SURFACES]
    for prefix in ("/v1", "/anthropic/v1"):
        endpoints += [_surface(f"{prefix}/{s}", s, Dialect.ANTHROPIC) for s in _ANTHROPIC_SURFACES]
    endpoints += [_surface(f"/openai/v1/{s}", s, Dialect.AZURE) for s in _OPENAI_SURFACES]
    endpoints += [
        _surface(f"/openai/deployments/{{argument:path}}/{s}", s, Dialect.AZURE)
        for s in _OPENAI_SURFACES
        if s not in _WITHOUT_DEPLOYMENT
    ]
    endpoints += [_surface(f"/openai/{s}", s, Dialect.AZURE) for s in _WITHOUT_DEPLOYMENT]
    endpoints += _stored("/v1", Dialect.OPENAI)
    for prefix in ("/openai/v1", "/openai"):
        endpoints += _stored(prefix, Dialect.AZURE)
    return endpoints


def _stored(prefix: str, dialect: Dialect) -> list[Endpoint]:
    """What can be done with a response that a provider has stored."""
    operations = (
        ("response", "", ("GET", "DELETE")),
        ("response_cancel", "/cancel", ("POST",)),
        ("response_input_items", "/input_items", ("GET",)),
    )
    return [
        Endpoint(
            label=label,
            path=f"{prefix}/responses/{{argument}}{path}",
            methods=methods,
            access=Access.TENANT,
            dialect=dialect,
            surface=Surface.STORED,
        )
        for label, path, methods in operations
    ]


def _read(label: str, path: str, access: Access, dialect: Dialect = Dialect.OPENAI) -> Endpoint:
    return Endpoint(label=label, path=path, methods=_READ, access=access, dialect=dialect)


def _command(label: str, path: str) -> Endpoint:
    return Endpoint(label=label, path=path, methods=("POST",), access=Access.ADMIN)


def _others() -> list[Endpoint]:
    models = []
    for prefix, dialect in (
        ("/v1", Dialect.OPENAI),
        ("/anthropic/v1", Dialect.ANTHROPIC),
        ("/openai/v1", Dialect.AZURE),
        ("/openai", Dialect.AZURE),
    ):
        models.append(_read("models", f"{prefix}/models", Access.TENANT, dialect))
        models.append(_read("models", f"{prefix}/models/{{argument:path}}", Access.TENANT, dialect))
    return [
        *models,
        _read("healthz", "/healthz", Access.OPEN),
        _read("healthz", "/livez", Access.OPEN),
        _read("healthz", "/", Access.OPEN),
        _read("readyz", "/readyz", Access.OPEN),
        _read("health", "/v1/health", Access.OPEN),
        _read("providers", "/v1/providers", Access.OPEN),
        _read("provider_status", "/v1/providers/{argument}/status", Access.OPEN),
        _read("metrics", "/metrics", Access.METRICS),
        _read("console", "/console", Access.OPEN),
        _read("openapi", "/openapi.json", Access.OPEN),
        _read("usage", "/v1/usage", Access.TENANT),
        _read("usage_of_call", "/v1/usage/{argument}", Access.TENANT_OR_ADMIN),
        *(_command("admin_circuit_breaker", f"{_BREAKERS}/{{argument:path}}/{name}") for name in _BREAKER_COMMANDS),
        _read("admin_status", "/v1/admin/status", Access.ADMIN),
        _command("admin_reload", "/v1/admin/reload"),
        _read("admin_revocations", "/v1/admin/revocations", Access.ADMIN),
        msgspec.structs.replace(_command("admin_revocation", "/v1/admin/revocations/{argument}"), methods=("DELETE",)),
        msgspec.structs.replace(_command("admin_tenants", _TENANTS), methods=(*_READ, "POST")),
        msgspec.structs.replace(_command("admin_keys", f"{_TENANTS}/{{argument}}/keys"), methods=(*_READ, "POST")),
        msgspec.structs.replace(_command("admin_tenant", f"{_TENANTS}/{{argument}}"), methods=("PATCH",)),
        msgspec.structs.replace(
            _command("admin_key", f"{_TENANTS}/{{argument}}/keys/{{key_id}}"), methods=("PATCH", "DELETE")
        ),
        _command("admin_key_rotation", f"{_TENANTS}/{{argument}}/keys/{{key_id}}/rotate"),
        _command("admin_policy", "/v1/admin/policy/invalidate"),
        _command("admin_policy", "/v1/admin/policy/invalidate/{argument}"),
        _read("admin_usage", "/v1/admin/usage", Access.ADMIN),
        msgspec.structs.replace(_command("admin_reconcile", "/v1/admin/usage/reconcile"), methods=("POST", *_READ)),
    ]


ENDPOINTS: tuple[Endpoint, ...] = (*_surfaces(), *_others())
"""The whole contract. Starlette's routes are made from it, and so is the hot path's dictionary."""

_EXACT = {e.path: e for e in ENDPOINTS if "{" not in e.path}


_PAIR = "{argument}/keys/{key_id}"
_PAIR_PARTS = 3


class _Pattern(msgspec.Struct, frozen=True):
    """A path with one parameter, split around it; or with `{argument}/keys/{key_id}`, split around both together."""

    endpoint: Endpoint
    before: str
    after: str
    spans_slashes: bool
    has_key_id: bool

    @classmethod
    def of(cls, endpoint: Endpoint) -> _Pattern:
        spans, has_key_id = ":path}" in endpoint.path, _PAIR in endpoint.path
        before, after = endpoint.path.split(_PAIR if has_key_id else "{argument:path}" if spans else "{argument}")
        return cls(endpoint, before, after, spans, has_key_id)

    def located(self, argument: str) -> Endpoint | None:
        """The endpoint with its parameters, unless they are not as many as it has."""
        if not self.has_key_id:
            return msgspec.structs.replace(self.endpoint, argument=argument)
        parts = argument.split("/")
        is_pair = len(parts) == _PAIR_PARTS and parts[1] == "keys" and parts[0] and parts[2]
        return msgspec.structs.replace(self.endpoint, argument=parts[0], key_id=parts[2]) if is_pair else None

    def argument(self, path: str) -> str | None:
        argument = path[len(self.before) : len(path) - len(self.after)]
        fits = path.startswith(self.before) and path.endswith(self.after) and len(path) > len(self.before + self.after)
        return argument if fits and (self.spans_slashes or self.has_key_id or "/" not in argument) else None


_PATTERNS = [_Pattern.of(e) for e in ENDPOINTS if "{" in e.path]


def locate(path: str) -> Endpoint | None:
    """The endpoint of a path below the mount prefix (`scope["path"]`, percent-decoded), or None.

    Nothing is at a path with characters that do not print: routers differ in what they make of a line end.
    """
    exact = _EXACT.get(path)
    if exact is not None or not path.isprintable():
        return exact
    for pattern in _PATTERNS:
        argument = pattern.argument(path)
        endpoint = None if argument is None else pattern.located(argument)
        if endpoint is not None:
            return endpoint
    return None


def guess_dialect(path: str, header_names: frozenset[bytes]) -> Dialect:
    """The dialect for an answer about a path that is no endpoint."""
    if path.startswith(("/anthropic/", "/v1/messages")) or b"anthropic-version" in header_names:
        return Dialect.ANTHROPIC
    return Dialect.AZURE if path.startswith("/openai/") else Dialect.OPENAI
