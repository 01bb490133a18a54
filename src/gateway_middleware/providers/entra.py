"""Tokens of Microsoft Entra ID: what is asked, and what the answers mean. Opens no socket and no file.

The client credentials grant (learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow), with a
secret or with a federated token, and the token endpoints of managed identities
(learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token, and App Service's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec

from gateway_middleware.core.bearer_token import Token, TokenFault

if TYPE_CHECKING:
    from gateway_middleware.core.provider_api import EntraConfig

_METADATA = "http://169.254.169.254/metadata/identity/oauth2/token"
_METADATA_VERSION, _APP_SERVICE_VERSION = "2018-02-01", "2019-08-01"
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_WORD = re.compile(r"[A-Za-z0-9_]{1,64}")
_SENDABLE = re.compile(r"[\x21-\x7e]{1,16384}")
_OK = 200
_TRANSIENT = frozenset({404, 408, 410, 429})
"""Of the metadata service 404 and 410 say that it is not ready yet."""


class TokenRequest(msgspec.Struct, frozen=True):
    """One HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""

    def __repr__(self) -> str:
        return f"TokenRequest({self.method})"


class _Answer(msgspec.Struct):
    access_token: str | None = None
    expires_in: int | str | None = None
    expires_on: int | str | None = None
    error: str | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def token_request(config: EntraConfig, assertion: str | None) -> TokenRequest:
    """What to ask. `assertion` is the content of the token file, for workload identity."""
    if config.client_secret is None and assertion is None:
        return _managed_identity(config)
    form = {"grant_type": "client_credentials", "client_id": config.client_id or "", "scope": config.scope}
    if config.client_secret is not None:
        form["client_secret"] = config.client_secret.reveal()
    else:
        form |= {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion or ""}
    url = f"{config.authority.rstrip('/')}/{quote(config.tenant_id or '', safe='')}/oauth2/v2.0/token"
    return TokenRequest("POST", url, _FORM, urlencode(form).encode())


def _managed_identity(config: EntraConfig) -> TokenRequest:
    query = {"resource": config.scope.removesuffix("/.default")}
    if config.client_id is not None:
        query["client_id"] = config.client_id
    if config.identity_endpoint is not None and config.identity_header is not None:
        query["api-version"] = _APP_SERVICE_VERSION
        headers = {"x-identity-header": config.identity_header.reveal()}
        return TokenRequest("GET", f"{config.identity_endpoint}?{urlencode(query)}", headers)
    query["api-version"] = _METADATA_VERSION
    return TokenRequest("GET", f"{_METADATA}?{urlencode(query)}", {"metadata": "true"})


def read_token(status: int, body: bytes, *, now: float) -> Token | TokenFault:
    """What came of it."""
    try:
        answer = _decode(body)
    except (ValueError, RecursionError):
        answer = _Answer()
    if status != _OK:
        word = answer.error if answer.error is not None and _WORD.fullmatch(answer.error) else "no error code"
        return TokenFault(f"HTTP {status}, {word}", is_refusal=400 <= status < 500 and status not in _TRANSIENT)
    expires = _expires(answer, now)
    if answer.access_token is None or expires is None or not _SENDABLE.fullmatch(answer.access_token):
        return TokenFault("an answer without a token that lasts")
    return Token(answer.access_token, expires)


def _expires(answer: _Answer, now: float) -> float | None:
    """None for what has expired already, or says nothing that can be read."""
    try:
        expires = now + int(answer.expires_in) if answer.expires_in is not None else float(answer.expires_on or 0)
    except (ValueError, OverflowError):
        return None
    return expires if now < expires < now + 10 * 86_400 else None
