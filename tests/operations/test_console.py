"""The page is one document that names what it may run and load, and has no data."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

import pytest

from asgi_driver import drive
from rig import ADMIN, Rig

pytestmark = pytest.mark.anyio


async def test_the_policy_names_the_style_and_the_script_of_the_page_and_nothing_else() -> None:
    answer = await drive(Rig().gateway, path="/console")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = answer.body.decode()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert policy[directive] == f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    assert (policy["base-uri"], policy["form-action"], policy["frame-ancestors"]) == ("'none'",) * 3
    assert policy["trusted-types"] == "'none'"


async def test_the_page_loads_nothing_and_has_no_inline_handlers() -> None:
    page = (await drive(Rig().gateway, path="/console")).body.decode()
    assert re.findall(r"\s(?:src|href)=[\"'](?!#)[^\"']*", page) == []
    assert re.findall(r"<[^>]*\son\w+=", page) == []
    assert re.findall(r"<[^>]*\sstyle=", page) == []
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "cookie"):
        assert sink not in page
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[^\s\"']+", page) == []


async def test_the_page_is_open_and_without_data_and_the_data_is_for_the_admin_token() -> None:
    rig = Rig({"a-secret-route": ["a/a-secret-model"]})
    page = await drive(rig.gateway, path="/console")
    assert b"a-secret" not in page.body
    assert (await drive(rig.gateway, path="/v1/admin/status")).status == 401
    wrong = [(b"authorization", b"Bearer wrong-token-wrong-token")]
    assert (await drive(rig.gateway, path="/v1/admin/status", headers=wrong)).status == 403
    right = [(b"authorization", f"Bearer {ADMIN}".encode())]
    assert b"a-secret-model" in (await drive(rig.gateway, path="/v1/admin/status", headers=right)).body


async def test_the_page_can_be_removed() -> None:
    rig = Rig(GATEWAY_CONSOLE="off")
    answer = await drive(rig.gateway, path="/console")
    assert (answer.status, answer.json()["error"]["code"]) == (404, "console_off")
