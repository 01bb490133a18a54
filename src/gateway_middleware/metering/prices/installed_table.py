"""The price table of the library that is installed.

For the version that this package was made with the table is in the package. For another one it is compiled in another
process, and kept in a file for the next start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from gateway_middleware.metering.prices.price_table import PriceTable

_FORMAT = 1
"""Another one for each change of the structures in `price_table`."""
COMPILE = (sys.executable, "-m", "gateway_middleware.metering.prices.library_table")
_SECONDS = 30.0
BUNDLED = Path(__file__).with_name("genai_prices.table")
_reading = threading.Lock()
_tables: dict[str, PriceTable] = {}
_log = logging.getLogger("gateway_middleware")


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A table in a file, and of which library's files it was made."""

    stamp: str
    table: PriceTable


_decode_kept = msgspec.msgpack.Decoder(_Kept).decode
_decode = msgspec.msgpack.Decoder(PriceTable).decode


def table_path(journal: str) -> Path:
    """Where the table is kept, beside a journal."""
    return Path(f"{journal}.prices")


def installed_table(kept: Path | None) -> PriceTable:
    """The table in this package, or the one in the file `kept`, where it was made from the library that is installed.

    Else it is made, and written to that file. It is read once in a process. Blocks: for some milliseconds where it was
    there, else for a third of a second of work. Raises `ImportError` where the library is absent, and `ValueError`
    where its list cannot be understood.
    """
    stamp = library_stamp()
    with _reading:
        if stamp not in _tables:
            _tables[stamp] = bundled_table() or read_or_compile(kept, stamp)
        return _tables[stamp]


def bundled_table(path: Path = BUNDLED) -> PriceTable | None:
    """The table in this package; None where another version of the library is installed than it was made from."""
    try:
        table = _decode(zlib.decompress(path.read_bytes()))
    except (OSError, zlib.error, msgspec.MsgspecError):
        return None
    name, _, version = table.version.partition("/")
    return table if _is_installed(name.replace("-", "_"), version) else None


def _is_installed(name: str, version: str) -> bool:
    """What `importlib.metadata` would say, without its thirty milliseconds."""
    spec = find_spec(name)
    return spec is not None and Path(spec.origin or "").parent.with_name(f"{name}-{version}.dist-info").is_dir()


def read_or_compile(kept: Path | None, stamp: str, command: Sequence[str] = COMPILE) -> PriceTable:
    """The table of the library's files that the stamp tells, from the file or made anew by the command."""
    table = None if kept is None else _read(kept, stamp)
    if table is None:
        table = _compiled(command)
        if kept is not None:
            _write(kept, _Kept(stamp, table))
    return table


def library_stamp() -> str:
    """Another one for another version of the library. Raises `ImportError`."""
    spec = find_spec("genai_prices")
    if spec is None or spec.origin is None:
        raise ImportError("genai_prices is not installed")
    list_ = Path(spec.origin).with_name("data.py")
    stat = list_.stat()
    return f"{_FORMAT} {list_} {stat.st_size} {stat.st_mtime_ns}"


def _read(path: Path, stamp: str) -> PriceTable | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        kept = _decode_kept(path.read_bytes())
        return kept.table if kept.stamp == stamp else None
    return None


def _write(path: Path, kept: _Kept) -> None:
    """Without it the next start takes longer, and no more."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.msgpack.encode(kept))
        fresh.replace(path)


def _compiled(command: Sequence[str]) -> PriceTable:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=True)  # noqa: S603  # nothing of it comes from outside
        return _decode(done.stdout)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        _log.warning("the price list is read in this process, which takes 13 MB: %r", error)
    from gateway_middleware.metering.prices.library_table import library_table

    return library_table()
