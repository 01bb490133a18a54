"""`python -m benchmarks`: the table of what the gateway costs, with everything on, beside nginx in the same run.

    python -m benchmarks                       all rows
    python -m benchmarks c64 burst             these rows
    python -m benchmarks --write docs/performance.md
    python -m benchmarks plots                 pictures in docs/pictures (extra `bench`)
    python -m benchmarks soak --calls 300000   does anything grow?
    python -m benchmarks peers                 gateways of others beside this one

Needs `apt-get install nginx-light libnginx-mod-http-echo`; with `wrk` the load is in C, too. Read the ratios: absolute
figures belong to the machine. The server runs on core 0, provider and load on core 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import bench, figures, servers, wrk
from benchmarks.figures import Figure
from benchmarks.rows import ROWS

OTHERS = ("peers", "plots", "soak")


def measure(names: Sequence[str], seconds: float, repeat: int) -> list[Figure]:
    """The figures of these rows, each printed as soon as it is there."""
    out: list[Figure] = []
    with bench.started(seconds, repeat) as running:
        for name in names:
            for figure in ROWS[name](running):
                print("  ".join(filter(None, figure.cells())), file=sys.stderr, flush=True)
                out.append(figure)
    return out


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; or one of {', '.join(OTHERS)}")
    made.add_argument("--seconds", type=float, default=3.0, help="length of one run")
    made.add_argument("--repeat", type=int, default=5, help="runs of each side, taking turns")
    made.add_argument("--write", type=Path, metavar="PAGE", help="also put the table between the marks of this page")
    return made


def main(arguments: Sequence[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # What was started is ended then, too.
    os.sched_setaffinity(0, {int(servers.LOAD_CORE)})
    if arguments and arguments[0] in OTHERS:
        import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
        return
    options = parser().parse_args(arguments)
    if unknown := set(options.rows) - set(ROWS):
        parser().error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    measured = measure(options.rows or list(ROWS), options.seconds, options.repeat)
    by = "wrk" if wrk.is_here() else "Python"
    note = f"{figures.machine()}; medians of {options.repeat} runs of {options.seconds:g} s; load by {by}."
    text = f"{figures.table(measured)}\n\n{note}"
    print(text)
    if options.write:
        figures.write_between(options.write, text)


if __name__ == "__main__":
    main(sys.argv[1:])
