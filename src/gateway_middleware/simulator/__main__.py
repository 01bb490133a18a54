"""`python -m gateway_middleware.simulator`: the simulator as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
from collections.abc import Sequence

import msgspec

from gateway_middleware.simulator.behaviour import Rule
from gateway_middleware.simulator.event_loop import LOOPS, loop_factory
from gateway_middleware.simulator.simulator import Simulator


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="gateway_middleware.simulator", description=__doc__)
    made.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    made.add_argument("--port", type=int, default=9100, help="0 takes a free one (default 9100)")
    made.add_argument("--seed", type=int, default=0, help="of ids and chances (default 0)")
    made.add_argument("--no-record", action="store_true", help="keep no log of requests, for benchmarks")
    made.add_argument("--key", action="append", help="a credential to take; may be repeated (default: any)")
    made.add_argument("--rule", action="append", default=[], help="a rule as for POST /control/behaviour, in JSON")
    made.add_argument("--keep-alive", type=float, help="close connections that were idle for so many seconds")
    made.add_argument("--loop", choices=LOOPS, default="auto", help="auto: uvloop where it is installed")
    made.add_argument("--certificate", help="a PEM file with certificate chain and key: serve TLS")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM."""
    options = parser().parse_args(arguments)
    try:
        rules = [msgspec.json.decode(text, type=Rule) for text in options.rule]
    except ValueError as error:
        sys.stderr.write(f"simulator: --rule: {error}\n")
        return 2
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        return runner.run(_run(options, rules))


async def _run(options: argparse.Namespace, rules: list[Rule]) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    simulator = Simulator(
        seed=options.seed, keys=options.key, record=not options.no_record, keep_alive=options.keep_alive
    )
    for rule in rules:
        simulator.rules.add(rule)
    try:
        async with simulator.serve(host=options.host, port=options.port, ssl_context=_tls(options)) as server:
            sys.stdout.write(f"Simulator listening on {server.url}\n")
            sys.stdout.flush()
            await stopped.wait()
    except OSError as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 1
    return 0


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate)
    return context


if __name__ == "__main__":
    sys.exit(main())
