"""An issuer of tokens: its key pairs, its JWK Set, its tokens, also the forged ones."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from clock import EPOCH

ISSUER, AUDIENCE = "https://id.test/", "model-gateway"


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Made once a session for each name: that takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def ed_key(name: str) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    """The public half."""
    kinds = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm}
    maker: Any = next((made for kind, made in kinds.items() if isinstance(key, kind)), jwt.algorithms.OKPAlgorithm)
    document = json.loads(maker.to_jwk(key.public_key()))
    document.pop("key_ops", None)
    return {**document, **({} if kid is None else {"kid": kid}), **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; None takes one away."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-7",
        "exp": int(EPOCH) + 600,
        "iat": int(EPOCH),
        "tenant": "acme",
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(
    key: Any = None, *, kid: str | None = "k1", algorithm: str = "RS256", head: Any = None, **changes: Any
) -> str:
    """A signed token; `head` adds to its header, `changes` to its claims."""
    headers = {**({} if kid is None else {"kid": kid}), **(head or {})}
    return str(jwt.encode(claims(**changes), key or rsa_key("k1"), algorithm=algorithm, headers=headers))


def unsigned(head: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    """Whatever the header says, this is the signature."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (
        json.dumps(head).encode(), json.dumps(body).encode(), signature)]  # fmt: skip
    return ".".join(parts)
