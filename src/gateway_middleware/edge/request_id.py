"""Ids of calls: the client's own where it is harmless, else ours."""

from __future__ import annotations

import os
import re
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_is_harmless = re.compile(rb"[A-Za-z0-9._-]+").fullmatch
_MAX_BYTES = 64


def new_request_ids(random: Callable[[int], bytes] = os.urandom) -> Callable[[], str]:
    """A source of ids that are unique over all processes: 64 random bits and a counter."""
    prefix = random(8).hex()
    numbers = count(1)
    return lambda: f"{prefix}-{next(numbers):x}"


def accepted(value: bytes) -> str | None:
    """The client's id as text if it matches `[A-Za-z0-9._-]{1,64}`, else None."""
    if len(value) <= _MAX_BYTES and _is_harmless(value):
        return value.decode("ascii")
    return None
