"""Time and chance, as one value that tests replace."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import msgspec


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """`monotonic` and `wall` give seconds, `wall` since the epoch; `random` is at least 0 and below 1."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
