"""A provider's adapter that takes clients of other dialects as well."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import TranslationError
from gateway_middleware.core.models import KnownModels
from gateway_middleware.core.omissions import Omissions
from gateway_middleware.core.plan import CallPlan, PlanPart
from gateway_middleware.core.provider_api import Translation, UpstreamRequest
from gateway_middleware.translation.context import Context
from gateway_middleware.translation.counting import COUNTED_SURFACES
from gateway_middleware.translation.dialects import CLIENTS, PROVIDERS
from gateway_middleware.translation.extras import is_about_extras, leave_out_extras
from gateway_middleware.translation.fields import Losses
from gateway_middleware.translation.foreign_thoughts import (
    has_foreign_thoughts,
    is_about_signatures,
    without_foreign_thoughts,
)
from gateway_middleware.translation.reader import TranslatedAnswer, TranslatedStream
from gateway_middleware.translation.structured import ANSWER_TOOL
from gateway_middleware.translation.target import Target
from gateway_middleware.translation.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest
    from gateway_middleware.core.errors import UpstreamStatusError
    from gateway_middleware.core.omissions import Omission
    from gateway_middleware.core.provider_api import Provider, ResponseReader
    from gateway_middleware.translation.vocabulary import Conversation

_TRACING = frozenset({b"traceparent", b"tracestate"})
_BYTES_PER_TOKEN = 4
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class TranslatingProvider:
    """Wraps an adapter. What it supports itself passes untouched; other surfaces are translated to one it has.

    `has_responses`: the provider is known to have OpenAI's Responses. `native` are the surfaces that the provider
    really has, None for all of its kind. `models` are what is known of models. `now` gives seconds since the epoch. A
    deployment may say which surface it speaks to those who must be translated.
    """

    __slots__ = (
        "_configured_secrets",
        "_extras",
        "_foreign_thoughts",
        "_has_responses",
        "_inner",
        "_models",
        "_native",
        "_now",
        "_targets",
        "is_stream",
        "kind",
        "name",
        "origin",
        "reader",
        "reads_on_disconnect",
        "secrets",
        "timeouts",
    )

    def __init__(
        self,
        inner: Provider,
        *,
        now: Callable[[], float],
        native: frozenset[Surface] | None = None,
        has_responses: bool = False,
        models: KnownModels | None = None,
    ) -> None:
        self._inner = inner
        self._models = models or KnownModels()
        self._has_responses = has_responses
        self._now = now
        self._native = native
        self._extras = Omissions("extras")
        self._foreign_thoughts = Omissions("foreign_thoughts")
        self._targets: PlanPart[[], dict[tuple[str, Surface | None], Surface]] = PlanPart(dict)
        self.name, self.kind, self.origin = inner.name, inner.kind, inner.origin
        self.timeouts = inner.timeouts
        self.secrets = self._configured_secrets = inner.secrets
        self.reads_on_disconnect = inner.reads_on_disconnect
        self.is_stream, self.reader = inner.is_stream, inner.reader

    def conceal(self, tokens: tuple[str, ...]) -> None:
        """Strike these out of what is relayed, too, in place of those of last time."""
        self.secrets = self._inner.secrets = (*self._configured_secrets, *tokens)

    @property
    def dialect(self) -> Dialect:
        return self._inner.dialect

    @property
    def model_prefixes(self) -> tuple[str, ...]:
        return self._inner.model_prefixes

    @property
    def otel_name(self) -> str:
        return self._inner.otel_name

    @property
    def price_id(self) -> str | None:
        return self._inner.price_id

    def supports(self, surface: Surface) -> bool:
        """Whether calls on this surface can be served: as it is, by translation, or, a count of tokens, by estimate."""
        translated = COUNTED_SURFACES.get(surface, surface)
        return self.is_native(surface) or (translated in CLIENTS and any(self.is_native(s) for s in PROVIDERS))

    def is_native(self, surface: Surface) -> bool:
        """Whether the provider speaks this surface without translation."""
        return self._inner.supports(surface) and (self._native is None or surface in self._native)

    def prepare(self, request: ModelRequest, deployment: Deployment) -> UpstreamRequest:
        """Raises `TranslationError` for a field that cannot be translated, or that a strict client would lose."""
        target = self._target(request, deployment)
        if target is request.surface:
            if (request.omits or self._foreign_thoughts.models) and self._omits_thoughts(request, deployment):
                request = without_foreign_thoughts(request)
            return self._inner.prepare(request, deployment)
        losses = Losses(CLIENTS[request.surface].names)
        body = _members(request.body)
        conversation = CLIENTS[request.surface].read_request(body, losses)
        written = PROVIDERS[target].write_request(
            conversation,
            Target(model=deployment.model, dialect=self.dialect, facts=self._models.facts(deployment)),
            losses,
        )
        if target is not Surface.MESSAGES and self._extras.apply(request, deployment):
            leave_out_extras(written, losses)
        _check_strict(request, losses)
        upstream = self._inner.prepare(_upstream_request(request, target, written), deployment)
        context = self._context(body, conversation, written, shows_cost=request.shows_cost)
        translation = Translation(
            surface=target,
            dropped=losses.dropped,
            reader=partial(self._reader, request, target, context),
            answer_id=CLIENTS[request.surface].answer_id,
        )
        return msgspec.structs.replace(upstream, translation=translation)

    def omission(self, request: ModelRequest, deployment: Deployment, error: UpstreamStatusError) -> Omission | None:
        """Besides that of the adapter: where a server takes no extras, or Anthropic no thoughts of other vendors."""
        target = self._target(request, deployment)
        if target is request.surface:
            own = self._inner.omission(request, deployment, error)
            return own or self._omission_of_thoughts(request, deployment, error)
        translated = msgspec.structs.replace(request, surface=target, wants_stream_usage=False)
        own = self._inner.omission(translated, deployment, error)
        if own is None and target is not Surface.MESSAGES and is_about_extras(error):
            return self._extras.refused(request, deployment)
        return own

    def _omission_of_thoughts(
        self, request: ModelRequest, deployment: Deployment, error: UpstreamStatusError
    ) -> Omission | None:
        if request.is_strict or not is_about_signatures(error) or not has_foreign_thoughts(request):
            return None
        return self._foreign_thoughts.refused(request, deployment)

    def _omits_thoughts(self, request: ModelRequest, deployment: Deployment) -> bool:
        applies = not request.is_strict and self._foreign_thoughts.apply(request, deployment)
        return applies and has_foreign_thoughts(request)

    def _target(self, request: ModelRequest, deployment: Deployment) -> Surface:
        """The surface that the provider is asked on, worked out once for each deployment of a plan."""
        targets = self._targets.of(request.plan)
        key = (deployment.key, deployment.speak)
        target = targets.get(key)
        if target is None:
            target = targets[key] = self._target_of(request, deployment)
        return target

    def _target_of(self, request: ModelRequest, deployment: Deployment) -> Surface:
        facts = self._models.facts(deployment)
        target = target_of(request.surface, deployment, self.is_native, facts=facts, has_responses=self._has_responses)
        return request.surface if target is None else target

    def _reader(
        self, request: ModelRequest, target: Surface, context: Context, *, is_event_stream: bool
    ) -> ResponseReader:
        # The usage that the gateway asks for is read here, and need not be stripped first.
        translated = msgspec.structs.replace(request, surface=target, wants_stream_usage=True)
        inner = self._inner.reader(translated, is_event_stream=is_event_stream)
        client, provider = CLIENTS[request.surface], PROVIDERS[target]
        if is_event_stream:
            return TranslatedStream(inner, provider.stream_decoder(context), client.stream_encoder(context))
        return TranslatedAnswer(inner, provider.read_answer, client.write_answer, context)

    def _context(
        self, body: dict[str, Any], conversation: Conversation, written: dict[str, Any], *, shows_cost: bool
    ) -> Context:
        output = conversation.output_format
        is_schema = output is not None and output.schema is not None
        return Context(
            created=int(self._now()),
            wants_usage=conversation.wants_usage or shows_cost,
            has_answer_tool=is_schema and any(tool.get("name") == ANSWER_TOOL for tool in written.get("tools", ())),
            free_form=frozenset(tool.name for tool in conversation.tools if tool.is_free_form),
            estimated_input=len(_encode(written)) // _BYTES_PER_TOKEN,
            request=body,
        )


def _members(body: bytes) -> dict[str, Any]:
    """The whole body. Raises `TranslationError` for what only a provider of the same dialect may be able to read."""
    try:
        return _decode(body)
    except (ValueError, RecursionError) as error:
        raise TranslationError(f"The body cannot be translated: {error}.") from None


def _check_strict(request: ModelRequest, losses: Losses) -> None:
    if request.is_strict and losses.dropped:
        names = ", ".join(f"`{name}`" for name in losses.dropped)
        raise TranslationError(
            f"The provider of this model cannot take {names}, and the call asked for a strict translation.",
            param=losses.dropped[0],
            code="lossy_translation",
        )


def _upstream_request(request: ModelRequest, target: Surface, written: dict[str, Any]) -> ModelRequest:
    """The request as the adapter would have read it from a client of the target surface."""
    fields = {name: msgspec.Raw(_encode(value)) for name, value in written.items()}
    return msgspec.structs.replace(
        request,
        surface=target,
        body=_encode(fields),
        fields=fields,
        content_type=b"application/json",
        wants_stream_usage=False,
        headers=tuple(pair for pair in request.headers if pair[0] in _TRACING),
        plan=CallPlan(),
    )


if TYPE_CHECKING:
    _: type[Provider] = TranslatingProvider
