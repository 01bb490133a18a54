"""What a row of the table works with: mock provider, nginx and gateways, measured in turns.

Machines are shared: both sides are measured one after the other, several times, and the ratio is the median of the
ratios of such pairs, not the ratio of two medians.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import servers, wrk
from benchmarks.kinds import KINDS
from benchmarks.mock_provider import mock_provider
from benchmarks.servers import Server
from benchmarks.wrk import Job, Sample

ROW_KINDS = ("chat", "slow", "burst", "paced", "spaced", "burst200", "messages200")


@dataclass(frozen=True)
class Measured:
    """One run of load on one server: microseconds of CPU for a call, over all threads and processes."""

    sample: Sample
    cpu_us: float
    rss_mb: float


@dataclass(frozen=True)
class Side:
    """A server and what it is asked."""

    server: Server
    job: Job


@dataclass
class Bench:
    """The running mock provider and nginx, and how long and how often is measured."""

    mock: Server
    nginx: Server
    seconds: float
    repeat: int

    @contextlib.contextmanager
    def gateway(
        self, changes: Mapping[str, str | None] | None = None, kinds: Sequence[str] = ROW_KINDS
    ) -> Iterator[Server]:
        """A gateway with everything on, warmed up."""
        with servers.gateway(self.mock.port, kinds, changes) as server:
            for kind in kinds[:1]:
                wrk.run(server.port, Job(models=(f"{kind}/gpt-5-mini",)), connections=16, seconds=1)
            server.settled_cpu_seconds(at_most=30)  # What a start leaves for later is none of the calls'.
            yield server

    def at_nginx(self, kind: str) -> Side:
        """nginx in front of this kind of answer."""
        return Side(self.nginx, Job(path=f"/{kind}/v1/chat/completions", models=("x",), body=body_for(kind)))

    def measure(
        self, side: Side, *, connections: int, seconds: float | None = None, tolerated: float = 0.0
    ) -> Measured:
        """Run load on one side; more failures than this share are an error, since their CPU would say nothing."""
        before, seconds = side.server.settled_cpu_seconds(), seconds or self.seconds
        sample = wrk.run(side.server.port, side.job, connections=connections, seconds=seconds)
        if not sample.done and not sample.failed:  # Where others have the cores, a second may be no time at all.
            before = side.server.settled_cpu_seconds()
            sample = wrk.run(side.server.port, side.job, connections=connections, seconds=4 * seconds)
        cpu = side.server.settled_cpu_seconds() - before
        if not sample.done or sample.failed > tolerated * sample.done:
            raise RuntimeError(f"{side.server.name}: {sample}")
        return Measured(sample, 1e6 * cpu / sample.done, side.server.rss_mb())

    def in_turns(self, sides: Sequence[Side], *, connections: int, seconds: float | None = None) -> Turns:
        """Measure the sides one after the other, `repeat` times."""
        rounds = [
            [self.measure(side, connections=connections, seconds=seconds) for side in sides] for _ in range(self.repeat)
        ]
        return Turns(rounds)


@dataclass(frozen=True)
class Turns:
    """Rounds of measurements, one of each side in each of them."""

    rounds: Sequence[Sequence[Measured]]

    def median(self, of: Callable[[Measured], float], side: int = -1) -> float:
        """The median of a figure of one side."""
        return statistics.median(of(measured[side]) for measured in self.rounds)

    def ratio(self, of: Callable[[Measured], float]) -> float:
        """The median of the ratios of the last side to the first."""
        return statistics.median(of(measured[-1]) / of(measured[0]) for measured in self.rounds)

    def difference(self, of: Callable[[Measured], float]) -> float:
        """The median of what the last side has more than the first."""
        return statistics.median(of(measured[-1]) - of(measured[0]) for measured in self.rounds)


def at_gateway(server: Server, kind: str, *, path: str = "/v1/chat/completions") -> Side:
    """A gateway that is asked for this kind of answer."""
    return Side(server, Job(path=path, models=(f"{kind}/gpt-5-mini",), body=body_for(kind)))


def body_for(kind: str) -> str:
    """A request of about 1.4 kB for this kind of answer, with `@MODEL@` in it."""
    return wrk.STREAM_BODY if KINDS[kind].events else wrk.BODY


def cpu_us(measured: Measured) -> float:
    return measured.cpu_us


def p50_ms(measured: Measured) -> float:
    return measured.sample.p50_ms


def p99_ms(measured: Measured) -> float:
    return measured.sample.p99_ms


def rate(measured: Measured) -> float:
    """Calls a second."""
    return measured.sample.done / measured.sample.seconds


@contextlib.contextmanager
def started(seconds: float, repeat: int) -> Iterator[Bench]:
    """The mock provider, and nginx in front of it."""
    with mock_provider() as mock, servers.nginx(mock.port) as nginx:
        yield Bench(mock, nginx, seconds, repeat)
