"""A disk of one megabyte that others fill: calls are refused, none is lost, and all goes on when there is room again.

The disk is a tmpfs in a mount namespace of its own. Where none may be made, `test_journal.py` and `test_turns.py` have
the same with a limit on the size of files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = shutil.which("unshare")
PRELUDE = """
import os
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.state import JournalUnavailableError
from journaled import call, event, spooled

disk = Path(sys.argv[1])
path, filler = disk / "usage.db", disk / "filler"

def fill():
    with filler.open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass

def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def is_refused(journal):
    try:
        journal.open(call("late"))
    except JournalUnavailableError:
        return True

@contextmanager
def running():
    journal = Journal(path, commit_delay=0.001)
    journal.start()
    yield journal
    assert journal.stop()

def outcomes():
    return Counter(event.outcome for event in spooled(path))
"""


def run(folder: Path, script: str) -> None:
    """Run a script with a disk of its own. It says `done` at its end."""
    if UNSHARE is None or subprocess.run([UNSHARE, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace may be made here")
    file = folder / "script.py"
    file.write_text(PRELUDE + script + "\nprint('done')\n")
    mounted = f'mount -t tmpfs -o size=1m tmpfs "$1" && exec {sys.executable} "$2" "$1"'
    disk = folder / "disk"
    disk.mkdir()
    tests = Path(__file__).parents[1]
    ended = subprocess.run(
        [UNSHARE, "-rm", "sh", "-c", mounted, "sh", str(disk), str(file)],
        env={"PYTHONPATH": f"{tests}:{tests.parent / 'src'}"}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.stdout == b"done\n", ended.stderr.decode()


def test_filled_while_calls_are_under_way(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
with running() as journal:
    for number in range(20):
        journal.open(call(f"{number}"))
    fill()
    for number in range(10):
        journal.close(event(f"{number}", raw=b'"' + b"x" * 3000 + b'"'))
    assert is_refused(journal)
    assert journal.state.status == "unavailable"
    filler.unlink()
    until(lambda: not journal.is_degraded)
    for number in range(10, 20):
        journal.close(event(f"{number}"))
assert outcomes() == {"success": 20}
""",
    )


def test_filled_by_its_own_events(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
with running() as journal:
    closed = 0
    while journal.state.status != "unavailable":
        try:
            journal.open(call(f"{closed}"))
        except JournalUnavailableError:
            break
        journal.close(event(f"{closed}", raw=b'"' + b"x" * 3000 + b'"'))
        closed += 1
    assert closed > 100
    until(lambda: journal.state.status == "unavailable")
    os.system(f"mount -o remount,size=16m {disk}")
    until(lambda: not journal.is_degraded)
    journal.open(call("after"))
    journal.close(event("after"))
assert outcomes() == {"success": closed + 1}
""",
    )


def test_full_from_the_start_with_what_a_dead_process_left(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
child = os.fork()
if not child:
    journal = Journal(path, commit_delay=60.0)
    journal.start()
    for number in range(20):
        journal.open(call(f"{number}"))
    for number in range(10):
        journal.close(event(f"{number}"))
    os.kill(os.getpid(), 9)
os.waitpid(child, 0)
fill()
with running() as journal:
    assert is_refused(journal)
    filler.unlink()
    until(lambda: not journal.is_degraded)
    journal.adopt()
    journal.open(call("after"))
    journal.close(event("after"))
assert outcomes() == {"success": 11, "gateway_crash": 10}
""",
    )


def test_stopped_while_it_is_full(tmp_path: Path) -> None:
    """What has ended and has nowhere to go is estimated by the next process from its entry, as after a crash."""
    run(
        tmp_path,
        """
journal = Journal(path, commit_delay=0.001)
journal.start()
for number in range(20):
    journal.open(call(f"{number}"))
fill()
for number in range(10):
    journal.close(event(f"{number}", raw=b'"' + b"x" * 3000 + b'"'))
assert not journal.stop()
assert not journal.stop()
filler.unlink()
with running() as journal:
    pass
assert outcomes() == {"gateway_crash": 20}
""",
    )
