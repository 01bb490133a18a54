"""The authentication layer: no call passes without a tenant, unless its endpoint is open to everybody."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.endpoints import Access
from gateway_middleware.core.errors import AuthenticationError, GatewayError, PermissionDeniedError
from gateway_middleware.core.scope import ENDPOINT, RECORD, TENANT
from gateway_middleware.tenancy.credential import credential_of
from gateway_middleware.tenancy.resolvers import CredentialFree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import HeaderList
    from gateway_middleware.tenancy.credential import Credential
    from gateway_middleware.tenancy.resolvers import TenantResolver

_ENCODE = msgspec.json.Encoder().encode


def openai_rejection(error: GatewayError) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of a refusal, in OpenAI's shape."""
    inner = {"message": error.message, "type": error.kind, "param": error.param, "code": error.error_code}
    body = _ENCODE({"error": inner})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *error.headers]
    if isinstance(error, AuthenticationError):
        headers.append((b"www-authenticate", b"Bearer"))
    return error.http_status, headers, body


class TenantMiddleware:
    """Lets a call pass when `resolver` knows its tenant, and sets TENANT in the scope; refuses it otherwise.

    On an application of your own every HTTP call needs a tenant, websockets are refused, and a refusal is answered with
    the status, headers and body that `on_reject` makes of the error (default: OpenAI's shape). Inside the gateway
    ENDPOINT says who may call what, and refusals are raised (`AuthenticationError`, `PermissionDeniedError`) for
    `EdgeMiddleware` to answer. The tokens are those of operators: a tenant's key never opens what they open. Raises
    `ValueError` for an empty token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        resolver: TenantResolver,
        admin_token: str | None = None,
        metrics_token: str | None = None,
        on_reject: Callable[[GatewayError], tuple[int, HeaderList, bytes]] = openai_rejection,
    ) -> None:
        if not callable(resolver):
            raise TypeError("resolver: expected a function of credential and scope")
        self.app = app
        self._resolver = resolver
        self._declaring = resolver if isinstance(resolver, CredentialFree) else None
        self._admin_token = _token(admin_token)
        self._metrics_token = _token(metrics_token)
        self._on_reject = on_reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._not_http(scope, receive, send)
            return
        try:
            tenant = self._admit(scope)
            if tenant is not None:
                _set_tenant(scope, tenant if isinstance(tenant, Tenant) else await tenant)
        except GatewayError as error:
            if RECORD.peek(scope) is not None:
                raise
            await self._reject(error, send)
            return
        await self.app(scope, receive, send)

    async def _not_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    def _admit(self, scope: Scope) -> Tenant | Awaitable[Tenant | None] | None:
        """Refuse whoever may not; the tenant, if the endpoint needs one. No coroutine unless the resolver is one."""
        endpoint = ENDPOINT.peek(scope)
        access = Access.TENANT if endpoint is None else endpoint.access
        if access is Access.TENANT or (access is Access.TENANT_OR_ADMIN and not self._is_admin(scope)):
            return self._resolve(scope)
        if access is Access.METRICS:
            if self._metrics_token is not None:
                _check(self._metrics_token, scope)
        elif access is Access.ADMIN:
            if self._admin_token is None:
                raise PermissionDeniedError("Administration is disabled: no admin token is configured.")
            _check(self._admin_token, scope)
        return None

    def _is_admin(self, scope: Scope) -> bool:
        credential = None if self._admin_token is None else credential_of(scope["headers"])
        return credential is not None and hmac.compare_digest(credential.secret, self._admin_token or b"")

    def _resolve(self, scope: Scope) -> Tenant | Awaitable[Tenant | None]:
        is_free = self._declaring is not None and self._declaring.ignores_credentials
        credential = None if is_free else credential_of(scope["headers"])
        tenant = self._resolver(credential, scope)
        if tenant is None:
            raise _nobody(credential)
        return tenant

    async def _reject(self, error: GatewayError, send: Send) -> None:
        status, headers, body = self._on_reject(error)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _nobody(credential: Credential | None) -> AuthenticationError:
    return AuthenticationError("The call belongs to no tenant." if credential is None else "The API key is not valid.")


def _set_tenant(scope: Scope, tenant: Tenant | None) -> None:
    if tenant is None:
        raise AuthenticationError("The API key is not valid, or the call belongs to no tenant.")
    TENANT.set(scope, tenant)
    record = RECORD.peek(scope)
    if record is not None:
        record.tenant = tenant.name
        record.key_id = tenant.key_id


def _token(token: str | None) -> bytes | None:
    if token == "":
        raise ValueError("an empty token would open the door to everybody")
    return None if token is None else token.encode()


def _check(token: bytes, scope: Scope) -> None:
    credential = credential_of(scope["headers"])
    if credential is None:
        raise AuthenticationError("This endpoint needs the operator's token as 'Authorization: Bearer <token>'.")
    if not hmac.compare_digest(credential.secret, token):
        raise PermissionDeniedError("This credential does not open this endpoint.")
