"""`python -m benchmarks peers`: what cannot be had is a row that says so, and nothing is left running."""

import json
import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.peers import running, tables
from benchmarks.peers.environments import Environment, InstallError, Package, environment, last_line, run_command
from benchmarks.peers.known import FEATURES, PEERS, Launch, Peer, Setup
from benchmarks.peers.measuring import MEASURES, START, TITLES, Course, Result, seconds_for
from benchmarks.servers import KEY, Server, free_port
from benchmarks.wrk import BODY, STREAM_BODY

_CORE = str(min(os.sched_getaffinity(0)))

# Installing


class Commands:
    """Stands for pip, npm and venv: remembers what is run, and fails where a word of `fails` is in it."""

    def __init__(self, *fails: str) -> None:
        self.made: list[str] = []
        self._fails = list(fails)

    def __call__(self, command: Sequence[str]) -> str:
        line = " ".join(command)
        self.made.append(line)
        if any(word in line for word in self._fails):
            raise InstallError("pip: no matching distribution")
        if "venv" in line:
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin" / "python").touch()
        if command[0] == "npm":
            manifest = Path(command[3]) / "node_modules" / command[-1] / "package.json"
            manifest.parent.mkdir(parents=True)
            manifest.write_text('{"version": "1.15.2"}')
        return "0.1.0\n"


def test_a_python_package_is_installed_once(tmp_path: Path) -> None:
    run, folder = Commands(), tmp_path / "rolter"
    assert environment(folder, Package("rolter", "[all]"), run) == Environment(folder, "0.1.0")
    assert [line.split()[2] for line in run.made] == ["venv", "pip", "import"]
    assert run.made[1].endswith(" rolter[all]")
    again = Commands()
    assert environment(folder, Package("rolter"), again).version == "0.1.0"
    assert len(again.made) == 1


def test_what_an_installation_that_failed_has_left_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "smg"
    with pytest.raises(InstallError, match="no matching distribution"):
        environment(folder, Package("smg"), Commands("pip install", "-m pip"))
    run = Commands("metadata")
    with pytest.raises(InstallError):
        environment(folder, Package("smg"), run)
    assert any("-m pip install" in line for line in run.made)
    assert not any("venv" in line for line in run.made)


@pytest.mark.parametrize("here", [True, False])
def test_a_package_of_npm_needs_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, here: bool) -> None:
    if here:
        (tmp_path / "node").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    package, run = Package("@portkey-ai/gateway", from_npm=True), Commands()
    if not here:
        with pytest.raises(InstallError, match="node is not installed"):
            environment(tmp_path / "portkey", package, run)
        return
    for _ in range(2):
        assert environment(tmp_path / "portkey", package, run).version == "1.15.2"
    assert len(run.made) == 1


def test_a_command_that_fails_or_is_not_there_says_its_last_line() -> None:
    assert run_command([sys.executable, "-c", "print(1)"]) == "1\n"
    with pytest.raises(InstallError, match=r"python.*: two$"):
        run_command([sys.executable, "-c", "import sys; sys.exit('one\\ntwo')"])
    with pytest.raises(InstallError, match="no-such-program: FileNotFoundError"):
        run_command(["/no-such-program"])


@pytest.mark.parametrize(("text", "line"), [("", "it said nothing"), ("a\n b \n\n", "b"), ("x" * 300, "x" * 160)])
def test_the_last_line_is_short(text: str, line: str) -> None:
    assert last_line(text) == line


def test_peers_that_cannot_be_installed_are_told_apart(tmp_path: Path) -> None:
    out = peers.install([PEERS["rolter"], PEERS["smg"]], tmp_path, Commands("version-check smg"))
    assert isinstance(out["rolter"], Environment)
    assert isinstance(out["smg"], InstallError)


def test_the_folder_of_environments_is_kept_only_where_it_is_given(tmp_path: Path) -> None:
    with peers.folder(tmp_path / "kept") as kept, peers.folder(None) as made:
        assert kept == tmp_path / "kept"
        assert made.is_dir()
    assert kept.is_dir()
    assert not made.exists()


# Starting


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_each_is_configured_for_its_port_and_provider_and_has_known_features(peer: Peer, tmp_path: Path) -> None:
    launch = peer.launch(Setup(tmp_path / "environment", tmp_path, 4321, "http://127.0.0.1:1234/chat"))
    files = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    everything = "\n".join([*launch.command, *launch.headers.values(), *files.values()])
    assert "http://127.0.0.1:1234/chat" in everything
    assert ("4321" in everything) is (launch.address is None)
    assert set(peer.on) <= set(FEATURES)
    assert (KEY in everything) is ("key" in peer.on)
    for name, text in files.items():
        if name.endswith(".toml"):
            tomllib.loads(text)
        elif name.endswith(".yaml"):
            json.loads(text)
        else:
            compile(text, name, "exec")


_ANSWERS = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
refuse = int(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global refuse
        refuse -= 1
        self.rfile.read(int(self.headers["content-length"]))
        body = b'data: {"a": 1}\\n\\ndata: [DONE]\\n\\n'
        good = self.headers["x-more"] == "1" and self.headers["authorization"] != "Bearer sk-wrong"
        self.send_response(503 if refuse >= 0 else 200 if good else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
open("address", "w").write(f"http://127.0.0.1:{server.server_port}/v1")
server.serve_forever()
"""


def _launch(folder: Path, port: int, *, refuse: int = 0, has_address: bool = False) -> Launch:
    (folder / "server.py").write_text(_ANSWERS)
    address = folder / "address" if has_address else None
    command = [sys.executable, "server.py", str(0 if has_address else port), str(refuse)]
    return Launch(command, headers={"x-more": "1"}, address=address)


@pytest.mark.parametrize("has_address", [False, True])
def test_a_peer_is_asked_until_it_answers_and_ends_with_its_children(tmp_path: Path, *, has_address: bool) -> None:
    port = free_port()
    launch = _launch(tmp_path, port, refuse=2, has_address=has_address)
    with running.running("fake", launch, port, tmp_path, body=STREAM_BODY, core=_CORE) as found:
        family = [psutil.Process(pid) for pid in found.server.pids()]
        assert (found.server.port == port) is not has_address
        assert found.job.models == ("bench",)
        status, text = running.ask(found.server.port, found.job)
        assert (status, running.events_of(text)) == (200, 1)
        assert running.ask(found.server.port, found.job, key="sk-wrong")[0] == 401
    assert len(family) == 2
    assert not any(one.is_running() for one in family)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; print('starting', flush=True); sys.exit('no such option')", "ended with 1: no such option"),
        ("import time; time.sleep(600)", "does not answer"),
    ],
)
def test_a_peer_that_ends_or_is_silent_says_so(tmp_path: Path, program: str, said: str) -> None:
    launch = Launch([sys.executable, "-c", program])
    with pytest.raises(running.PeerError, match=said):
        with running.running("fake", launch, free_port(), tmp_path, body=BODY, core=_CORE, wait=running.Wait(3)):
            raise AssertionError


def test_a_peer_that_answers_with_errors_only_is_not_waited_for_long(tmp_path: Path) -> None:
    port = free_port()
    launch = _launch(tmp_path, port, refuse=10**6)
    with pytest.raises(running.PeerError, match=r"answers 503: data: \[DONE\]"):
        with running.running("fake", launch, port, tmp_path, body=BODY, core=_CORE, wait=running.Wait(60, 0.2)):
            raise AssertionError


def test_a_peer_finds_no_keys_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.setenv("PYTHONPATH", "src")
    assert set(running.variables(tmp_path, {"MORE": "1"})) == {"PATH", "HOME", "LANG", "NO_PROXY", "MORE"}


# Measuring and telling


def test_a_peer_that_does_not_start_is_a_result_that_says_so(tmp_path: Path) -> None:
    nothing = Server("nothing", 9, os.getpid())
    course = Course(Bench(nothing, nothing, 1, 1), nothing, 0.5)
    peer = Peer("fake", Package("fake"), lambda setup: Launch([sys.executable, "-c", "raise SystemExit('no licence')"]))
    result = course.result(peer, Environment(tmp_path, "1.0"))
    assert (result.version, result.rounds) == ("1.0", {})
    assert result.troubles == ["chat: ended with 1: no licence"]


_NGINX_ROUND = {measure.title: [(10.0, 100.0, 1_000.0), (20.0, 100.0, 3_000.0)] for measure in MEASURES}
_WHOLE = Result(PEERS["litellm"], "1.2.3", _NGINX_ROUND | {START: [(None, 0.5, 5.0)]})
_PART = Result(PEERS["portkey"], "1.15.2", {MEASURES[0].title: [(10.0, 100.0, 250.0)]}, ["burst: answers 500: <a|b>"])
_NONE = peers.result_of(None, PEERS["smg"], InstallError("pip: no matching distribution"))  # type: ignore[arg-type]


def test_medians_of_all_sides_stand_in_the_first_table() -> None:
    head, nginx, ours, *rest = tables.values([_WHOLE, _PART, _NONE])
    assert head[1:] == list(TITLES)
    assert (nginx[1], nginx[-1]) == ("10", "-")
    assert (ours[1], ours[-1]) == ("100", "0.50")
    assert [row[0] for row in rest] == ["litellm", "portkey", "smg"]
    assert [row[1] for row in rest] == ["2,000", "250", "-"]
    assert rest[1][2:] == ["-"] * (len(TITLES) - 1)


def test_ratios_are_medians_of_the_ratios_of_neighbours() -> None:
    _, whole, part, none = tables.ratios([_WHOLE, _PART, _NONE])
    assert whole[1] == "125 x / 20.0 x"
    assert whole[-1] == "- / 10.0 x"
    assert part[1] == "25.0 x / 2.50 x"
    assert set(none[1:]) == {"-"}


def test_what_was_on_and_what_went_wrong_is_told_of_each() -> None:
    _, ours, whole, part, none = tables.features([_WHOLE, _PART, _NONE], version="9.9")
    assert ours == ["**gateway**", "9.9", *["yes"] * len(FEATURES), ""]
    assert whole[1:4] == ["1.2.3", "yes", "yes"]
    assert part[-1] == "burst: answers 500: (a/b)"
    assert none[1] == "-"
    assert none[-1] == "not installed: pip: no matching distribution"


def test_all_tables_make_a_page_of_even_lines() -> None:
    page = tables.page([_WHOLE, _PART, _NONE], version="9.9")
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({len(line) for line in block.splitlines()}) == 1
    assert tables.page([], version="9.9").count("| **gateway**") == 2


@pytest.mark.parametrize(("speed", "seconds"), [(5_000.0, 3.0), (50.0, 7.68), (1.0, 60.0)])
def test_slow_peers_are_measured_longer(speed: float, seconds: float) -> None:
    assert seconds_for(speed, 64, 3) == pytest.approx(seconds)
