"""What a piece of work takes, counted: no busy machine changes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count


def calls_within(work: Callable[[], object]) -> int:
    """How many functions are entered and left, those of C among them, until `work` returns or raises."""
    seen = count()
    sys.setprofile(lambda *_: next(seen))
    try:
        work()
    finally:
        sys.setprofile(None)
    return next(seen)
