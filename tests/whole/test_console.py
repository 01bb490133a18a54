"""The console in a real Chromium: what an on-call sees and does, and what no text can make it do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

import ways
from browser import ABSENT, IS_THERE, Browser, browser
from console_scene import ADMIN, SIZES, incident, unlock
from gateway_middleware import Gateway, Settings, mount
from gateway_middleware.core.domain import Tenant
from gateway_middleware.simulator import Simulator
from running import LogLines, environment, serving

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not IS_THERE, reason=ABSENT)]
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
"""Text that is code where it is taken for markup."""
FORCE = 'button[data-breaker="azure"][data-command="force-open"]'
OVERFLOW = "return document.documentElement.scrollWidth - window.innerWidth"
CONTRASTS = """
  const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c.slice(0, 3); }
    return rgb(getComputedStyle(document.body).backgroundColor); };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push([e.textContent.slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return low;
"""
MOVING = """
  const all = [...document.querySelectorAll("*")];
  return all.filter((e) => parseFloat(getComputedStyle(e).transitionDuration)).length;
"""
NAMELESS = """
  const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim()
    || (e.labels && e.labels.length);
  const all = [...document.querySelectorAll("button, input, select, svg[role=img]")];
  return all.filter((e) => e.checkVisibility() && !named(e)).map((e) => e.outerHTML);
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.look(width=1280, height=800)
        yield opened


@contextlib.asynccontextmanager
async def gateway(simulator: str, **ports: Any) -> AsyncIterator[Gateway]:
    settings = Settings.from_env(
        environment(simulator, GATEWAY_ADMIN_TOKEN=ADMIN, GATEWAY_ROUTES='{"fast": ["azure/m"]}')
    )
    made = ways.gateway(settings, write_log=LogLines(), **ports)
    async with made.lifespan():
        yield made


def work_through_an_incident(window: Browser, url: str) -> None:
    window.logs()
    unlock(window, url)
    window.wait_for("overloaded", "#providers", seconds=30)
    window.wait_for("route out · eu", "#alerts", seconds=30)
    window.wait_for("checkout", "#tenants")
    window.wait_for("The engine is overloaded", "#errors")
    window.wait_for("→", "#events")
    window.wait_for("2/2", "#tiles", seconds=30)
    assert window.run("return document.querySelectorAll('#processes tbody tr').length") == 2
    assert window.run("return document.title").startswith("(2)")
    force_open(window)
    window.wait_for("forced open", '#providers [data-key="azure"]')
    window.wait_for("INC-42", '#providers [data-key="azure"]')
    window.click('.row button[data-breaker="azure"][data-command="reset"]')
    window.type("#reason", "it is well again")
    window.click("#do")
    window.wait_for("Every process follows within a second", "#done")
    assert window.logs() == []


def force_open(window: Browser) -> None:
    """By keyboard alone, and not without a reason."""
    window.run("document.querySelector(arguments[0]).focus()", ".row " + FORCE)
    window.type(".row " + FORCE, "\ue007")
    assert window.run("return document.activeElement.id") == "reason"
    window.type("#reason", " \ue007")
    window.wait_for("Say why", "#confirm-fault")
    window.type("#reason", "INC-42 by hand\ue007")
    window.wait_for("Force open: azure", "#done")
    assert window.run("return document.getElementById('confirm').open") is False


async def test_an_incident_from_the_first_sight_to_its_end(window: Browser, tmp_path: Path) -> None:
    async with incident(tmp_path) as url:
        await asyncio.to_thread(work_through_an_incident, window, url)


def look_at_every_size(window: Browser, url: str) -> None:
    unlock(window, url)
    window.wait_for("overloaded", "#errors", seconds=30)
    for width, height in SIZES.values():
        for dark in (False, True):
            window.look(width=width, height=height, dark=dark)
            assert window.run(OVERFLOW) <= 0, (width, dark)
            assert window.run(CONTRASTS) == [], (width, dark)
    assert window.run(NAMELESS) == []
    window.look(width=1280, height=800)
    assert window.run(MOVING) == 0
    window.look(width=1280, height=800, still=False)
    assert window.run(MOVING) > 0
    window.look(width=1280, height=800)


async def test_it_fits_and_can_be_read_at_every_size_dark_and_light(window: Browser, tmp_path: Path) -> None:
    async with incident(tmp_path) as url:
        await asyncio.to_thread(look_at_every_size, window, url)


def meet_hostile_texts(window: Browser, url: str) -> None:
    window.logs()
    unlock(window, url)
    for place in ("#providers", "#tenants", "#errors", "#events"):
        window.wait_for("<script>document.title='owned'</script>", place)
    assert "owned" not in window.run("return document.title")
    assert window.run("return document.querySelectorAll('img, script:not(body > script)').length") == 0
    assert window.logs() == []


async def test_texts_of_tenants_models_and_errors_are_texts(window: Browser) -> None:
    limits = {"GATEWAY_DEFAULT_REQUESTS": "100/minute"}
    async with Simulator().serve() as simulator:
        rule = {"behaviour": {"status": 503, "error_message": HOSTILE}}
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.post(f"{simulator.url}/control/behaviour", json=rule)).raise_for_status()
            settings = Settings.from_env(environment(simulator.url, GATEWAY_ADMIN_TOKEN=ADMIN, **limits))
            made = ways.gateway(settings, write_log=LogLines(), resolver=lambda _c, _s: Tenant(name=HOSTILE))
            async with made.lifespan(), serving(made, lifespan="off") as url:
                for number in range(6):
                    ask = {"model": f"openai/{HOSTILE}", "messages": [{"role": "user", "content": f"{number}"}]}
                    await client.post(f"{url}/v1/chat/completions", json=ask)
                await asyncio.to_thread(meet_hostile_texts, window, url)


def be_refused(window: Browser, url: str) -> None:
    unlock(window, url, "a-wrong-token-of-some-length")
    window.wait_for("does not open this endpoint", "#unlock-fault")
    assert window.run("return document.getElementById('token').value") == ""
    unlock(window, url, "t\u00f6ken")
    window.wait_for("visible ASCII", "#unlock-fault")


async def test_a_wrong_token_is_refused_and_forgotten(window: Browser) -> None:
    async with Simulator().serve() as simulator, gateway(simulator.url) as made, serving(made, lifespan="off") as url:
        await asyncio.to_thread(be_refused, window, url)


def work_below_a_prefix(window: Browser, url: str) -> None:
    unlock(window, url)
    window.wait_for("live")
    window.click('.row button[data-breaker="azure"][data-command="force-open"]')
    window.type("#reason", "below a prefix\ue007")
    window.wait_for("forced open", '#providers [data-key="azure"]')
    window.click("#lock")
    assert window.run("return document.getElementById('board').hidden")
    assert "azure" not in window.text()


async def test_it_works_below_a_mount_and_leaves_nothing_when_it_is_locked(window: Browser) -> None:
    async with Simulator().serve() as simulator, gateway(simulator.url) as made:
        app = Starlette()
        mount(app, "/platform/llm", made)
        async with serving(app, lifespan="off") as url:
            await asyncio.to_thread(work_below_a_prefix, window, f"{url}/platform/llm")


async def test_figures_that_are_old_say_so(window: Browser) -> None:
    async with Simulator().serve() as simulator, gateway(simulator.url) as made:
        async with serving(made, lifespan="off") as url:
            await asyncio.to_thread(unlock, window, url)
            await asyncio.to_thread(window.wait_for, "live")
        await asyncio.to_thread(window.wait_for, "no answer for")
        assert "openai" in await asyncio.to_thread(window.text, "#providers")
