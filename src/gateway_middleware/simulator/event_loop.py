"""Event loops by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module

LOOPS = ("auto", "uvloop", "asyncio")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes an event loop: one of `LOOPS`, where `auto` is uvloop if it is installed (extra `serve`).

    Raises `ImportError` for `uvloop` where it is not installed.
    """
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    except ImportError:
        if name == "uvloop":
            raise
        return asyncio.new_event_loop
    return factory
