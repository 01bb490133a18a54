"""Every drill is played as the on-call plays it, and keeps what the runbook promises; a broken promise is status 1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway_middleware.commands.drill import DRILLS, module_of
from gateway_middleware.commands.drill.story import Story

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
_SECONDS = 90
"""Thirty on a machine of its own; this one may be shared."""


def play(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway_middleware", "drill", name],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", DRILLS)
def test_a_drill_keeps_its_promises(name: str) -> None:
    done = play(name, GATEWAY_PORT="1", OPENAI_API_KEY="sk-of-the-shell")  # of the caller's shell: not for the drill
    assert done.returncode == 0, done.stdout + done.stderr
    kept = re.search(r": (\d+) of (\d+) promises kept, [\d.]+ s$", done.stdout)
    assert kept
    assert kept[1] == kept[2] != "0"
    assert "$ " in done.stdout, "what the on-call types"
    assert done.stderr == ""


def test_what_a_machine_lacks_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = play("redis-outage", PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "drill redis-outage: redis-server is not installed\n")


def test_a_broken_promise_is_counted_and_shown() -> None:
    written: list[str] = []
    story = Story(written.append, clock=iter([0.0, 2.5]).__next__)
    story.scene("Something happens")
    story.shell("curl $GW", {"state": "x" * 500})
    story.promise("it holds", True, 3)
    story.promise("it holds too", False, "4 s")
    assert (story.promises, story.broken) == (2, ["it holds too: 4 s"])
    assert written[0] == "\n1. Something happens  (2.5 s)"
    assert written[1:2] + written[3:] == ["   $ curl $GW", "   [kept] it holds: 3", "   [BROKEN] it holds too: 4 s"]
    assert len(written[2]) < 160


def test_processes_end_with_a_drill_that_is_stopped() -> None:
    command = [sys.executable, "-m", "gateway_middleware", "drill", "flapping"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while b"1. " not in (line := process.stdout.readline()):
            assert line, process.stderr.read().decode()
        process.terminate()
        process.communicate(timeout=30)
    end = time.monotonic() + 10
    while group_lives(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not group_lives(process.pid)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def anchors() -> set[str]:
    headings = re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_drill_has_its_section_and_every_section_its_drill() -> None:
    assert {module_of(name).SECTION for name in DRILLS} <= anchors()
    assert set(re.findall(r"`model-gateway drill ([a-z-]+)`", RUNBOOK)) == {*DRILLS, "all"}


def test_every_section_of_an_incident_ends_with_escalation_and_related_services() -> None:
    sections = RUNBOOK.split("\n## ")[2:]
    incidents = [section for section in sections if "**Drill.**" in section]
    assert len(incidents) >= 8
    for section in incidents:
        assert re.search(r"\*\*Escalation\.\*\* .+\n?.*\*\*Related services\.\*\* \S", section), section.splitlines()[0]
