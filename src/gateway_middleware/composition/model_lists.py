"""The lists of models that providers have themselves, asked for while nobody has written routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.fetch import FetchError
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.core.single_flight import SingleFlight
from gateway_middleware.providers.model_list import ListedModel, long_page, models_target, read_model_list

if TYPE_CHECKING:
    from gateway_middleware.composition.log import Log
    from gateway_middleware.composition.part import Commit
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import Timeouts
    from gateway_middleware.core.provider_api import Provider, ProviderKind, UpstreamTarget
    from gateway_middleware.settings import Settings
    from gateway_middleware.upstream.bounded_calls import ProviderCalls

_FRESH_SECONDS = 300.0
_RETRY_SECONDS = 15.0
_WAIT_SECONDS = 2.0
"""How long a client waits for providers: Claude Code gives three seconds."""
_DEADLINE = 10.0
_MAX_BYTES = 8 * 1024 * 1024
_OK = 200


class _Place(msgspec.Struct, frozen=True):
    """Where a provider has its list, and how patient one is with it."""

    target: UpstreamTarget
    timeouts: Timeouts


class _Known(msgspec.Struct, frozen=True):
    """The newest list that there is, and until when (monotonic) nothing is asked anew."""

    models: tuple[ListedModel, ...]
    until: float


class ModelLists:
    """What providers say that they have.

    A list is renewed, while it is given, once it is five minutes old; it stays while its provider does not answer.
    The data plane of Azure lists models that nobody has deployed; its providers have no list here.
    """

    takes: frozenset[str] = frozenset()

    def __init__(
        self, settings: Settings, kinds: Mapping[str, ProviderKind], calls: ProviderCalls, clocks: Clocks, *, log: Log
    ) -> None:
        self._kinds = kinds
        self._calls = calls
        self._clock = clocks.monotonic
        self._log = log.lines
        self._flight: SingleFlight[str, None] = SingleFlight()
        self._known: dict[str, _Known] = {}
        self._places = self._places_of(settings)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out nothing is asked any more."""
        try:
            yield
        finally:
            await self._flight.aclose()

    def prepare(self, new: Settings) -> Commit:
        """Other providers; what was known of one stays while its address and credential do."""
        places = self._places_of(new)

        def commit() -> None:
            changed = [name for name in self._places if places.get(name) != self._places[name]]
            for name in changed:
                self._known.pop(name, None)
            self._flight.forget(lambda name: name in changed)
            self._places = places

        return commit

    def _places_of(self, settings: Settings) -> dict[str, _Place]:
        adapters = {p.name: self._kinds[p.kind](p) for p in settings.providers if p.kind in self._kinds}
        targets = {name: _target_of(adapter) for name, adapter in adapters.items()}
        return {name: _Place(target, adapters[name].timeouts) for name, target in targets.items() if target is not None}

    async def all(self) -> Mapping[str, tuple[ListedModel, ...]]:
        """The models of each provider; those of whom nothing is known yet are waited for, two seconds at most."""
        now = self._clock()
        stale = [name for name in self._places if name not in self._known or self._known[name].until <= now]
        tasks = {name: self._flight.start(name, partial(self._ask, name, self._places[name])) for name in stale}
        unknown = [task for name, task in tasks.items() if name not in self._known]
        if unknown:
            await asyncio.wait(unknown, timeout=_WAIT_SECONDS)
        return {name: self._known[name].models for name in self._places if name in self._known}

    async def _ask(self, name: str, place: _Place) -> None:
        try:
            answer = await self._calls(
                name,
                UpstreamRequest(target=place.target, body=b""),
                timeouts=place.timeouts,
                deadline=_DEADLINE,
                max_bytes=_MAX_BYTES,
            )
            if answer.status != _OK:
                raise FetchError(f"status {answer.status}")
            known = _Known(read_model_list(answer.body), self._clock() + _FRESH_SECONDS)
        except (FetchError, ValueError) as error:
            self._note_failure(name, str(error) if isinstance(error, FetchError) else "no list of models")
            old = self._known.get(name)
            known = _Known(() if old is None else old.models, self._clock() + _RETRY_SECONDS)
        if self._places.get(name) == place:
            self._known[name] = known

    def _note_failure(self, name: str, reason: str) -> None:
        message = f"The list of models of provider {name} could not be fetched: {reason}"
        self._log.event("model_list_failed", level="warning", message=message, provider=name, reason=reason)


def _target_of(adapter: Provider) -> UpstreamTarget | None:
    if adapter.dialect is Dialect.AZURE:
        return None
    target = models_target(adapter)
    return long_page(target) if target is not None and adapter.dialect is Dialect.ANTHROPIC else target
