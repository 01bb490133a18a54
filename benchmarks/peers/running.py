"""A peer as a process pinned to the server's core, from its start to its end with all its children."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers.environments import last_line
from benchmarks.peers.known import Launch
from benchmarks.servers import KEY, SERVER_CORE, Server, end
from benchmarks.wrk import Job


class PeerError(Exception):
    """A peer does not answer as it should."""


class NotStartedError(PeerError):
    """A peer gives no good answer at all."""


@dataclass(frozen=True)
class Wait:
    """How long a peer may take to answer, and how long to answer with errors before it is ready; in seconds."""

    for_answer: float = 180.0
    for_good_answer: float = 10.0


@dataclass(frozen=True)
class Running:
    """A peer that has answered: `seconds` after it was started."""

    server: Server
    job: Job
    seconds: float


@contextlib.contextmanager
def running(
    name: str, launch: Launch, port: int, folder: Path, *, body: str, core: str = SERVER_CORE, wait: Wait = Wait()
) -> Iterator[Running]:
    """Run a peer until the block ends; NotStartedError if it gives no good answer in time."""
    job = Job(path=launch.path, models=(launch.model,), headers=launch.headers, body=body)
    log = folder / "log"
    began = time.monotonic()
    with log.open("wb") as out:
        child = subprocess.Popen(
            ["taskset", "-c", core, *launch.command],
            env=variables(folder, launch.variables), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        listening = _first_answer(child, launch, job, port=port, log=log, wait=wait)
        yield Running(Server(name, listening, child.pid), job, time.monotonic() - began)
    finally:
        end(child, seconds=10)


def variables(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """What a peer finds in its environment: no keys, no paths and no proxy of whoever measures."""
    here = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1"}
    return {**here, **more}


def _first_answer(child: subprocess.Popen[bytes], launch: Launch, job: Job, *, port: int, log: Path, wait: Wait) -> int:
    """Ask until an answer is good; the port that gave it."""
    said, until = "", time.monotonic() + wait.for_answer
    while time.monotonic() < until:
        if child.poll() is not None:
            raise NotStartedError(f"ended with {child.returncode}: {last_line(log.read_text(errors='replace'))}")
        listening = port if launch.address is None else _port_in(launch.address)
        if listening is not None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, text = ask(listening, job)
                if status == 200:
                    return listening
                until = until if said else min(until, time.monotonic() + wait.for_good_answer)
                said = f"answers {status}: {last_line(text)}"
        time.sleep(0.02)
    raise NotStartedError(said or "does not answer")


def _port_in(address: Path) -> int | None:
    """The port of the URL in a file, once it is there."""
    return urlsplit(address.read_text()).port if address.exists() else None


def ask(port: int, job: Job, *, key: str = KEY) -> tuple[int, str]:
    """One call as the load makes it, on a connection of its own: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", **job.headers}
    try:
        connection.request("POST", job.path, job.body.replace("@MODEL@", job.models[0]), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def events_of(text: str) -> int:
    """How many events of a stream are JSON."""
    return sum(line.startswith("data: {") for line in text.splitlines())
