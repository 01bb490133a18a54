"""Recorded exchanges with the providers: the large collection beside the repository, or else `tests/wire`."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

WIRE = Path(__file__).parent / "wire"
WHY_SKIPPED = "the large collection of recorded traffic (shared/traffic) is not beside this repository"


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its answer. `sse` is the text of a stream, `body` the JSON (or text) of any other answer."""

    id: str
    source_repo: str
    licence: str
    provider: str
    surface: str
    endpoint: str
    stream: bool
    path: str
    query: Any
    request_headers: dict[str, str]
    request_body: Any
    status: int
    response_headers: dict[str, str]
    body: Any
    sse: str | None
    tags: tuple[str, ...]

    @property
    def wire(self) -> bytes:
        """The bytes of the answer. JSON was recorded as a value; this is one way to write it."""
        if self.sse is not None:
            return self.sse.encode()
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


def shared_folder() -> Path | None:
    """The large collection, or None where it is absent."""
    for above in Path(__file__).resolve().parents:
        if (found := above / "shared" / "traffic").is_dir():
            return found
    return None


def has_shared_traffic() -> bool:
    """Whether the large collection is there."""
    return shared_folder() is not None


def exchanges(
    provider: str | None = None, surface: str | None = None, *, stream: bool | None = None
) -> Sequence[Exchange]:
    """The recorded exchanges of the large collection, or of `tests/wire` without it."""
    return _chosen(_read(shared_folder() or WIRE), provider, surface, stream=stream)


def wire_exchanges(
    provider: str | None = None, surface: str | None = None, *, stream: bool | None = None
) -> Sequence[Exchange]:
    """The small selection that is part of this repository."""
    return _chosen(_read(WIRE), provider, surface, stream=stream)


def _chosen(
    found: Sequence[Exchange], provider: str | None, surface: str | None, *, stream: bool | None
) -> Sequence[Exchange]:
    return [
        e
        for e in found
        if provider in {None, e.provider} and surface in {None, e.surface} and stream in {None, e.stream}
    ]


@functools.cache
def _read(folder: Path) -> Sequence[Exchange]:
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()]
    return [_exchange(msgspec.json.decode(line)) for line in lines]


def _exchange(row: dict[str, Any]) -> Exchange:
    request, response = row["request"], row["response"]
    return Exchange(
        **{name: row[name] for name in ("id", "source_repo", "licence", "provider", "surface", "endpoint", "stream")},
        path=request["path"],
        query=request.get("query"),
        request_headers=request.get("headers") or {},
        request_body=request.get("body"),
        status=response["status"],
        response_headers=response.get("headers") or {},
        body=response.get("body"),
        sse=response.get("sse"),
        tags=tuple(row.get("tags", ())),
    )
