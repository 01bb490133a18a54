"""A credential of a provider that came with a call, for that call alone."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from gateway_middleware.core.secret import Secret


class ClientCredential(msgspec.Struct, frozen=True):
    """What a client has sent for a provider. Does not print itself; lives as long as its call.

    `is_bearer`: it came as `Authorization: Bearer`, and not as a key in a header of its own.
    """

    secret: Secret
    is_bearer: bool = False

    @property
    def is_token(self) -> bool:
        """Whether it has the form of a JSON Web Token, which is no vendor's key."""
        text = self.secret.reveal()
        return text.startswith("eyJ") and text.count(".") == 2

    @property
    def digest(self) -> str:
        """Tells it from others, without showing it. It stays in this process."""
        return blake2b(self.secret.reveal().encode(), digest_size=16).hexdigest()
