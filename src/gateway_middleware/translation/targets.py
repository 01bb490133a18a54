"""Which surface of a provider a translated call goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Surface
from gateway_middleware.translation.dialects import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Deployment
    from gateway_middleware.core.models import ModelFacts


def target_of(
    surface: Surface,
    deployment: Deployment,
    is_native: Callable[[Surface], bool],
    *,
    facts: ModelFacts,
    has_responses: bool,
) -> Surface | None:
    """The surface to speak: the client's own where the model is on it, else the one it is best spoken to on.

    None where the client's surface is none that is translated. `facts` are those of the deployment's model.
    `has_responses`: the provider is known to have
    Responses, so that models may be asked there which keep their reasoning, or live, nowhere else.
    """
    if surface not in CLIENTS:
        return None
    lives_here = not (surface is Surface.CHAT and facts.only_responses and has_responses)
    if is_native(surface) and lives_here:
        return surface
    candidates = _preferred(deployment, prefers_responses=facts.prefers_responses and has_responses)
    return next((s for s in candidates if is_native(s) and (s is not surface or not lives_here)), surface)


def _preferred(deployment: Deployment, *, prefers_responses: bool) -> list[Surface]:
    if deployment.speak is not None:
        return [deployment.speak, Surface.MESSAGES]
    openai = [Surface.RESPONSES, Surface.CHAT] if prefers_responses else [Surface.CHAT, Surface.RESPONSES]
    return [*openai, Surface.MESSAGES]
