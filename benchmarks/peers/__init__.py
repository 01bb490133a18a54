"""`python -m benchmarks peers [name ...]`: gateways of others beside ours and nginx, from environments of their own.

    python -m benchmarks peers --environments DIR
    python -m benchmarks peers rolter smg --seconds 2 --repeat 3
    python -m benchmarks peers --write docs/performance.md

Each is installed by pip or npm (the newest that the index has), started on core 0 in front of the same mock provider
with as many of its features on as it offers without a database, and measured in turns with nginx and our gateway with
everything on. One that cannot be installed, or does not answer, is a row that says so.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import gateway_middleware
from benchmarks import bench, figures, rows, wrk
from benchmarks.peers import tables
from benchmarks.peers.environments import Environment, InstallError, Run, environment, run_command
from benchmarks.peers.known import PEERS, Peer
from benchmarks.peers.measuring import MEASURES, Course, Result


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="benchmarks peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(PEERS)}")
    made.add_argument(
        "--environments",
        type=Path,
        metavar="DIR",
        help="where they are installed, and used again; else made and removed",
    )
    made.add_argument("--seconds", type=float, default=3.0, help="least length of one run")
    made.add_argument("--repeat", type=int, default=3, help="runs of each side, taking turns")
    made.add_argument("--write", type=Path, metavar="PAGE", help="also put the tables between the marks of this page")
    return made


def main(arguments: Sequence[str]) -> None:
    """Install, measure, print."""
    options = parser().parse_args(arguments)
    if unknown := set(options.names) - set(PEERS):
        parser().error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    peers = [PEERS[name] for name in options.names or PEERS]
    with folder(options.environments) as environments:
        installed = install(peers, environments)
        results = measure(peers, installed, options.seconds, options.repeat)
    by = "wrk" if wrk.is_here() else "Python"
    note = f"{figures.machine()}; {options.repeat} runs of each of {options.seconds:g} s or more; load by {by}."
    text = f"{tables.page(results, version=gateway_middleware.__version__)}\n\n{note}"
    print(text)
    if options.write:
        figures.write_between(options.write, text, tables.MARKS)


@contextlib.contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """The folder that is given, or one until the block ends."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as made:
        yield Path(made)


def install(peers: Sequence[Peer], environments: Path, run: Run = run_command) -> dict[str, Environment | InstallError]:
    """The environment of each peer, or why it has none."""
    out: dict[str, Environment | InstallError] = {}
    for peer in peers:
        say(f"{peer.name}: install")
        try:
            out[peer.name] = environment(environments / peer.name, peer.package, run)
        except InstallError as error:
            out[peer.name] = error
    return out


def measure(
    peers: Sequence[Peer], installed: dict[str, Environment | InstallError], seconds: float, repeat: int
) -> list[Result]:
    """The results of all; those that are not installed say why."""
    kinds = list(dict.fromkeys(one.kind for one in MEASURES))
    with bench.started(seconds, repeat) as running:
        began = statistics.median(rows.first_answer(running, 1) for _ in range(3))
        with running.gateway(kinds=kinds) as gateway:
            course = Course(running, gateway, began)
            return [result_of(course, peer, installed[peer.name]) for peer in peers]


def result_of(course: Course, peer: Peer, found: Environment | InstallError) -> Result:
    """What is measured of a peer, or that it is not there."""
    if isinstance(found, InstallError):
        return Result(peer, "", {}, [f"not installed: {found}"])
    result = course.result(peer, found)
    for trouble in result.troubles:
        say(f"{peer.name}: {trouble}")
    return result


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
