"""Endpoints of operators for tenants and keys: `/v1/admin/tenants` and what is below."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import msgspec

from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.core.scope import ENDPOINT
from gateway_middleware.operations.admin import Requester, body_of, requester
from gateway_middleware.operations.documents import answer

if TYPE_CHECKING:
    from gateway_middleware.core.asgi import Receive, Scope, Send

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")]
"""Of a tenant or a key."""
Models = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]{1,256}\Z")], ...],
    msgspec.Meta(min_length=1, max_length=256),
]
"""Names and patterns such as `gpt-*`."""
MAX_GRACE = 30 * 86400.0
DAY = 86400.0
_PATH = re.compile(r" - at `\$\.?(?P<param>[^`]*)`")
_ENCODE = msgspec.json.Encoder().encode
_CREATED = 201


RATES = (
    r"^[1-9][0-9]{0,11} ?(/|per) ?([1-9][0-9]{0,3} ?)?(second|minute|hour|day|month|year)s?"
    r"(; ?[1-9][0-9]{0,11} ?(/|per) ?([1-9][0-9]{0,3} ?)?(second|minute|hour|day|month|year)s?){0,3}\Z"
)
SPEND = r"^[0-9]{1,12}(\.[0-9]{1,6})? ?(/|per) ?([1-9][0-9]{0,3} ?)?(second|minute|hour|day|month|year)s?\Z"
Rates = Annotated[str, msgspec.Meta(pattern=RATES, max_length=256)]
Unit = Literal["requests", "tokens", "concurrency", "spend"]


class WrittenLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits in the notation of `GATEWAY_TENANTS`. `shadow`: those that only report."""

    requests: Rates | None = None
    tokens: Rates | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    spend: Annotated[str, msgspec.Meta(pattern=SPEND)] | None = None
    shadow: Annotated[tuple[Unit, ...], msgspec.Meta(max_length=4)] = ()
    on_outage: Literal["share", "open", "closed"] = "share"

    @property
    def as_written(self) -> dict[str, Any]:
        """The members that were given."""
        written: dict[str, Any] = msgspec.to_builtins(self)
        return written


class WrittenStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The route that calls go on with when a limit on spend is reached, or `percent` of it."""

    route: Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]{1,256}\Z")]
    percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 100


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that makes a tenant. `limits`, `per_key` and `on_budget` are written as in `GATEWAY_TENANTS`."""

    name: Name
    models: Models = ("*",)
    limits: WrittenLimits = WrittenLimits()
    per_key: WrittenLimits = WrittenLimits()
    on_budget: WrittenStep | None = None


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that makes a key. `expires` has a time zone; `limits` are the key's own."""

    name: Name | None = None
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    models: Models = ("*",)
    limits: WrittenLimits = WrittenLimits()

    @property
    def expires_at(self) -> float | None:
        """Seconds since the epoch."""
        return None if self.expires is None else self.expires.timestamp()


class TenantChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that changes a tenant: each member that is there takes the place of what there was."""

    models: Models | msgspec.UnsetType = msgspec.UNSET
    limits: WrittenLimits | msgspec.UnsetType = msgspec.UNSET
    per_key: WrittenLimits | msgspec.UnsetType = msgspec.UNSET
    on_budget: WrittenStep | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def given(self) -> dict[str, Any]:
        """The members that are there, with limits as they were written."""
        return _given(self)


class KeyChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that changes a key: each member that is there takes the place of what there was."""

    expires: Annotated[datetime, msgspec.Meta(tz=True)] | msgspec.UnsetType | None = msgspec.UNSET
    models: Models | msgspec.UnsetType = msgspec.UNSET
    limits: WrittenLimits | msgspec.UnsetType = msgspec.UNSET

    @property
    def given(self) -> dict[str, Any]:
        """The members that are there, limits as they were written, the end in seconds since the epoch."""
        return _given(self)


def _given(change: TenantChange | KeyChange) -> dict[str, Any]:
    told = {name: getattr(change, name) for name in change.__struct_fields__}
    return {name: _plain(value) for name, value in told.items() if value is not msgspec.UNSET}


def _plain(value: Any) -> Any:
    if isinstance(value, WrittenLimits):
        return value.as_written
    return value.timestamp() if isinstance(value, datetime) else value


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a rotation: for how many seconds the old key still works."""

    grace: Annotated[float, msgspec.Meta(ge=0, le=MAX_GRACE)] = DAY


B = TypeVar("B")


class Body(Generic[B]):
    """Reads a body of JSON: an object with the members of a struct, or nothing where all of them may be left out."""

    def __init__(self, made_of: type[B]) -> None:
        self._decode = msgspec.json.Decoder(made_of).decode

    async def read(self, receive: Receive) -> B:
        """Raises `InvalidRequestError` that names the member."""
        body = await body_of(receive)
        try:
            return self._decode(body if body.strip() else b"{}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            place = _PATH.search(str(error))
            raise InvalidRequestError(
                f"The body is not right: {error}", param=place["param"] if place else None
            ) from None


class TenantCollection:
    """`GET` and `POST /v1/admin/tenants`."""

    def __init__(
        self,
        listing: Callable[[], Awaitable[dict[str, Any]]],
        create: Callable[[NewTenant, Requester], Awaitable[dict[str, Any]]],
    ) -> None:
        self._listing = listing
        self._create = create
        self._body = Body(NewTenant)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            created = await self._create(await self._body.read(receive), requester(scope))
            await answer(send, _ENCODE(created), status=_CREATED)
        else:
            await answer(send, _ENCODE(await self._listing()))


class KeyCollection:
    """`GET` and `POST /v1/admin/tenants/{tenant}/keys`."""

    def __init__(
        self,
        listing: Callable[[str], Awaitable[dict[str, Any]]],
        create: Callable[[str, NewKey, Requester], Awaitable[dict[str, Any]]],
    ) -> None:
        self._listing = listing
        self._create = create
        self._body = Body(NewKey)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = ENDPOINT.get(scope).argument or ""
        if scope["method"] == "POST":
            created = await self._create(tenant, await self._body.read(receive), requester(scope))
            await answer(send, _ENCODE(created), status=_CREATED)
        else:
            await answer(send, _ENCODE(await self._listing(tenant)))


class KeyRotation:
    """`POST /v1/admin/tenants/{tenant}/keys/{key_id}/rotate`."""

    def __init__(self, rotate: Callable[[str, str, Rotation, Requester], Awaitable[dict[str, Any]]]) -> None:
        self._rotate = rotate
        self._body = Body(Rotation)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINT.get(scope)
        rotation = await self._body.read(receive)
        rotated = await self._rotate(endpoint.argument or "", endpoint.key_id or "", rotation, requester(scope))
        await answer(send, _ENCODE(rotated))


class OneTenant:
    """`PATCH /v1/admin/tenants/{tenant}`."""

    def __init__(self, change: Callable[[str, TenantChange, Requester], Awaitable[dict[str, Any]]]) -> None:
        self._change = change
        self._body = Body(TenantChange)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = ENDPOINT.get(scope).argument or ""
        change = await self._body.read(receive)
        await answer(send, _ENCODE(await self._change(tenant, change, requester(scope))))


class OneKey:
    """`PATCH` and `DELETE /v1/admin/tenants/{tenant}/keys/{key_id}`."""

    def __init__(
        self,
        change: Callable[[str, str, KeyChange, Requester], Awaitable[dict[str, Any]]],
        revoke: Callable[[str, str, Requester], Awaitable[dict[str, Any]]],
    ) -> None:
        self._change = change
        self._revoke = revoke
        self._body = Body(KeyChange)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINT.get(scope)
        tenant, key_id, by = endpoint.argument or "", endpoint.key_id or "", requester(scope)
        if scope["method"] == "PATCH":
            document = await self._change(tenant, key_id, await self._body.read(receive), by)
        else:
            await body_of(receive)
            document = await self._revoke(tenant, key_id, by)
        await answer(send, _ENCODE(document))
