"""The garbage collector of a process that serves."""

from __future__ import annotations

import gc


def settle_heap() -> None:
    """Take what start-up made out of the collector's sight: a full pass over it is a pause that callers feel."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
