"""Reads calls about responses that a provider has stored: which one, where it is, and what of it is asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from gateway_middleware.core.domain import ModelRequest, StoredCall, Surface
from gateway_middleware.core.errors import InvalidRequestError, ResponseNotFoundError, UpstreamStatusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Tenant
    from gateway_middleware.core.endpoints import Endpoint
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.intake.ownership import ResponseOwners
    from gateway_middleware.intake.routing import RouteTable

_ID = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~=-]{1,512}")
"""Nothing that could be read as more than one segment of a path: no slash, no per cent, no dots alone."""
_INCLUDES = frozenset({"include", "include[]"})
_READ = "GET"
_PARAMETERS = {
    "": _INCLUDES | {"stream", "starting_after", "include_obfuscation"},
    "/input_items": _INCLUDES | {"after", "before", "limit", "order"},
}
"""What is passed on when something is read, by what follows the id. No parameter says where a call goes."""
_MAX_QUERY = 4096
_MAX_PARAMETERS = 64
_NOT_HERE = "Its provider is not configured any more, or stores no responses."
_GONE = 404


class StoredResponses:
    """Makes the request of a call about a stored response.

    `owners` know where it is; `table` gives the route table of the moment. Raises `ResponseNotFoundError`,
    `InvalidRequestError` for a query that cannot be read, and `UnavailableError` while nobody can say whose it is.
    """

    def __init__(self, owners: ResponseOwners, table: Callable[[], RouteTable]) -> None:
        self._owners = owners
        self._table = table

    async def request(
        self,
        endpoint: Endpoint,
        method: str,
        query: bytes,
        *,
        tenant: Tenant,
        headers: tuple[tuple[bytes, bytes], ...],
    ) -> tuple[StoredCall, ModelRequest]:
        """What is to be done, and the request for it, its route narrowed to the one deployment."""
        response_id = endpoint.argument or ""
        path = endpoint.path.rpartition("{argument}")[2]
        parameters = _parameters(query, _PARAMETERS[path] if method == _READ else frozenset())
        if _ID.fullmatch(response_id) is None:
            raise ResponseNotFoundError(response_id)
        place = await self._owners.place_of(response_id, tenant)
        route = self._table().holding(place, dialect=endpoint.dialect, tenant=tenant)
        if route is None:
            raise ResponseNotFoundError(response_id, reason=_NOT_HERE, code="response_not_stored")
        call = StoredCall(method=method, response_id=response_id, path=path, query=urlencode(parameters))
        return call, ModelRequest(
            surface=Surface.STORED,
            dialect=endpoint.dialect,
            model=route.deployments[0].model,
            route=route,
            body=b"",
            fields={},
            is_stream=dict(parameters).get("stream", "").lower() in {"true", "1"},
            headers=headers,
            stored=call,
        )

    def conclude(self, call: StoredCall, record: CallRecord, tenant: Tenant, error: BaseException | None) -> None:
        """The call has ended: items that were shown are the tenant's, and what was deleted is nobody's."""
        attempt = record.answered_by
        if call.method == "DELETE":
            if _is_deleted(call, record, error):
                self._owners.forget(call.response_id)
        elif attempt is not None and attempt.item_ids:
            self._owners.remember(attempt.item_ids, tenant, attempt.deployment.place)


def _parameters(query: bytes, known: frozenset[str]) -> list[tuple[str, str]]:
    """Those that are known, in the client's order. Raises `InvalidRequestError`."""
    if not known or not query:
        return []
    try:
        if len(query) > _MAX_QUERY:
            raise ValueError
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise InvalidRequestError("The query of the request is too long, or none.") from None
    return [pair for pair in pairs if pair[0] in known]


def _is_deleted(call: StoredCall, record: CallRecord, error: BaseException | None) -> bool:
    """Whether the provider has deleted it, or says of this very response that there is none."""
    if isinstance(error, UpstreamStatusError):
        return error.upstream_status == _GONE and call.response_id.encode() in error.body
    return record.answered_by is not None and record.answered_by.is_complete
