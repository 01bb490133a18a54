"""Files of the configuration are taken when they have changed and rest: the decision, and the part on real files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware import Gateway, Settings
from gateway_middleware.composition.watch import Look, Resting
from gateway_middleware.core.clocks import Clocks
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings.files import FileVersion, version_of
from running import LogLines

pytestmark = pytest.mark.anyio


def version(number: int) -> list[FileVersion]:
    return [FileVersion("f", "f", (number, 0, 0, 0))]


@pytest.mark.parametrize(
    ("seen", "looks"),
    [
        ([1, 1, 1], [Look.NOTHING] * 3),
        ([2, 2], [Look.AGAIN, Look.RELOAD]),
        ([2, 3, 4, 4], [Look.AGAIN, Look.AGAIN, Look.AGAIN, Look.RELOAD]),
        ([2, 1, 1], [Look.AGAIN, Look.NOTHING, Look.NOTHING]),
        ([1, 2, 2], [Look.NOTHING, Look.AGAIN, Look.RELOAD]),
    ],
)
def test_a_change_is_read_when_two_looks_saw_the_same(seen: list[int], looks: list[Look]) -> None:
    resting = Resting()
    assert [resting.look(version(number), version(1)) for number in seen] == looks


def test_a_version_follows_links_and_knows_absence(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("same")
    link = tmp_path / "..data"
    link.symlink_to("one")
    path = str(link / "f")
    before = version_of(path)
    assert version_of(path) == before
    swap(tmp_path, "two")
    assert version_of(path) != before
    assert version_of(str(tmp_path / "none")).state is None
    assert version_of("\0").state is None


def swap(folder: Path, name: str) -> None:
    """As the kubelet does: a new link is renamed over `..data`."""
    (folder / "..data_tmp").symlink_to(name)
    (folder / "..data_tmp").rename(folder / "..data")


class Watched:
    """A gateway whose configuration is a file with a secret in another; each `step` is one look of its watch."""

    def __init__(self, folder: Path) -> None:
        self.file, self.secret = folder / "gateway.toml", folder / "key"
        self.environment = {"GATEWAY_CONFIG_FILE": str(self.file), "GATEWAY_JOURNAL": "off", "GATEWAY_OPEN": "true"}
        self.log = LogLines()
        self.fault: Exception | None = None
        self.pauses: list[float] = []
        self._turn = asyncio.Semaphore(0)
        self._idle = asyncio.Event()
        self.secret.write_text("sk-the-first-secret")
        self.route("openai/one")
        self.gateway = self._make()

    def route(self, target: str) -> None:
        self.file.write_text(f'openai_api_key = "file:{self.secret}"\n[routes]\nfast = ["{target}"]\n')

    def _make(self) -> Gateway:
        return Gateway(
            Settings.from_env(self.environment),
            reread=self._reread,
            write_log=self.log,
            clocks=Clocks(sleep=self._sleep),
        )

    def _reread(self) -> Settings:
        if self.fault is not None:
            raise self.fault
        return Settings.from_env(self.environment)

    async def _sleep(self, seconds: float) -> None:
        """The watch waits here; other parts wait for ever."""
        task = asyncio.current_task()
        if task is None or task.get_name() != "model-gateway-watch":
            await asyncio.Event().wait()
        self.pauses.append(seconds)
        self._idle.set()
        await self._turn.acquire()

    async def step(self, looks: int = 1) -> None:
        for _ in range(looks):
            await self._idle.wait()
            self._idle.clear()
            self._turn.release()
            await self._idle.wait()

    def lines(self, event: str) -> list[dict[str, Any]]:
        self.gateway.log.lines.flush()
        return [line for line in map(json.loads, self.log.raw.splitlines()) if line["event"] == event]

    @property
    def target(self) -> str:
        return self.gateway.settings.routes[0].deployments[0].deployment.key

    @property
    def key(self) -> str:
        return self.gateway.settings.providers[0].api_key.reveal()


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    rig = Watched(folder)
    async with rig.gateway.lifespan():
        yield rig


async def test_file_and_secret_are_taken_and_said(tmp_path: Path) -> None:
    async with watched(tmp_path) as rig:
        await rig.step(2)
        assert rig.lines("audit") == []
        rig.route("openai/two")
        await rig.step()
        assert rig.target == "openai/one", "it may still be written"
        await rig.step()
        assert rig.target == "openai/two"
        assert rig.pauses[:4] == [2.0, 2.0, 2.0, 0.5]
        rig.secret.write_text("sk-the-second-secret")
        await rig.step(2)
        assert rig.key == "sk-the-second-secret"
        first, second = rig.lines("audit")
        assert (first["client"], first["changed"], second["changed"]) == ("file watch", "routes", "providers")
        assert b"second-secret" not in rig.log.raw
        await rig.step(3)
        assert len(rig.lines("audit")) == 2


async def test_half_a_file_is_told_once_and_changes_nothing(tmp_path: Path) -> None:
    async with watched(tmp_path) as rig:
        rig.file.write_text("[routes")
        await rig.step(6)
        (line,) = rig.lines("reload_failed")
        assert "expected TOML" in line["message"]
        assert rig.target == "openai/one"
        rig.route("openai/two")
        await rig.step(2)
        assert rig.target == "openai/two"


async def test_a_secret_that_a_refused_file_waits_for_is_watched_too(tmp_path: Path) -> None:
    async with watched(tmp_path) as rig:
        late = tmp_path / "late"
        rig.file.write_text(rig.file.read_text().replace(str(rig.secret), str(late)))
        await rig.step(4)
        assert len(rig.lines("reload_failed")) == 1
        late.write_text("sk-that-came-late")
        await rig.step(2)
        assert rig.key == "sk-that-came-late"


async def test_a_file_that_goes_changes_nothing_until_it_is_back(tmp_path: Path) -> None:
    async with watched(tmp_path) as rig:
        rig.secret.unlink()
        await rig.step(3)
        assert rig.key == "sk-the-first-secret"
        assert len(rig.lines("reload_failed")) == 1
        rig.secret.write_text("sk-that-is-back")
        await rig.step(2)
        assert rig.key == "sk-that-is-back"


async def test_who_was_asked_before_does_not_read_twice(tmp_path: Path) -> None:
    async with watched(tmp_path) as rig:
        rig.route("openai/two")
        rig.gateway.operations.reload_on_signal()
        await rig.step(3)
        assert [line["client"] for line in rig.lines("audit")] == ["SIGHUP"]
        rig.file.write_text("[routes")
        rig.gateway.operations.reload_on_signal()
        await rig.step(3)
        assert len(rig.lines("reload_failed")) == 1


async def test_what_goes_wrong_in_a_reload_does_not_end_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path) as rig:
        rig.fault = RuntimeError("the host's own reader is broken")
        rig.file.touch()
        await rig.step(2)
        assert "could not be looked at" in caplog.text
        rig.fault = None
        rig.environment["GATEWAY_PORT"] = "1"
        rig.file.touch()
        await rig.step(2)
        assert rig.lines("audit")[-1]["need_restart"] == "port"


@pytest.mark.parametrize("seconds", ["0", "2"])
async def test_nothing_is_watched_without_files_or_with_0(seconds: str, tmp_path: Path) -> None:
    environment = {"OPENAI_API_KEY": "sk-plain", "GATEWAY_OPEN": "true", "GATEWAY_JOURNAL": "off"}
    if seconds == "0":
        (tmp_path / "key").write_text("sk-in-a-file")
        environment |= {"OPENAI_API_KEY": f"file:{tmp_path / 'key'}"}
    settings = Settings.from_env(environment | {"GATEWAY_WATCH_SECONDS": seconds})
    gateway = Gateway(settings, reread=lambda: settings, write_log=LogLines())
    async with gateway.lifespan():
        assert "model-gateway-watch" not in {task.get_name() for task in asyncio.all_tasks()}


def test_settings_name_every_file_they_were_read_from(tmp_path: Path) -> None:
    config, secret = tmp_path / "g.toml", tmp_path / "key"
    config.write_text(f'openai_api_key = "file:{secret}"\n')
    environment = {"GATEWAY_CONFIG_FILE": str(config), "GATEWAY_OPEN": "true"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environment)
    assert [file.path for file in caught.value.files] == [str(config), str(secret)]
    secret.write_text("sk-of-a-file")
    settings = Settings.from_env(environment)
    assert settings.files == (version_of(str(config)), version_of(str(secret)))
    secret.touch()
    assert Settings.from_env(environment).config_hash == settings.config_hash
