"""`/openapi.json`: all endpoints that are no model calls, as an OpenAPI 3.1 document.

Paths and methods are those of the table of endpoints; bodies are those of the structs that read them. Model calls are
described by their vendors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import msgspec

from gateway_middleware._version import __version__
from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.endpoints import ENDPOINTS, Access, Endpoint
from gateway_middleware.operations.admin import CommandOptions
from gateway_middleware.operations.keys import KeyChange, NewKey, NewTenant, Rotation, TenantChange

_REF = "#/components/schemas/{name}"
_MOMENT = {"type": ["string", "null"], "format": "date-time"}
_WORDS = {"type": "array", "items": {"type": "string"}}
_NAME = {"type": ["string", "null"]}


class Operation(msgspec.Struct, frozen=True):
    """What is said of one method of an endpoint. `argument` is what its path parameter is called."""

    summary: str
    argument: str = ""
    body: type[msgspec.Struct] | None = None
    status: int = 200
    schema: str = "Document"
    query: tuple[str, ...] = ()


_COMMAND = Operation("Reset or force the breakers of a provider, a deployment or a host.", "key", CommandOptions)
_OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("models", "GET"): Operation("The models that this tenant may call.", "model"),
    ("response", "GET"): Operation(
        "A response that is stored at its provider.", "response_id", query=("include", "stream", "starting_after")
    ),
    ("response", "DELETE"): Operation("Delete a stored response.", "response_id"),
    ("response_cancel", "POST"): Operation("Cancel a response of the background.", "response_id"),
    ("response_input_items", "GET"): Operation(
        "What a stored response was asked.", "response_id", query=("include", "after", "limit", "order")
    ),
    ("healthz", "GET"): Operation("The process answers."),
    ("readyz", "GET"): Operation("Whether the gateway should get traffic; 503 with the reason."),
    ("health", "GET"): Operation("State of breakers, limits, metering and fleet.", schema="Health"),
    ("providers", "GET"): Operation("The providers that are configured."),
    ("provider_status", "GET"): Operation("One provider, with figures of the last minute.", "provider"),
    ("usage", "GET"): Operation("The tenant's limits, what remains, what was used.", query=("end_user", "split")),
    ("usage_of_call", "GET"): Operation("What one call has used and cost.", "request_id"),
    ("admin_circuit_breaker", "POST"): _COMMAND,
    ("admin_status", "GET"): Operation("The state of all processes of the fleet."),
    ("admin_reload", "POST"): Operation("Every process reads its settings again."),
    ("admin_revocations", "GET"): Operation("Keys that a reload has taken away."),
    ("admin_revocation", "DELETE"): Operation("Give a revoked key back.", "digest"),
    ("admin_policy", "POST"): Operation("Forget what the policy-adapter has said.", "tenant"),
    ("admin_usage", "GET"): Operation("Limits and use of any tenant.", query=("tenant", "end_user", "split")),
    ("admin_reconcile", "GET"): Operation("What was metered between two days.", query=("from", "to")),
    ("admin_reconcile", "POST"): Operation("What was metered between two days.", query=("from", "to")),
    ("admin_tenants", "GET"): Operation("Every tenant.", schema="Tenants"),
    ("admin_tenants", "POST"): Operation("Make a tenant.", body=NewTenant, status=201, schema="Tenant"),
    ("admin_tenant", "PATCH"): Operation("Change a tenant's limits.", "tenant", TenantChange, schema="Tenant"),
    ("admin_keys", "GET"): Operation("The keys of a tenant, none of them itself.", "tenant", schema="Keys"),
    ("admin_keys", "POST"): Operation("Make a key; shown once.", "tenant", NewKey, 201, "MadeKey"),
    ("admin_key", "PATCH"): Operation("Change a key's limits.", "tenant", KeyChange, schema="Key"),
    ("admin_key", "DELETE"): Operation("Revoke a key.", "tenant", schema="RevokedKey"),
    ("admin_key_rotation", "POST"): Operation("A new secret of a key; shown once.", "tenant", Rotation, 200, "MadeKey"),
}


@cache
def openapi_document() -> dict[str, Any]:
    """The whole document; it holds nothing of a configuration."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        for method in endpoint.methods:
            operation = _OPERATIONS.get((endpoint.label, method))
            if operation is not None and endpoint.dialect is Dialect.OPENAI:
                made = _operation(endpoint, method, operation)
                paths.setdefault(_path(endpoint, operation), {})[method.lower()] = made
    return {
        "openapi": "3.1.0",
        "info": {"title": "Model Gateway", "version": __version__},
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _path(endpoint: Endpoint, operation: Operation) -> str:
    return endpoint.path.replace("{argument:path}", f"{{{operation.argument}}}").replace(
        "{argument}", f"{{{operation.argument}}}"
    )


def _operation(endpoint: Endpoint, method: str, operation: Operation) -> dict[str, Any]:
    name = _path(endpoint, operation).strip("/").replace("/", "_").replace("{", "").replace("}", "")
    made: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "summary": operation.summary,
        "responses": {
            str(operation.status): _content("The answer.", operation.schema),
            "default": _content("A refusal.", "Error"),
        },
    }
    parameters = list(_parameters(endpoint, operation))
    if parameters:
        made["parameters"] = parameters
    if endpoint.access is not Access.OPEN:
        made["security"] = [{"key": []}]
    if operation.body is not None:
        is_required = bool(msgspec.json.schema(operation.body)["$defs"][operation.body.__name__]["required"])
        made["requestBody"] = {"required": is_required, **_json(operation.body.__name__)}
    return made


def _parameters(endpoint: Endpoint, operation: Operation) -> Iterable[dict[str, Any]]:
    path = _path(endpoint, operation)
    for name in (operation.argument, "key_id"):
        if name and f"{{{name}}}" in path:
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name in operation.query:
        yield {"name": name, "in": "query", "required": name == "tenant", "schema": {"type": "string"}}


def _content(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, **_json(schema)}


def _json(schema: str) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": _REF.format(name=schema)}}}}


def _schemas() -> dict[str, Any]:
    _, bodies = msgspec.json.schema_components(
        [NewTenant, TenantChange, NewKey, KeyChange, Rotation, CommandOptions], ref_template=_REF
    )
    return bodies | {
        "Document": {"type": "object"},
        "Health": _object(status={"type": "string"}, version={"type": "string"}, config_hash={"type": "string"},
                          circuit_breakers={"type": "object"}),
        "Error": _object(error=_object(message={"type": "string"}, type={"type": "string"}, param=_NAME, code=_NAME)),
        "Tenant": _object(name={"type": "string"}, source={"enum": ["configuration", "stored"]}, models=_WORDS,
                          keys={"type": "integer"}),
        "Tenants": _object(tenants={"type": "array", "items": {"$ref": _REF.format(name="Tenant")}}),
        "Key": _object(key_id=_NAME, tenant={"type": "string"}, name=_NAME, expires=_MOMENT,
                       source={"enum": ["configuration", "stored"]}),
        "Keys": _object(tenant={"type": "string"},
                        keys={"type": "array", "items": {"$ref": _REF.format(name="Key")}}),
        "MadeKey": _object(key={"type": "string", "pattern": "^gw-[a-z2-7]{8}-[A-Za-z0-9_-]{43}$"},
                           key_id={"type": "string"}, tenant={"type": "string"}, name=_NAME,
                           source={"const": "stored"}, created=_MOMENT, expires=_MOMENT, old_until=_MOMENT,
                           is_expired={"type": "boolean"}, models=_WORDS, limits={"type": "object"},
                           stored={"enum": ["memory", "directory", "redis"]}),
        "RevokedKey": _object(tenant={"type": "string"}, key_id={"type": "string"}, is_revoked={"const": True}),
    }  # fmt: skip


def _object(**properties: Any) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": list(properties)}
