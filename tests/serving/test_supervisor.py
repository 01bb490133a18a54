"""The supervisor with real processes, and workers that do what a test needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

BEGINNING = """
import json, os, signal, sys, time
from gateway_middleware.serving.supervisor import READY, Supervisor

def tell(event, /, *, level="info", message, **fields):
    print(json.dumps({"event": event, "level": level, "message": message, **fields}), flush=True)

def serve(control, is_replacement=False):
    control.send(READY)
    while word := control.recv(1):
        if word in b"dh":
            return 0
    return 0

"""


def start(work: str, *, size: int = 2, leave_seconds: float = 0.0) -> subprocess.Popen[str]:
    run = f"sys.exit(Supervisor(work, size={size}, tell=tell, leave_seconds={leave_seconds}).run())"
    script = f"{BEGINNING}{work}\n{run}"
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, _ = process.communicate(timeout=20)
    return [json.loads(line) for line in out.splitlines()]


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    assert process.stdout is not None
    for text in process.stdout:
        line: dict[str, Any] = json.loads(text)
        if line["event"] == event:
            return line
    raise AssertionError(f"it ended before {event}")


def test_workers_that_cannot_start_are_said_once_and_end_it() -> None:
    process = start("def work(control, is_replacement): return 3")
    said = lines(process)
    assert process.returncode == 1
    assert {line["event"] for line in said} == {"worker_failed"}
    assert "status 3" in said[0]["message"]
    assert 1 <= len(said) <= 2


IN_ANY_STEP = """
from itertools import count

def work(control, is_replacement):
    os.kill(os.getppid(), signal.SIGHUP)
    return serve(control)

def send_in_step(chosen):
    steps = count()

    def watch(frame, event, argument):
        if frame.f_code.co_name == "_handle_signals":
            frame.f_trace_opcodes = True
            if (event == "opcode" and next(steps) == chosen) or (event == "return" and next(steps) <= chosen):
                os.kill(os.getpid(), signal.SIGTERM)
            return watch

    return watch

for step in range(120):  # of taking the first signal, or at the end
    sys.settrace(send_in_step(step))
    Supervisor(work, size=1, tell=lambda *_, **__: None, leave_seconds=0.0).run()

def work(control, is_replacement):
    os.kill(os.getppid(), signal.SIGTERM)
    return serve(control)
"""


def test_a_signal_that_comes_while_another_is_taken_is_heard() -> None:
    process = start(IN_ANY_STEP)
    try:
        assert "stopping" in {line["event"] for line in lines(process)}
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0


# The first worker, which has tried out the configuration before.

FIRST = """
from gateway_middleware.serving.first_worker import Findings, FirstWorker

def work(control, is_replacement):
    tell("working", message=f"{os.getpid()}", first=first is None)
    return serve(control)

def prepare():
    tell("prepared", message=f"{os.getpid()}")
    return Findings(warnings=["mind this"])

first = None
first = FirstWorker(prepare, lambda control: work(control, False), tell=tell)
assert first.findings().warnings == ["mind this"]
"""


def start_with_first(before: str = "", *, size: int) -> subprocess.Popen[str]:
    run = f"sys.exit(Supervisor(work, size={size}, tell=tell, leave_seconds=0.0, first=first).run())"
    script = f"{BEGINNING}{FIRST}{before}\n{run}"
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_first_worker_is_the_one_that_has_prepared_and_is_replaced_like_others() -> None:
    process = start_with_first(size=2)
    prepared = wait_for(process, "prepared")["message"]
    wait_for(process, "serving")
    workers = {str(child.pid) for child in psutil.Process(process.pid).children()}
    assert prepared in workers
    assert len(workers) == 2
    os.kill(int(prepared), signal.SIGKILL)
    assert str(wait_for(process, "worker_died")["pid"]) == prepared
    assert wait_for(process, "working")["message"] not in workers
    process.send_signal(signal.SIGTERM)
    lines(process)
    assert process.returncode == 0


def test_a_first_worker_that_dies_before_it_begins_ends_the_server() -> None:
    process = start_with_first("os.kill(first.pid, signal.SIGKILL); time.sleep(0.1)", size=1)
    events = [line["event"] for line in lines(process)]
    assert events == ["prepared", "worker_failed"]
    assert process.returncode == 1


def test_a_parent_that_is_killed_takes_a_first_worker_with_it_that_has_not_begun() -> None:
    process = start_with_first("time.sleep(60)", size=1)
    (worker,) = [psutil.Process(int(wait_for(process, "prepared")["message"]))]
    process.kill()
    process.communicate()
    assert psutil.wait_procs([worker], timeout=5)[1] == []


@pytest.mark.parametrize(
    ("prepare", "status", "output"),
    [
        ("return Findings(complaints=['no', 'never'])", 3, "no,never\n"),
        ("raise ValueError('x')", 1, "worker_fault"),
        ("os._exit(9)", 1, ""),
    ],
)
def test_what_is_refused_or_fails_in_the_trial_begins_nothing(prepare: str, status: int, output: str) -> None:
    script = f"""{BEGINNING}
from gateway_middleware.serving.first_worker import Findings, FirstWorker

def prepare():
    {prepare}

complaints = FirstWorker(prepare, serve, tell=tell).findings().complaints
print(",".join(complaints))
sys.exit(3)
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=20)
    assert process.returncode == status
    assert output in process.stdout
    assert process.stderr == ""


def test_a_fault_in_a_worker_never_runs_the_parents_code() -> None:
    process = start("def work(control, is_replacement): raise ValueError('x')", size=1)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert out.count("Traceback") == 1
    assert "status 70" in out


def test_a_worker_that_exits_by_itself_is_replaced_until_the_end() -> None:
    process = start("work = serve")
    wait_for(process, "serving")
    victim = psutil.Process(process.pid).children()[0].pid
    os.kill(victim, signal.SIGSEGV)
    assert "SIGSEGV" in wait_for(process, "worker_died")["message"]
    process.send_signal(signal.SIGTERM)
    assert lines(process)[0]["event"] in {"serving", "stopping"}
    assert process.returncode == 0


def test_a_worker_that_does_not_leave_is_killed() -> None:
    """It may wait for so long, and has two seconds for the rest. A second signal skips the waiting."""
    work = "def work(control, is_replacement):\n    control.send(READY)\n    while True: time.sleep(60)"
    for waits, signals in [(0.5, 1), (60.0, 2)]:
        process = start(work, size=1, leave_seconds=waits)
        wait_for(process, "serving")
        began = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        events = [line["event"] for line in lines(process)]
        assert time.monotonic() - began < 0.5 + 2.0
        assert events == ["stopping"] * signals + ["worker_killed"]
        assert process.returncode == 0


def test_orphans_of_others_are_reaped_as_by_process_one() -> None:
    adopt = "import ctypes\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"  # PR_SET_CHILD_SUBREAPER
    child = "if os.fork() == 0:\n        time.sleep(0.2)\n        os._exit(0)"
    work = f"def work(control, is_replacement):\n    {child}\n    return serve(control)"
    process = start(adopt + work, size=1)
    wait_for(process, "serving")
    worker = psutil.Process(process.pid).children()[0]
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(process, "worker_died")
    psutil.wait_procs(psutil.Process(process.pid).children(recursive=True), timeout=1)
    statuses = [child.status() for child in psutil.Process(process.pid).children()]
    assert psutil.STATUS_ZOMBIE not in statuses
    process.send_signal(signal.SIGINT)
    lines(process)
    assert process.returncode == 0


SILENT = """
def work(control, is_replacement):
    control.send(READY)
    while word := control.recv(1):
        if word in b"dh":
            return 0
"""


def test_a_worker_that_does_not_answer_a_reload_holds_no_signal_back() -> None:
    process = start(SILENT)
    wait_for(process, "serving")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert [line["event"] for line in lines(process)] == ["stopping"]  # within 20 seconds: a reload has 30


def test_a_dead_worker_is_replaced_while_another_one_does_not_answer_a_reload() -> None:
    process = start(SILENT)
    wait_for(process, "serving")
    process.send_signal(signal.SIGHUP)
    first, second = sorted(child.pid for child in psutil.Process(process.pid).children())
    os.kill(second, signal.SIGKILL)
    assert wait_for(process, "worker_died")["pid"] == second
    process.send_signal(signal.SIGTERM)
    lines(process)
    assert first != second
    assert process.returncode == 0


def test_a_worker_that_becomes_ready_during_a_reload_has_not_refused_it() -> None:
    """Its first word is no answer: that comes after it."""
    process = start("""
def work(control, is_replacement):
    time.sleep(0.5)
    control.send(READY)
    while word := control.recv(1):
        if word == b"r":
            control.send(b"t")
            os.write(1, b'{"event": "taken"}\\n')
        elif word in b"dh":
            return 0
""")
    workers = wait_for_children(process, 2)
    process.send_signal(signal.SIGHUP)
    events = [wait_for(process, "taken")["event"] for _ in workers]
    process.send_signal(signal.SIGTERM)
    assert {line["event"] for line in lines(process)} <= {"serving", "stopping"}
    assert events == ["taken", "taken"]


def wait_for_children(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    while len(children := psutil.Process(process.pid).children()) < count:
        time.sleep(0.01)
    return children


def test_a_hangup_of_the_whole_group_ends_no_worker() -> None:
    """The end of a terminal, or `pkill -HUP`, reaches the workers as well."""
    process = start("work = serve")
    wait_for(process, "serving")
    workers = psutil.Process(process.pid).children()
    for worker in workers:
        worker.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert [line["event"] for line in lines(process)] == ["stopping"]


def test_further_signals_do_not_put_off_the_end() -> None:
    process = start(
        "def work(control, is_replacement):\n    control.send(READY)\n    while True: time.sleep(60)", size=1
    )
    wait_for(process, "serving")
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 15:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert process.poll() == 0
    lines(process)
