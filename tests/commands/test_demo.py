"""The demo as a new user meets it: what it prints is pasted into a shell as it stands, and nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOREIGN = ("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_")
END = "Press Ctrl-C to stop. One line for each call follows."


@contextlib.contextmanager
def demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    with subprocess.Popen(
        [sys.executable, "-m", "gateway_middleware", "demo", *options], env=environment | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def printed(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines = []
    while (line := process.stdout.readline()) and END not in line:
        lines.append(line)
    return "".join(lines)


def blocks(text: str) -> list[str]:
    """What is meant to be pasted: from a line that begins a command to the next empty line."""
    paragraphs = text.split("\n\n")
    return [p for p in paragraphs if p.startswith("curl -s") or "<<'END'" in p]


def pasted(block: str) -> str:
    done = subprocess.run(["bash", "-c", block], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), block
    return done.stdout


def test_what_is_printed_after_the_tour_can_be_pasted(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0", "--tour") as process:
        text = printed(process)
        tour, _, log = text.partition("── What the gateway logged of it")
        assert '"event":"call"' not in tour
        assert log.count('"event":"call"') == tour.count("   ← ")
        assert text.index("End of the tour") < text.index("key  ") < text.index("second terminal")
        answer, stream, ours, theirs = [pasted(block) for block in blocks(text)]
        assert "Hello!" in json.loads(answer)["choices"][0]["message"]["content"]
        assert stream.rstrip().endswith("data: [DONE]")
        assert "Hello!" in ours
        assert "Hello!" in theirs
        assert f"{sys.executable} -m pip install -q openai anthropic\n" in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_tour_that_is_stopped_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0", "--tour") as process:
        assert process.stdout is not None
        assert "listening on http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_one_helpful_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken_port = str(taken.getsockname()[1])
        with demo(tmp_path, "--port", taken_port) as process:
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors == (
        f"GATEWAY_PORT: cannot listen on 127.0.0.1:{taken_port}: Address already in use; "
        "expected a free port (--port), or 0 for any\n"
    )
    assert list(tmp_path.iterdir()) == []
