"""Paths with what does not print: answered in a dialect, and one line in the log."""

from __future__ import annotations

import json

import pytest

from asgi_driver import drive
from gateway_middleware.core.endpoints import ENDPOINTS, Access
from rig import ADMIN, Rig

HIDDEN = ["\n", "\r\n", "\0", "\x7f", "\u2028", "\x85"]
pytestmark = pytest.mark.anyio

PATHS = sorted({(e.path, e.methods[0], e.access) for e in ENDPOINTS})


@pytest.mark.parametrize("hidden", HIDDEN, ids=ascii)
@pytest.mark.parametrize(("path", "method", "access"), PATHS)
async def test_an_unprintable_character_is_404_in_a_dialect(
    path: str, method: str, access: Access, hidden: str
) -> None:
    rig = Rig()
    inside = path.replace("{argument:path}", f"a{hidden}b").replace("{argument}", f"a{hidden}b")
    token = ADMIN if access is Access.ADMIN else "x"
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer " + token.encode())]

    for asked in {inside, path.replace("{argument:path}", "a").replace("{argument}", "a") + hidden}:
        if asked == path:
            continue
        answer = await drive(
            rig.gateway, method=method, path=asked, headers=headers, body=b'{"model":"a/m","messages":[]}'
        )
        assert answer.status == 404
        assert answer.json()["error"]["type"] in {"invalid_request_error", "not_found_error"}
    rig.gateway.log.lines.flush()
    for line in rig.log.raw.splitlines():
        assert json.loads(line)["event"] == "call"
    assert rig.calls.total() == 0
