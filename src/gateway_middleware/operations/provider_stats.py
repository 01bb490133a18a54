"""Statistics of providers: counted from calls that have ended, shown in `/v1/providers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.operations.recent_stats import RecentStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway_middleware.core.domain import Clock, Deployment
    from gateway_middleware.core.provider_api import Provider
    from gateway_middleware.core.record import CallRecord

_BATCH = 64


class ProviderStats:
    """Counts calls and makes the documents of `/v1/providers` and `/v1/providers/{provider}/status`.

    Records are counted in batches, since the same few lines of code over many records are several times as fast as
    after each call; whoever reads is brought up to date first. `deployments` are those of the configuration.
    `breakers` gives the state of a provider's circuit breakers, `settings` what is in force for it; `observers` are
    shown each record once, in batches: `observe(*records)`.
    """

    def __init__(
        self,
        *,
        providers: Callable[[], Mapping[str, Provider]],
        deployments: Callable[[], Iterable[Deployment]],
        breakers: Callable[[str], dict[str, Any]],
        settings: Callable[[str], dict[str, Any]],
        observers: Sequence[Callable[..., None]],
        clock: Clock,
    ) -> None:
        self._providers = providers
        self._deployments = deployments
        self._breakers = breakers
        self._settings = settings
        self._observers = observers
        self._recent = RecentStats(clock)
        self._ended: list[CallRecord] = []

    def observe(self, record: CallRecord) -> None:
        """Take a call that has ended."""
        self._ended.append(record)
        if len(self._ended) >= _BATCH:
            self.refresh()

    def refresh(self) -> None:
        """Count what has not been counted yet. Metrics are to be read after this."""
        ended, self._ended = self._ended, []
        if ended:
            for observe in (self._recent.observe, *self._observers):
                observe(*ended)

    @property
    def recent(self) -> RecentStats:
        """How each deployment did in the last minute."""
        self.refresh()
        return self._recent

    def providers(self) -> dict[str, Any]:
        """`/v1/providers`."""
        return {"providers": [self._provider(name) for name in self._providers()]}

    def provider_status(self, name: str) -> dict[str, Any] | None:
        """`/v1/providers/{provider}/status`, or None for a name that is no provider's."""
        if name not in self._providers():
            return None
        status = self._breakers(name)
        breakers = status.pop("circuit_breakers")
        models = {*self.models(name), *(key.partition("/")[2] for key in breakers if key.startswith(f"{name}/"))}
        deployments = {
            f"{name}/{model}": {
                "circuit_breaker": breakers.get(f"{name}/{model}"),
                "last_minute": self.recent.of_deployment(name, model),
            }
            for model in sorted(models)
        }
        endpoints = {key: breaker for key, breaker in breakers.items() if key.startswith("endpoint:")}
        rows = {"deployments": deployments, "endpoints": endpoints, "settings": self._settings(name)}
        return {**self._provider(name), **status, **rows}

    def models(self, provider: str) -> list[str]:
        """Those of a provider that the configuration names."""
        return sorted({d.model for d in self._deployments() if d.provider == provider})

    def _provider(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "kind": self._providers()[name].kind,
            "deployments": self.models(name),
            "last_minute": self.recent.of_provider(name),
        }
