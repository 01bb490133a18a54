"""What is told of the gateway and its providers: counted from ended calls, shown as documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.operations.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway_middleware.domain import CallRecord, Clock, Deployment, Provider
    from gateway_middleware.operations.metrics import CallMetrics

_BATCH = 64


class Report:
    """Counts calls and makes the documents of `/v1/providers` and of the breakers.

    Records are counted in batches, since the same few lines of code over many records are several times as fast as
    after each call; whoever reads is brought up to date first. `deployments` are those of the configuration.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        deployments: Iterable[Deployment],
        metrics: CallMetrics,
        clock: Clock,
    ) -> None:
        self._providers = providers
        named = list(deployments)
        self._models = {name: sorted({d.model for d in named if d.provider == name}) for name in providers}
        self._metrics = metrics
        self._figures = Figures(clock)
        self._ended: list[CallRecord] = []

    def observe(self, record: CallRecord) -> None:
        """Take a call that has ended."""
        self._ended.append(record)
        if len(self._ended) >= _BATCH:
            self.refresh()

    def refresh(self) -> None:
        """Count what has not been counted yet. Metrics are to be read after this."""
        ended, self._ended = self._ended, []
        for record in ended:
            self._figures.observe(record)
            self._metrics.observe(record)

    @property
    def figures(self) -> Figures:
        """How each deployment did in the last minute."""
        self.refresh()
        return self._figures

    def providers(self) -> dict[str, Any]:
        """`/v1/providers`."""
        return {"providers": [self._provider(name) for name in self._providers]}

    def provider_status(self, name: str) -> dict[str, Any] | None:
        """`/v1/providers/{provider}/status`, or None for a name that is no provider's."""
        if name not in self._providers:
            return None
        deployments = {
            f"{name}/{model}": {"last_minute": self.figures.of_deployment(name, model)} for model in self._models[name]
        }
        return {**self._provider(name), "deployments": deployments}

    def circuit_breakers(self) -> dict[str, Any]:
        """`circuit_breakers` of `/v1/health`. `off`: there is no breaker in this version, and none is claimed."""
        return {
            name: {"state": "off", "deployments": {f"{name}/{model}": {"state": "off"} for model in models}}
            for name, models in self._models.items()
        }

    def _provider(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "kind": self._providers[name].kind.value,
            "deployments": self._models[name],
            "last_minute": self.figures.of_provider(name),
        }
