"""What a call may cost at the deployments that it may reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Route
from gateway_middleware.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Deployment


class UnpricedModelError(InvalidRequestError):
    """The tenant has a limit on spend, and no price is known for the model."""

    code = "unpriced_model"


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Micro-dollars at the dearest deployment of `route`, which holds those only that may be asked."""

    micro_dollars: int
    route: Route


def quote(route: Route, price: Callable[[Deployment], int | None], *, allows_unpriced: bool) -> Quote:
    """What the call costs at most. `price` gives micro-dollars, None where no price is known.

    Deployments without a price are left out unless they are allowed, and then cost nothing that is known of. Raises
    `UnpricedModelError` when none is left.
    """
    if route.is_single and (cost := price(route.deployments[0])) is not None:
        return Quote(cost, route)
    lists = (route.deployments, route.on_context_window, route.on_content_policy)
    prices = {deployment.key: price(deployment) for listed in lists for deployment in listed}
    dearest = max((cost for cost in prices.values() if cost is not None), default=0)
    if allows_unpriced or None not in prices.values():
        return Quote(dearest, route)
    priced = [tuple(d for d in listed if prices[d.key] is not None) for listed in lists]
    if not priced[0]:
        message = f"No price is known for the model `{route.name}`, and you have a limit on spend."
        raise UnpricedModelError(message, param="model")
    return Quote(
        dearest,
        msgspec.structs.replace(route, deployments=priced[0], on_context_window=priced[1], on_content_policy=priced[2]),
    )
