"""The prices of the moment, which a reload gives the workers: left beside the journal for whoever prices the dead."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from gateway_middleware.core.price import Price
from gateway_middleware.metering.journal.left_file import leave


class KeptPrices(msgspec.Struct, frozen=True):
    """Configured prices by deployment; the vendors' ids in the price list, by the name of the provider."""

    prices: dict[str, Price] = {}
    vendors: dict[str, str | None] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KeptPrices).decode


def prices_path(journal: str) -> Path:
    """Where they are left."""
    return Path(f"{journal}.keeper-prices")


def leave_prices(journal: str, prices: KeptPrices) -> None:
    """Put these in the place of those before. Where the disk does not obey, the keeper goes by older ones."""
    with contextlib.suppress(OSError):
        leave(prices_path(journal), _encode(prices), draft=str(os.getpid()))


def left_prices(journal: str) -> KeptPrices | None:
    """Those of the last reload; None where there was none, or they cannot be read."""
    try:
        return _decode(prices_path(journal).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None


def forget_prices(journal: str) -> None:
    """A server starts: its settings say more than what an earlier one has left."""
    with contextlib.suppress(OSError):
        prices_path(journal).unlink(missing_ok=True)
