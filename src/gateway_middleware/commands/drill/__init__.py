"""`drill`: plays an incident with real processes, and checks what the runbook promises about it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gateway_middleware.commands.extras import require_serve

if TYPE_CHECKING:
    import argparse

DRILLS = (
    "provider-outage",
    "slow-provider",
    "flapping",
    "rate-limit",
    "quota-exhausted",
    "redis-outage",
    "metering-outage",
    "rolling-restart",
    "key-rotation",
    "bad-config",
    "disk-full",
    "thundering-herd",
)


def module_of(name: str) -> Any:
    """The module of a drill: its docstring is what happens, `SECTION` its place in the runbook, `play` plays it."""
    return import_module(f"gateway_middleware.commands.drill.{name.replace('-', '_')}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The names of drills."""
    parser.add_argument("name", choices=[*DRILLS, "all"], help="what happens", metavar="name")
    parser.epilog = "Drills: " + ", ".join(DRILLS) + "; or all of them, one after the other."


def run(args: argparse.Namespace) -> int:
    """Play; 1 where a promise was broken, or this machine lacks what the drill needs."""
    require_serve("drill")
    names = DRILLS if args.name == "all" else (args.name,)
    results = [asyncio.run(_play(name)) for name in names]
    return 0 if all(results) else 1


async def _play(name: str) -> bool:
    from gateway_middleware.commands.drill.processes import UnplayableError
    from gateway_middleware.commands.drill.stage import Stage
    from gateway_middleware.commands.drill.story import Story

    drill, story, began = module_of(name), Story(), time.monotonic()
    print(f"\n=== {name}: {drill.__doc__}\n    docs/runbook.md#{drill.SECTION}", flush=True)
    with _cancelled_by_sigterm():
        try:
            async with Stage(story) as stage:
                await drill.play(stage)
        except UnplayableError as error:
            print(f"drill {name}: {error}", file=sys.stderr)
            return False
    kept = story.promises - len(story.broken)
    print(f"\n{name}: {kept} of {story.promises} promises kept, {time.monotonic() - began:.1f} s", flush=True)
    return not story.broken


@contextlib.contextmanager
def _cancelled_by_sigterm() -> Any:
    """So that the processes of a drill end with it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    loop.add_signal_handler(signal.SIGTERM, lambda: task and task.cancel())
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
