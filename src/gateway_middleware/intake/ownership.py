"""Checks that stored provider resources (responses, containers, files, ...) belong to the tenant that names them.

A provider keeps responses, conversations, files and containers under ids that any key of the account may use. So where
tenants share accounts, a request holds only what is complete in itself (`resources/`), and ids of which the gateway
knows that the same tenant got them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway_middleware.core.errors import InvalidRequestError, ResponseNotFoundError, UnavailableError
from gateway_middleware.fleet.entries import Owner
from gateway_middleware.fleet.store import StoreAwayError
from gateway_middleware.intake.resources.media import check_form
from gateway_middleware.intake.resources.rules import NULL
from gateway_middleware.intake.resources.tables import references_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway_middleware.core.domain import Route, Surface, Tenant
    from gateway_middleware.intake.parsing import ParsedBody

_PREVIOUS = "previous_response_id"
NOT_STORED = ""
"""In the place of the deployment that holds a response: it was translated, and nobody has stored it."""
_TRANSLATED = "It came from a provider that has no such responses; send the conversation in `input`."
_RETRY_SECONDS = 1.0
_NONE: Mapping[str, str] = MappingProxyType({})
_decode_text = msgspec.json.Decoder(str).decode


class OwnerStore(Protocol):
    """Knows the owners of stored resources by the provider's ids."""

    def remember(self, ids: Iterable[str], owner: Owner) -> None:
        """All of these are the owner's. Waits for nothing."""
        ...

    def forget(self, ids: Iterable[str]) -> None:
        """None of these is stored any longer. Waits for nothing."""
        ...

    async def current(self, resource_id: str) -> Owner | None:
        """The owner, if it is known and no process has forgotten it. Raises `StoreAwayError` where it may be known."""
        ...

    async def find(self, ids: Sequence[str]) -> Mapping[str, Owner]:
        """The owners of those that are known. Raises `StoreAwayError` where that cannot be said of all."""
        ...


class ResponseOwners:
    """The tenant and place (deployment and key) of each stored response, of its output items and containers.

    `is_shared`: several tenants use the provider accounts; with one, everything is its own and nothing is checked.
    `stateless` are the names of providers that keep nothing: nothing is checked of what goes to none but these.
    """

    def __init__(self, store: OwnerStore, *, is_shared: bool, stateless: frozenset[str] = frozenset()) -> None:
        self._store = store
        self.is_shared = is_shared
        self.stateless = stateless

    def remember(self, ids: Iterable[str], tenant: Tenant, place: str) -> None:
        """Note that this tenant got this response and these items from there (`Deployment.place`), or `NOT_STORED`."""
        self._store.remember(ids, Owner(tenant.name, place))

    def forget(self, response_id: str) -> None:
        """Note that this response was deleted."""
        self._store.forget([response_id])

    async def place_of(self, response_id: str, tenant: Tenant) -> str | None:
        """Where a response of this tenant is stored; None: it may be the tenant's, wherever it is.

        Raises `ResponseNotFoundError`, the same for what is another tenant's and what nobody knows, and
        `UnavailableError` when it cannot be known at the moment.
        """
        try:
            owner = await self._store.current(response_id)
        except StoreAwayError:
            if self.is_shared:
                raise _unknown("response_id") from None
            return None
        if self.is_shared and (owner is None or owner.tenant != tenant.name):
            raise ResponseNotFoundError(response_id)
        if owner is None:
            return None
        if owner.place == NOT_STORED:
            raise ResponseNotFoundError(response_id, reason=_TRANSLATED, code="response_not_stored")
        return owner.place

    def references(self, surface: Surface, parsed: ParsedBody, route: Route) -> Mapping[str, str]:
        """The ids that `holder` has to be asked about, each with the field that names it.

        Raises `InvalidRequestError` that names the field for stored resources whose owners nobody knows.
        """
        if not self.is_shared or self._is_stateless(route):
            return _previous(parsed.fields)
        if parsed.form:
            check_form(parsed.form)
        return references_of(surface, parsed.fields)

    def _is_stateless(self, route: Route) -> bool:
        return bool(self.stateless) and all(d.provider in self.stateless for d in route.everything)

    async def holder(self, references: Mapping[str, str], tenant: Tenant) -> str | None:
        """Where that is stored what the request goes on from, if it is known.

        Raises `InvalidRequestError` that names the field when something is not the tenant's own, and
        `UnavailableError` when it cannot be known at the moment.
        """
        ids = sorted(references, key=lambda name: references[name] != _PREVIOUS)
        try:
            owners = await self._store.find(ids)
        except StoreAwayError:
            if self.is_shared:
                raise _unknown(references[ids[0]]) from None
            return None
        own = {name: owner for name, owner in owners.items() if owner.tenant == tenant.name}
        foreign = [name for name in ids if name not in own]
        if self.is_shared and foreign:
            raise _refusal(references[foreign[0]])
        place = next((own[name].place for name in ids if name in own), None)
        if place == NOT_STORED:
            raise InvalidRequestError(f"The field `{_PREVIOUS}` names a response that is stored nowhere. {_TRANSLATED}",
                                      param=_PREVIOUS, code="response_not_stored")  # fmt: skip
        return place


def _previous(fields: Mapping[str, msgspec.Raw]) -> Mapping[str, str]:
    """What a tenant alone goes on from, so that it comes to the deployment that holds it."""
    raw = fields.get(_PREVIOUS, NULL)
    if raw == NULL:
        return _NONE
    try:
        return {_decode_text(raw): _PREVIOUS}
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"The field `{_PREVIOUS}` must be a string.", param=_PREVIOUS) from None


def _unknown(field: str) -> UnavailableError:
    return UnavailableError(
        f"Whether what `{field}` names is yours cannot be checked at the moment. Try again.",
        param=field,
        code="ownership_unavailable",
        retry_after=_RETRY_SECONDS,
    )


def _refusal(field: str) -> InvalidRequestError:
    what = "names a response" if field == _PREVIOUS else "refers to something stored"
    return InvalidRequestError(
        f"The field `{field}` {what} that is not known to be yours. Tenants of this gateway share provider accounts.",
        param=field,
        code="shared_resource",
    )
