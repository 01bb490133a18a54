"""`keys create`, `list`, `rotate`, `revoke` against a gateway on a socket, run as an operator runs them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway_middleware import Gateway, Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.simulator import Simulator
from running import KEY, environment, serving

pytestmark = pytest.mark.anyio
TOKEN = "an-admin-token-of-some-length"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        settings = Settings.from_env(environment(simulator.url, GATEWAY_ADMIN_TOKEN=TOKEN))
        async with serving(GatewayApplication(Gateway(settings))) as url:
            yield url


async def keys(*arguments: str, token: str | None = TOKEN) -> tuple[int, str, str]:
    bare = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway_middleware", "keys", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=bare | ({} if token is None else {"GATEWAY_ADMIN_TOKEN": token}),
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def status(url: str, key: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{url}/v1/models", headers={"x-api-key": key})).status_code


async def test_the_life_of_a_key(url: str) -> None:
    where = ("--tenant", "acme", "--url", url)
    code, out, err = await keys("create", *where, "--name", "ci", "--limit", "requests=600/minute", "concurrency=5")
    assert (code, "in memory only" in err) == (0, True)
    made = dict(line.split() for line in out.splitlines())
    assert await status(url, made["key"]) == 200

    code, out, _ = await keys("list", *where)
    assert (code, out.splitlines()[1]) == (0, f"{made['key_id']}\tci\tstored\t-")
    assert made["key"] not in out

    changed = await keys("change", made["key_id"], *where, "--models", "gpt-*", "--limit", "requests=9/minute")
    assert changed == (0, f"changed {made['key_id']}\n", "")

    code, out, _ = await keys("rotate", made["key_id"], *where, "--grace", "0")
    rotated = dict(line.split() for line in out.splitlines())
    assert (code, rotated["key_id"]) == (0, made["key_id"])
    assert [await status(url, key) for key in (made["key"], rotated["key"])] == [401, 200]

    assert await keys("revoke", made["key_id"], *where) == (0, f"revoked {made['key_id']}\n", "")
    assert await status(url, rotated["key"]) == 401


async def test_what_the_gateway_refuses_is_said(url: str) -> None:
    for arguments, said in (
        (("create", "--tenant", "nobody"), "No tenant is called `nobody`."),
        (("create", "--tenant", "a/../b"), "HTTP 404"),
        (("create", "--tenant", "acme", "--limit", "requests=many"), "limits"),
        (("revoke", "aaaaaaaa", "--tenant", "acme"), "no key `aaaaaaaa`"),
    ):
        code, out, err = await keys(*arguments, "--url", url)
        assert (code, out) == (1, "")
        assert said in err
    for token in (None, KEY, "with a\nline end"):
        code, out, err = await keys("list", "--tenant", "acme", "--url", url, token=token)
        assert (code, out) == (1, "")
        assert token is None or token not in err
    code, _, err = await keys("list", "--tenant", "acme", "--url", "http://127.0.0.1:1")
    assert (code, "ConnectError" in err) == (1, True)
