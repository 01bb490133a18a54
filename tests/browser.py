"""A real Chromium, driven by the W3C WebDriver protocol (https://www.w3.org/TR/webdriver2/) of its `chromedriver`."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from redis_process import free_port

IS_THERE = shutil.which("chromium") is not None and shutil.which("chromedriver") is not None
ABSENT = "needs Chromium (Debian: apt-get install chromium chromium-driver)"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_ARGUMENTS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """One window. Waits look again until their time is over, and then raise `AssertionError`."""

    def __init__(self, driver: httpx.Client, session: str) -> None:
        self._driver = driver
        self._session = session

    def _post(self, path: str, body: Any = None) -> Any:
        answer = self._driver.post(self._session + path, json=body or {})
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def open(self, url: str) -> None:
        self._post("/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function returns in the page. Commands of WebDriver are not bound by the page's CSP."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look(self, *, width: int, height: int, dark: bool = False, still: bool = True) -> None:
        """Take this size and these preferences."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def find(self, selector: str) -> str:
        return str(self._post("/element", {"using": "css selector", "value": selector})[_ELEMENT])

    def type(self, selector: str, text: str) -> None:
        self._post(f"/element/{self.find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._post(f"/element/{self.find(selector)}/click")

    def text(self, selector: str = "body") -> str:
        """What a reader sees of an element."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def wait_for(self, text: str, selector: str = "body", *, seconds: float = 10.0) -> str:
        """Until an element shows this text; what it shows."""
        shown, until = "", time.monotonic() + seconds
        while time.monotonic() < until:
            shown = self.text(selector)
            if text in shown:
                return shown
            time.sleep(0.05)
        raise AssertionError(f"no {text!r} in {selector}: {shown!r}")

    def logs(self) -> list[dict[str, Any]]:
        """What the page has written to the console since the last time, violations of its policy included."""
        value: list[dict[str, Any]] = self._post("/se/log", {"type": "browser"})
        return value


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile, until the end of the block."""
    port = free_port()
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            path = f"/session/{_session(client, folder)}"
            try:
                yield Browser(client, path)
            finally:
                assert client.delete(path).status_code == 200, "the browser would stay behind"
    finally:
        driver.terminate()
        driver.wait(timeout=10)


def _session(client: httpx.Client, folder: Path) -> str:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    options = {"binary": shutil.which("chromium"), "args": [*_ARGUMENTS, *sandbox, f"--user-data-dir={folder}"]}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    until = time.monotonic() + 20
    while True:
        try:
            answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}, timeout=60)
            break
        except httpx.ConnectError:
            assert time.monotonic() < until, "chromedriver does not listen"
            time.sleep(0.05)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["value"]["sessionId"])
