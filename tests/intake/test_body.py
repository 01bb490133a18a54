"""The one read of a body, and where it ends."""

from __future__ import annotations

from typing import Any

import pytest

from gateway_middleware.core.errors import ClientDisconnectedError, InvalidRequestError, RequestTooLargeError
from gateway_middleware.intake.body import SMALL_BODY, read_body

pytestmark = pytest.mark.anyio
LEAVES = object()


class Client:
    """Sends these pieces, the last one for ever when it is `is_endless`, and counts what was asked of it."""

    def __init__(self, *pieces: Any, is_endless: bool = False) -> None:
        self.pieces = list(pieces)
        self.is_endless = is_endless
        self.asked = 0

    async def __call__(self) -> Any:
        self.asked += 1
        piece = self.pieces[0] if self.is_endless else self.pieces.pop(0)
        if piece is LEAVES:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": self.is_endless or bool(self.pieces)}


@pytest.mark.parametrize("pieces", [[b"0123456789"], [b"01234", b"56789"], [b"", b"0123456789", b""]])
async def test_a_body_of_exactly_the_limit(pieces: list[bytes]) -> None:
    assert await read_body(b"10", Client(*pieces), limit=10) == b"0123456789"


async def test_messages_without_members() -> None:
    async def receive() -> Any:
        return {"type": "http.request"}

    assert await read_body(None, receive, limit=10) == b""


@pytest.mark.parametrize("pieces", [[b"0123456789x"], [b"0123456789x", b""], [b"01234", b"56789x"]])
async def test_one_byte_more_is_too_large(pieces: list[bytes]) -> None:
    with pytest.raises(RequestTooLargeError):
        await read_body(None, Client(*pieces), limit=10)


@pytest.mark.parametrize("declared", [b"11", b"1" * 30])
async def test_a_declared_length_over_the_limit_is_refused_unread(declared: bytes) -> None:
    client = Client(b"x")

    with pytest.raises(RequestTooLargeError):
        await read_body(declared, client, limit=10)

    assert client.asked == 0


@pytest.mark.parametrize("declared", [b"-1", b"ten", b"", b"1, 1", b"+5"])
async def test_a_length_that_is_none(declared: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        await read_body(declared, Client(b"x"), limit=10)


@pytest.mark.parametrize(("piece", "most"), [(b"x" * 4, 3), (b"x" * 11, 1)])
async def test_an_endless_body_is_read_to_the_limit_only(piece: bytes, most: int) -> None:
    client = Client(piece, is_endless=True)

    with pytest.raises(RequestTooLargeError):
        await read_body(None, client, limit=10)

    assert client.asked == most


@pytest.mark.parametrize("pieces", [[LEAVES], [b"{", LEAVES]])
async def test_a_client_that_leaves(pieces: list[Any]) -> None:
    with pytest.raises(ClientDisconnectedError):
        await read_body(None, Client(*pieces), limit=10)


@pytest.mark.parametrize(
    ("declared", "size", "expected"),
    [
        (SMALL_BODY, SMALL_BODY, []),
        (SMALL_BODY + 1, SMALL_BODY + 1, [SMALL_BODY + 1]),
        (None, SMALL_BODY, []),
        (None, 2 * SMALL_BODY, [4 * SMALL_BODY]),
        (3 * SMALL_BODY, 2 * SMALL_BODY, [3 * SMALL_BODY]),
    ],
)
async def test_a_large_body_waits_for_its_turn_before_it_is_read(
    declared: int | None, size: int, expected: list[int]
) -> None:
    """One of unknown length as if it were as long as any, once it is more than small. A body may end early."""
    piece = SMALL_BODY // 4
    pieces = [bytes([i % 256]) * min(piece, size - i) for i in range(0, size, piece)]
    client = Client(*pieces)
    turns: list[tuple[int, int]] = []

    async def take_turn(length: int) -> None:
        turns.append((length, client.asked))

    length = None if declared is None else str(declared).encode()
    assert await read_body(length, client, limit=4 * SMALL_BODY, take_turn=take_turn) == b"".join(pieces)
    assert [length for length, _ in turns] == expected
    assert all(asked == (0 if declared else 5) for _, asked in turns)
