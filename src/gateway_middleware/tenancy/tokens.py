"""Tenants by JSON Web Token (RFC 7519), verified by PyJWT with the keys of one issuer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from cachetools import TTLCache

from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.tenancy.jwks import Jwks, VerificationKey
from gateway_middleware.tenancy.trusted_header import NAME

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock, Tenant
    from gateway_middleware.tenancy.credential import Credential

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those of public keys. What is signed with a shared secret, or not at all, is never taken."""
LEEWAY = 30.0
"""Seconds by which the issuer's clock may differ."""
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_MAX_KEYS = 100
_MIN_RSA_BITS = 2048
_MAX_REMEMBERED = 10_000
_REMEMBERED_SECONDS = 300.0
_SUBJECT = re.compile(r"[\x21-\x7e]{1,64}")
_OPTIONS = {"require": ["exp", "iss", "aud", "sub"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}
_REFUSED = "The token is not valid."
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class TokenRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a token must say: by whom (`iss`), for whom (`aud`), signed how; `claim` holds the tenant's name."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256",)
    claim: str = "tenant"


class _Known(NamedTuple):
    tenant: Tenant
    expires: float


class TokenResolver:
    """Finds the tenant that a token names. A token that was verified once is remembered, by its digest, while it lasts.

    `make_jwks` makes the keys' source of what reads their document and what hears of a change; `tenant_of` makes a
    tenant of a name. `wall` is seconds since the epoch. Needs PyJWT (extra `jwt`).
    """

    def __init__(
        self,
        rules: TokenRules,
        make_jwks: Callable[[Callable[[bytes], Sequence[VerificationKey]], Callable[[], None]], Jwks],
        *,
        tenant_of: Callable[[str], Tenant],
        clock: Clock,
        wall: Clock,
    ) -> None:
        self._rules = rules
        self._tenant_of = tenant_of
        self._wall = wall
        self._remembered: TTLCache[bytes, _Known] = TTLCache(_MAX_REMEMBERED, _REMEMBERED_SECONDS, timer=clock)
        self.jwks = make_jwks(lambda document: read_keys(document, rules.algorithms), self.forget)

    def forget(self) -> None:
        """Verify every token again at its next call."""
        self._remembered.clear()

    def __call__(self, credential: Credential) -> Tenant | Awaitable[Tenant]:
        """The tenant. Raises `AuthenticationError`, and `UnavailableError` while there are no keys to verify by."""
        token = credential.secret
        digest = hashlib.sha256(token).digest()
        known = self._remembered.get(digest)
        if known is None:
            return self._verify(token, digest)
        if self._wall() >= known.expires + LEEWAY:
            raise _expired()
        return known.tenant

    async def _verify(self, token: bytes, digest: bytes) -> Tenant:
        kid = self._kid(token)
        key = await self.jwks.find(kid)
        if key is None:
            raise AuthenticationError(_REFUSED)
        claims = self._claims(token, key)
        expires = self._check_times(claims)
        tenant = self._tenant(claims)
        self._remembered[digest] = _Known(tenant, expires)
        return tenant

    def _kid(self, token: bytes) -> str | None:
        """The id of the key, of a token that may be worth a look. Nothing else of its head is ever followed."""
        import jwt

        try:
            head = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise AuthenticationError(_REFUSED) from None
        if head.get("alg") not in self._rules.algorithms or "crit" in head:
            raise AuthenticationError(_REFUSED)
        kid = head.get("kid")
        return kid if isinstance(kid, str) else None

    def _claims(self, token: bytes, key: VerificationKey) -> dict[str, Any]:
        import jwt

        rules = self._rules
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key.key, algorithms=list(key.algorithms), audience=rules.audience, issuer=rules.issuer,
                options=_OPTIONS,  # type: ignore[arg-type, unused-ignore]  # its TypedDict has no name to import
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise AuthenticationError(_REFUSED) from None
        return claims

    def _check_times(self, claims: dict[str, Any]) -> float:
        """When it expires. PyJWT knows the time of day only from the system."""
        now = self._wall()
        expires, begins = _moment(claims["exp"]), _moment(claims.get("nbf", 0))
        if expires is None or begins is None:
            raise AuthenticationError(_REFUSED)
        if now >= expires + LEEWAY:
            raise _expired()
        if now < begins - LEEWAY:
            raise AuthenticationError("The token is not valid yet.", code="token_not_yet_valid")
        return expires

    def _tenant(self, claims: dict[str, Any]) -> Tenant:
        name, subject = claims.get(self._rules.claim), claims["sub"]
        if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(subject, str):
            raise AuthenticationError("The token names no tenant.")
        shown = subject if _SUBJECT.fullmatch(subject) else hashlib.sha256(subject.encode()).hexdigest()[:16]
        return msgspec.structs.replace(self._tenant_of(name), key_id=shown)


def _expired() -> AuthenticationError:
    return AuthenticationError("The token has expired.", code="expired_token")


def _moment(claim: object) -> float | None:
    """Seconds since the epoch; None for what is no moment."""
    if isinstance(claim, bool) or not isinstance(claim, int | float) or not 0 <= claim < 1e12:
        return None
    return float(claim)


def read_keys(document: bytes, algorithms: Sequence[str]) -> list[VerificationKey]:
    """The keys of a JWK Set (RFC 7517) that verify signatures of these algorithms. Raises `ValueError` for none."""
    listed = _decode(document).get("keys")
    if not isinstance(listed, list):
        raise ValueError("no JWK Set")  # noqa: TRY004  the document is at fault, not a caller
    keys = [key for entry in listed[:_MAX_KEYS] if (key := _read_key(entry, algorithms)) is not None]
    if not keys:
        raise ValueError("no key of the expected kind in the JWK Set")
    return keys


def _read_key(entry: object, algorithms: Sequence[str]) -> VerificationKey | None:
    """None for a key that is for something else, or is none."""
    import jwt

    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    usable = tuple(name for name in algorithms if _KINDS[name[:2]] == entry.get("kty"))
    usable = tuple(name for name in usable if entry.get("alg", name) == name)
    if not usable:
        return None
    try:
        key: Any = jwt.PyJWK(entry, usable[0]).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if getattr(key, "key_size", _MIN_RSA_BITS) < _MIN_RSA_BITS and entry["kty"] == "RSA":
        return None
    kid = entry.get("kid")
    return VerificationKey(kid if isinstance(kid, str) else None, key, usable)
