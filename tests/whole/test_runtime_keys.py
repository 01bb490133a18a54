"""Keys and tenants made while the gateway runs, in one process with a clock that is moved."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asgi_driver import Transcript, drive
from gateway_middleware.tenancy.keys import digest
from rig import ADMIN, Rig
from running import KEY

pytestmark = pytest.mark.anyio
KEYS = "/v1/admin/tenants/acme/keys"
LISTED = json.dumps(
    {
        "acme": {"keys": [{"digest": digest(KEY.encode()), "name": "listed"}], "models": ["fast", "slow"]},
        "bare": {},
    }
)


def made_rig(**extra: Any) -> Rig:
    return Rig({"fast": ["a/m"], "slow": ["b/m"]}, GATEWAY_OPEN="", GATEWAY_TENANTS=LISTED, **extra)


async def ask(rig: Rig, method: str, path: str, *, token: str = ADMIN, raw: bytes = b"") -> Transcript:
    headers = [(b"authorization", f"Bearer {token}".encode())]
    return await drive(rig.gateway, method=method, path=path, headers=headers, body=raw)


async def make(rig: Rig, body: Any = None, path: str = KEYS) -> dict[str, Any]:
    answer = await rig.post(path, body)
    assert answer.status == 201, answer.json()
    document: dict[str, Any] = answer.json()
    return document


async def status(rig: Rig, key: str, model: str = "fast") -> tuple[int, str | None]:
    answer = await rig.call(model, headers={"x-gateway-key": key})
    return answer.status, None if answer.status == 200 else answer.json()["error"]["code"]


async def test_a_made_key_works_and_is_named_by_its_id() -> None:
    rig = made_rig()
    made = await make(rig, {"name": "ci"})
    assert made["key"].startswith(f"gw-{made['key_id']}-")
    assert {name: made[name] for name in ("tenant", "name", "source", "expires", "models", "limits", "stored")} == {
        "tenant": "acme", "name": "ci", "source": "stored", "expires": None, "models": ["*"], "limits": {},
        "stored": "memory",
    }  # fmt: skip
    assert await status(rig, made["key"]) == (200, None)
    line = rig.lines("call")[-1]
    assert (line["tenant"], line["key_id"]) == ("acme", made["key_id"])
    assert await status(rig, made["key"][:-1] + "_") == (401, "invalid_api_key")
    assert await status(rig, KEY) == (200, None)


async def test_a_key_without_a_body_and_a_listed_tenant_without_keys() -> None:
    rig = made_rig()
    made = await make(rig, None, "/v1/admin/tenants/bare/keys")
    assert await status(rig, made["key"]) == (200, None)


async def test_a_revoked_key_is_refused_at_once() -> None:
    rig = made_rig()
    made, other = await make(rig), await make(rig)
    assert await status(rig, made["key"]) == (200, None)
    gone = await ask(rig, "DELETE", f"{KEYS}/{made['key_id']}")
    assert (gone.status, gone.json()) == (200, {"tenant": "acme", "key_id": made["key_id"], "is_revoked": True})
    assert await status(rig, made["key"]) == (401, "invalid_api_key")
    assert await status(rig, other["key"]) == (200, None)
    for method, path in (("DELETE", ""), ("POST", "/rotate")):
        again = await ask(rig, method, f"{KEYS}/{made['key_id']}{path}")
        assert (again.status, again.json()["error"]["code"]) == (404, "unknown_key")


async def test_a_rotated_key_works_until_its_grace_is_over() -> None:
    rig = made_rig()
    made = await make(rig)
    assert await status(rig, made["key"]) == (200, None)
    rotated = (await rig.post(f"{KEYS}/{made['key_id']}/rotate", {"grace": 60})).json()
    assert rotated["key_id"] == made["key_id"]
    assert rotated["key"] != made["key"]
    assert datetime.fromisoformat(rotated["old_until"]).timestamp() == pytest.approx(rig.clock.wall() + 60, abs=0.1)
    assert [await status(rig, key) for key in (made["key"], rotated["key"])] == [(200, None)] * 2
    rig.clock.advance(59.9)
    assert await status(rig, made["key"]) == (200, None)
    rig.clock.advance(0.2)
    assert await status(rig, made["key"]) == (401, "expired_api_key")
    assert await status(rig, rotated["key"]) == (200, None)
    listed = (await ask(rig, "GET", KEYS)).json()["keys"]
    assert [(row["key_id"], row["source"]) for row in listed] == [(None, "configuration"), (made["key_id"], "stored")]
    assert listed[1]["old_until"] is None


async def test_two_rotations_at_a_time_shut_nobody_out() -> None:
    rig = made_rig()
    made = await make(rig)
    one, other = [(await rig.post(f"{KEYS}/{made['key_id']}/rotate", {"grace": 60})).json()["key"] for _ in range(2)]
    assert [await status(rig, key) for key in (made["key"], one, other)] == [(200, None)] * 3
    rig.clock.advance(61)
    assert [(await status(rig, key))[0] for key in (made["key"], one, other)] == [401, 401, 200]


async def test_a_hundred_rotations_leave_one_secret_and_none_comes_back() -> None:
    rig = made_rig()
    made = await make(rig)
    old, path = [made["key"]], f"{KEYS}/{made['key_id']}/rotate"
    for number in range(100):
        old.append((await rig.post(path, {"grace": 7200 if number % 2 else 0})).json()["key"])
        rig.clock.advance(7300)
    assert [(await status(rig, key))[0] for key in old] == [401] * 100 + [200]
    assert len(rig.gateway.fleet.entries("tenant-key")) < 6


async def test_a_key_expires() -> None:
    rig = made_rig()
    until = datetime.fromtimestamp(rig.clock.wall() + 30, UTC).isoformat()
    made = await make(rig, {"expires": until})
    assert await status(rig, made["key"]) == (200, None)
    rig.clock.advance(31)
    assert await status(rig, made["key"]) == (401, "expired_api_key")
    rotated = (await rig.post(f"{KEYS}/{made['key_id']}/rotate")).json()
    assert await status(rig, rotated["key"]) == (401, "expired_api_key")
    assert (await ask(rig, "GET", KEYS)).json()["keys"][1]["is_expired"] is True


async def test_models_of_a_key_narrow_its_tenants() -> None:
    rig = made_rig()
    made = await make(rig, {"models": ["slow", "b/*"]})
    assert await status(rig, made["key"], "slow") == (200, None)
    assert (await status(rig, made["key"], "fast"))[0] == 404
    assert (await status(rig, made["key"], "b/m"))[0] == 404  # its tenant may not
    shown = await drive(rig.gateway, path="/v1/models", headers=[(b"authorization", f"Bearer {made['key']}".encode())])
    assert [model["id"] for model in shown.json()["data"]] == ["slow"]


async def test_a_key_has_limits_of_its_own() -> None:
    rig = made_rig()
    limited, other = await make(rig, {"limits": {"requests": "2/minute"}}), await make(rig)
    assert [(await status(rig, limited["key"]))[0] for _ in range(3)] == [200, 200, 429]
    assert [(await status(rig, other["key"]))[0] for _ in range(3)] == [200, 200, 200]
    rotated = (await rig.post(f"{KEYS}/{limited['key_id']}/rotate")).json()
    assert (await status(rig, rotated["key"]))[0] == 429  # another secret is no other budget


async def test_a_tenant_is_made_with_limits_for_all_and_for_each_key() -> None:
    rig = made_rig()
    body = {"name": "new", "models": ["fast"], "limits": {"requests": "3/minute"}, "per_key": {"requests": "2/minute"}}
    made = await rig.post("/v1/admin/tenants", body)
    assert (made.status, made.json()["name"], made.json()["keys"]) == (201, "new", 0)
    one, other = [(await make(rig, {}, "/v1/admin/tenants/new/keys"))["key"] for _ in range(2)]
    assert [(await status(rig, one))[0] for _ in range(3)] == [200, 200, 429]
    assert [(await status(rig, other))[0] for _ in range(2)] == [200, 429]
    assert (await status(rig, other, "slow"))[0] == 404
    rows = (await ask(rig, "GET", "/v1/admin/tenants")).json()["tenants"]
    assert [(row["name"], row["source"], row["keys"]) for row in rows] == [
        ("acme", "configuration", 1), ("bare", "configuration", 0), ("new", "stored", 2),
    ]  # fmt: skip
    headers = [(b"authorization", f"Bearer {ADMIN}".encode())]
    usage = await drive(rig.gateway, path="/v1/admin/usage", query=b"tenant=new", headers=headers)
    assert [row["used"] for row in usage.json()["limits"]] == [3]


async def test_configuration_is_stronger_than_what_was_made() -> None:
    rig = made_rig()
    taken = await rig.post("/v1/admin/tenants", {"name": "acme"})
    assert (taken.status, taken.json()["error"]["code"]) == (409, "tenant_exists")
    await rig.post("/v1/admin/tenants", {"name": "new", "limits": {"requests": "1/minute"}})
    key = (await make(rig, {}, "/v1/admin/tenants/new/keys"))["key"]
    assert [(await status(rig, key))[0] for _ in range(2)] == [200, 429]
    rig.environment["GATEWAY_TENANTS"] = json.dumps({**json.loads(LISTED), "new": {"models": ["slow"]}})
    assert (await rig.post("/v1/admin/reload")).status == 200
    assert [(await status(rig, key, "slow"))[0] for _ in range(3)] == [200] * 3
    assert (await status(rig, key))[0] == 404
    rig.environment["GATEWAY_TENANTS"] = json.dumps({"bare": {}})
    made = await make(rig)
    assert (await rig.post("/v1/admin/reload")).status == 200
    assert await status(rig, made["key"]) == (401, "invalid_api_key")  # there is no such tenant any more


async def test_a_gateway_without_tenants_is_filled_at_run_time() -> None:
    rig = Rig({"fast": ["a/m"]}, GATEWAY_OPEN="", GATEWAY_TENANTS="{}")
    assert (await rig.post("/v1/admin/tenants", {"name": "first"})).status == 201
    made = await make(rig, {}, "/v1/admin/tenants/first/keys")
    assert await status(rig, made["key"]) == (200, None)


async def test_where_everybody_is_let_in_no_key_is_made() -> None:
    refused = await Rig().post("/v1/admin/tenants", {"name": "new"})
    assert (refused.status, refused.json()["error"]["code"]) == (409, "keys_not_used")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"nmae": "x"}, None),
        ({"name": "with space"}, "name"),
        ({"name": "line\nend"}, "name"),
        ({"name": "ends\n"}, "name"),
        ({"name": "ünïcode"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"expires": "2027-01-01T00:00:00"}, "expires"),
        ({"expires": "tomorrow"}, "expires"),
        ({"models": []}, "models"),
        ({"models": "fast"}, "models"),
        ({"models": ["a\nb"]}, "models[0]"),
        ({"limits": {"requests": "many"}}, "limits.requests"),
        ({"limits": {"request": "1/minute"}}, "limits"),
        ({"limits": {"spend": "env:ADMIN_TOKEN"}}, "limits.spend"),
        ({"limits": {"concurrency": 0}}, "limits.concurrency"),
        ({"limits": {"shadow": ["prayers"]}}, "limits.shadow[0]"),
        ({"limits": []}, "limits"),
        ([], None),
        ({"key": "gw-chosen"}, None),
    ],
)
async def test_bodies_that_are_refused(body: Any, param: str | None) -> None:
    rig = made_rig()
    refused = await rig.post(KEYS, body)
    assert (refused.status, refused.json()["error"]["param"]) == (400, param)
    assert len((await ask(rig, "GET", KEYS)).json()["keys"]) == 1


@pytest.mark.parametrize("raw", [b"{", b"[" * 15_000, b'{"name":"\xff"}', b"null", b'{"grace": 1e400}'])
async def test_bodies_that_are_no_object(raw: bytes) -> None:
    assert (await ask(made_rig(), "POST", KEYS, raw=raw)).status == 400


@pytest.mark.parametrize("grace", [-1, 1e9, "soon", None])
async def test_a_grace_that_makes_no_sense(grace: Any) -> None:
    rig = made_rig()
    made = await make(rig)
    assert (await rig.post(f"{KEYS}/{made['key_id']}/rotate", {"grace": grace})).status == 400
    assert await status(rig, made["key"]) == (200, None)


PATHS = [
    ("GET", "/v1/admin/tenants"), ("POST", "/v1/admin/tenants"), ("GET", KEYS), ("POST", KEYS),
    ("POST", f"{KEYS}/abcdefgh/rotate"), ("DELETE", f"{KEYS}/abcdefgh"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_only_the_admin_token_opens_these(method: str, path: str) -> None:
    rig = made_rig()
    made = await make(rig)
    for token in (KEY, made["key"], ADMIN[:-1]):
        assert (await ask(rig, method, path, token=token)).status == 403
    assert (await drive(rig.gateway, method=method, path=path)).status == 401


async def test_a_key_cannot_be_reached_by_way_of_another_tenant() -> None:
    rig = made_rig()
    made = await make(rig)
    for method, path in (("DELETE", ""), ("POST", "/rotate")):
        for name in ("bare", "nobody", "acme/keys/x", "acme%2Fkeys"):
            answer = await ask(rig, method, f"/v1/admin/tenants/{name}/keys/{made['key_id']}{path}")
            assert answer.status == 404
    assert await status(rig, made["key"]) == (200, None)
    assert (await ask(rig, "GET", "/v1/admin/tenants/nobody/keys")).status == 404


async def test_a_key_is_shown_once_and_each_step_is_a_line() -> None:
    rig = made_rig()
    made = await make(rig, {"name": "ci"})
    rotated = (await rig.post(f"{KEYS}/{made['key_id']}/rotate")).json()
    shown = [(await ask(rig, "GET", path)).body.decode() for path in (KEYS, "/v1/admin/tenants")]
    shown.append((await ask(rig, "DELETE", f"{KEYS}/{made['key_id']}")).body.decode())
    actions = [line["action"] for line in rig.lines("audit")]
    assert actions == ["key made", "key rotated", "key revoked"]
    assert {line["key_id"] for line in rig.lines("audit")} == {made["key_id"]}
    told = "".join([*shown, rig.log.raw.decode()])
    for key in (made["key"], rotated["key"]):
        assert key not in told
        assert key[12:] not in told
        assert digest(key.encode())[7:] not in told


async def test_a_restart_keeps_all(tmp_path: Path) -> None:
    """One process after another over the directory beside the journal."""
    rig = made_rig(GATEWAY_FLEET_DIRECTORY=str(tmp_path))
    async with rig.gateway.lifespan():
        made, gone = await make(rig), await make(rig)
        assert made["stored"] == "directory"
        await rig.post("/v1/admin/tenants", {"name": "new", "limits": {"requests": "1/minute"}})
        of_new = await make(rig, {}, "/v1/admin/tenants/new/keys")
        rotated = (await rig.post(f"{KEYS}/{made['key_id']}/rotate", {"grace": 60})).json()
        await ask(rig, "DELETE", f"{KEYS}/{gone['key_id']}")
    again = made_rig(GATEWAY_FLEET_DIRECTORY=str(tmp_path))
    async with again.gateway.lifespan():
        assert [(await status(again, key["key"]))[0] for key in (made, rotated, gone)] == [200, 200, 401]
        assert [(await status(again, of_new["key"]))[0] for _ in range(2)] == [200, 429]
