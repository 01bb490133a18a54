"""A sample of every provider at each full ten seconds, for a quarter of an hour."""

from __future__ import annotations

from clock import Clock
from gateway_middleware.operations.provider_history import SAMPLES, ProviderHistory, Sample
from gateway_middleware.operations.recent_stats import Counts


def history(counts: dict[str, Counts], clock: Clock) -> ProviderHistory:
    return ProviderHistory(lambda: list(counts), lambda name: counts[name], wall=clock.wall)


def test_a_sample_has_the_figures_of_the_minute_and_a_round_time() -> None:
    clock = Clock()
    counts = {"a": Counts(attempts=4, errors=1, latencies={0: 3, 50: 1}), "b": Counts()}
    samples = history(counts, clock)
    samples.sample()
    (sample,) = samples.of("a")
    assert (sample.attempts, sample.errors, sample.p50_ms) == (4, 1, 1.0)
    assert sample.at % 10 == 0
    assert abs(sample.at - clock.wall()) <= 5
    assert samples.of("b") == [Sample(sample.at, 0, 0, None, None)]


def test_old_samples_go_and_so_do_providers() -> None:
    clock = Clock()
    counts = {"a": Counts(), "b": Counts()}
    samples = history(counts, clock)
    for _ in range(SAMPLES + 3):
        samples.sample()
        clock.advance(10)
    ats = [sample.at for sample in samples.of("a")]
    assert len(ats) == SAMPLES
    assert ats == sorted(set(ats))
    del counts["b"]
    samples.sample()
    assert samples.of("b") == samples.of("nobody") == []
