"""What is measured of a peer, in turns with nginx and our gateway, on the same core before the same provider."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import bench, wrk
from benchmarks.bench import Bench, Measured, Side
from benchmarks.kinds import KINDS
from benchmarks.peers.environments import Environment
from benchmarks.peers.known import Peer, Setup
from benchmarks.peers.running import NotStartedError, PeerError, Running, ask, events_of, running
from benchmarks.servers import Server, free_port

Round = tuple[float | None, float, float]
"""One figure of nginx, of our gateway and of the peer, taken one after the other; nginx has no part in some."""


@dataclass(frozen=True)
class Measure:
    """A column of the table: the load, what is read off it, and how many digits of it are shown."""

    title: str
    kind: str
    connections: int
    of: Callable[[Measured], float]
    digits: int = 0
    more_is_better: bool = False


def _rss_mb(measured: Measured) -> float:
    return measured.rss_mb


MEASURES = (
    Measure("64 connections: CPU µs", "chat", 64, bench.cpu_us),
    Measure("calls/s", "chat", 64, bench.rate, more_is_better=True),
    Measure("1 connection: p50 ms", "chat", 1, bench.p50_ms, 2),
    Measure("burst of 50 events: CPU µs", "burst", 64, bench.cpu_us),
    Measure("50 events 5 ms apart: CPU µs", "paced", 64, bench.cpu_us),
    Measure("the same: p50 ms", "paced", 64, bench.p50_ms),
    Measure("resident MB", "chat", 64, _rss_mb),
)
TOLERATED = 0.05
"""The share of a peer's calls that may fail; that they do is told."""
START = "start to first answer: s"
TITLES = (*(measure.title for measure in MEASURES), START)


@dataclass(frozen=True)
class Result:
    """What came of one peer: the rounds by column, and in words what went wrong."""

    peer: Peer
    version: str
    rounds: Mapping[str, Sequence[Round]]
    troubles: Sequence[str] = ()


@dataclass(frozen=True)
class Course:
    """Where the peers run: the bench with its nginx, our gateway, and how long that took to its first answer."""

    bench: Bench
    gateway: Server
    gateway_seconds: float

    def result(self, peer: Peer, environment: Environment) -> Result:
        """Measure a peer; of what it does not do is told why, and the rest is measured if it takes calls at all."""
        rounds: dict[str, Sequence[Round]] = {}
        troubles: dict[str, list[str]] = {}
        for kind in dict.fromkeys(measure.kind for measure in MEASURES):
            print(f"{peer.name} {environment.version}: {kind}", file=sys.stderr, flush=True)
            try:
                found, failed = self._of_kind(peer, environment, kind)
            except (PeerError, RuntimeError, OSError, psutil.Error, subprocess.SubprocessError) as error:
                troubles.setdefault(str(error) or type(error).__name__, []).append(kind)
                if not rounds and isinstance(error, NotStartedError):
                    break
            else:
                rounds |= found | {START: [*rounds.get(START, ()), *found[START]]}
                if failed:
                    troubles.setdefault(f"{failed} calls failed", []).append(kind)
        return Result(
            peer, environment.version, rounds, [f"{', '.join(kinds)}: {why}" for why, kinds in troubles.items()]
        )

    def _of_kind(self, peer: Peer, environment: Environment, kind: str) -> tuple[dict[str, Sequence[Round]], int]:
        body, upstream = bench.body_for(kind), f"http://127.0.0.1:{self.bench.mock.port}/{kind}"
        with tempfile.TemporaryDirectory(prefix="bench-peer-") as name:
            port, folder = free_port(), Path(name)
            launch = peer.launch(Setup(environment.folder, folder, port, upstream))
            with running(peer.name, launch, port, folder, body=body) as found:
                _look(found, peer, kind)
                rounds, failed = self._in_turns(found, kind)
        return rounds | {START: [(None, self.gateway_seconds, found.seconds)]}, failed

    def _in_turns(self, found: Running, kind: str) -> tuple[dict[str, Sequence[Round]], int]:
        sides = [self.bench.at_nginx(kind), bench.at_gateway(self.gateway, kind), Side(found.server, found.job)]
        speed = _speed(sides[-1])
        turns = {
            connections: [
                [self._measure(side, connections, speed if side is sides[-1] else None) for side in sides]
                for _ in range(self.bench.repeat)
            ]
            for connections in {measure.connections for measure in MEASURES if measure.kind == kind}
        }
        failed = sum(round_[-1].sample.failed for rounds in turns.values() for round_ in rounds)
        return {
            measure.title: [(measure.of(a), measure.of(b), measure.of(c)) for a, b, c in turns[measure.connections]]
            for measure in MEASURES
            if measure.kind == kind
        }, failed

    def _measure(self, side: Side, connections: int, speed: float | None) -> Measured:
        if speed is None:
            return self.bench.measure(side, connections=connections)
        seconds = seconds_for(speed, connections, self.bench.seconds)
        return self.bench.measure(side, connections=connections, seconds=seconds, tolerated=TOLERATED)


def seconds_for(speed: float, connections: int, least: float) -> float:
    """How long a peer of so many calls a second is measured: what is under way at the end must be few of all calls."""
    return min(max(least, 6 * connections / speed), 60.0)


def _speed(side: Side) -> float:
    """Calls a second of a short run, which warms it up, too."""
    sample = wrk.run(side.server.port, side.job, connections=16, seconds=3)
    if not sample.done or sample.failed > TOLERATED * sample.done:
        raise PeerError(f"{sample.failed} of {sample.done} calls of the first 3 s failed")
    return sample.done / sample.seconds


def _look(found: Running, peer: Peer, kind: str) -> None:
    """Whether a peer refuses a wrong key, if it is said to, and passes a stream on whole."""
    if "key" in peer.on and ask(found.server.port, found.job, key="sk-wrong")[0] not in {400, 401, 403}:
        raise PeerError("lets a wrong key in")
    wanted = KINDS[kind].events
    if wanted and (events := events_of(ask(found.server.port, found.job)[1])) < wanted:
        raise PeerError(f"{events} events of {wanted}")
