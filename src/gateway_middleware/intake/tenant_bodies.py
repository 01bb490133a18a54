"""How many bytes of request bodies each tenant has under way: one tenant's must not crowd out the others'."""

from __future__ import annotations

from gateway_middleware.core.errors import RateLimitedError

MAX_TENANT_BODIES_BYTES = 64 * 1024 * 1024
_RETRY_SECONDS = 1.0


class TenantBodies:
    """Counts the bytes of calls that have not ended, by tenant, of which each may have `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._under_way: dict[str, int] = {}

    def share_of(self, tenant: str) -> Share:
        """What one call adds to its tenant's."""
        return Share(self, tenant)

    def under_way(self, tenant: str) -> int:
        """The bytes of a tenant's calls that have not ended."""
        return self._under_way.get(tenant, 0)

    def change(self, tenant: str, size: int) -> None:
        """So many bytes more, or less."""
        total = self._under_way.get(tenant, 0) + size
        if total:
            self._under_way[tenant] = total
        else:
            self._under_way.pop(tenant, None)


class Share:
    """The part of one call, given back exactly once by `close`."""

    __slots__ = ("_bodies", "_size", "_tenant")

    def __init__(self, bodies: TenantBodies, tenant: str) -> None:
        self._bodies = bodies
        self._tenant = tenant
        self._size = 0

    def add(self, size: int) -> None:
        """Count bytes that have come. Raises `RateLimitedError` where they are too many, and does not count them."""
        bodies = self._bodies
        if bodies.under_way(self._tenant) + size > bodies.max_bytes:
            raise RateLimitedError(
                f"The requests of this tenant that are under way hold {bodies.max_bytes} bytes already.",
                code="too_many_bytes_under_way",
                retry_after=_RETRY_SECONDS,
            )
        self._size += size
        bodies.change(self._tenant, size)

    def close(self) -> None:
        """The call has ended."""
        size, self._size = self._size, 0
        if size:
            self._bodies.change(self._tenant, -size)
