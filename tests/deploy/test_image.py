"""The Dockerfile is what it says: its install commands and its entry point run in a fresh environment, as its user.

There is no Docker engine in the tests: what a build does beyond these commands is not tried. Where the tests run as
root, the entry point runs as the image's user, who can write to nothing but the two folders that the image names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from gateway_middleware import Settings
from gateway_middleware._version import __version__
from gateway_middleware.settings.variables import VARIABLES
from gateway_middleware.tenancy.keys import digest
from manifests import ROOT
from redis_process import free_port
from running import KEY

DEPLOY = ROOT / "deploy"
USER = 10001
RUNS_AS = USER if os.geteuid() == 0 else None
"""None: whoever runs the tests may be nobody else."""
KEPT = {"PATH", "HOME", "LANG", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_CONFIG_FILE", "SSL_CERT_FILE"}


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, beginning with its FROM."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def image_environment() -> dict[str, str]:
    """What ENV sets in the last stage."""
    pairs = [shlex.split(rest) for word, rest in stages()[-1] if word == "ENV"]
    return dict(pair.split("=", 1) for part in pairs for pair in part)


def test_both_stages_are_of_one_image_whose_digest_is_an_argument() -> None:
    froms = {rest.partition(" AS ")[0] for word, rest in instructions() if word == "FROM"}
    assert froms == {"${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"}
    arguments = [rest for word, rest in instructions() if word == "ARG"]
    assert arguments[0].startswith("PYTHON_IMAGE=python:3.")
    assert "slim" in arguments[0]
    assert arguments[1] == "PYTHON_DIGEST="


def test_the_last_stage_is_bare_and_its_user_is_nobody() -> None:
    last = stages()[-1]
    assert [rest for word, rest in last if word == "USER"] == [f"{USER}:{USER}"]
    assert [rest for word, rest in last if word == "COPY"] == ["--from=build /opt/model-gateway /opt/model-gateway"]
    assert [json.loads(rest) for word, rest in last if word in {"ENTRYPOINT", "CMD"}] == [["model-gateway"], ["serve"]]


def test_every_variable_of_the_image_is_one_of_the_product() -> None:
    names = {name for name in image_environment() if name.startswith("GATEWAY_")}
    assert names <= {variable.name for variable in VARIABLES}
    assert (image_environment()["GATEWAY_HOST"], Settings().port) == ("0.0.0.0", 8080)
    assert ("EXPOSE", "8080") in stages()[-1]
    assert "GATEWAY_PORT" not in names  # PORT, as platforms set it, would have no effect


def test_the_version_is_that_of_the_product() -> None:
    assert f"model-gateway:{__version__}" in (DEPLOY / "Dockerfile").read_text("utf-8")
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text("utf-8"))
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "kustomization.yaml").read_text("utf-8"))
    assert compose["services"]["gateway"]["image"] == f"model-gateway:{__version__}"
    assert kustomization["images"][0]["newTag"] == __version__
    assert kustomization["labels"][0]["pairs"]["app.kubernetes.io/version"] == __version__


def test_what_is_copied_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [rest.split()[:-1] for word, rest in stages()[0] if word == "COPY"]
    for source in (source for sources in copied for source in sources):
        assert source in allowed
        assert (ROOT / source).exists()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_everything_is_locked_with_hashes_and_no_registry_is_named(name: str) -> None:
    text = (DEPLOY / name).read_text("utf-8")
    requirements = re.split(r"\n(?=\S)", text.rstrip())[1:]
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9._-]+==[\w.]+[ ;\\]", requirement), requirement
        assert "--hash=sha256:" in requirement
    assert "://" not in text
    assert "--index" not in text


def test_the_lock_meets_the_bounds_of_setup_cfg() -> None:
    """What `pip` would say of it is said when it is installed; this says that nothing was forgotten."""
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (DEPLOY / "requirements.txt").read_text("utf-8"), re.MULTILINE))
    section = (ROOT / "setup.cfg").read_text("utf-8").partition("install_requires =")[2].partition("\n\n")[0]
    extras = (ROOT / "setup.cfg").read_text("utf-8").partition("[options.extras_require]")[2]
    section += "".join(
        extras.partition(f"\n{name} =")[2].partition(" =")[0] for name in ("serve", "redis", "prices", "jwt")
    )
    wanted = {
        line.split()[0].partition("[")[0].lower()
        for line in section.splitlines()
        if re.search(r"[<>]|^ +certifi", line)
    }
    assert wanted - locked == set()
    assert {"uvicorn", "redis", "genai-prices", "pyjwt"} <= locked


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """One that the image's user may enter: those of pytest are for their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def interpreter() -> str:
    """One that the image's user may run too: that of the tests may lie in somebody's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        check = "import sys, ensurepip, venv; assert sys.version_info >= (3, 11)"
        with contextlib.suppress(OSError):
            command = [str(Path(python).resolve()), "-c", check]
            done = subprocess.run(command, check=False, capture_output=True, cwd="/", user=RUNS_AS, group=RUNS_AS)
            if done.returncode == 0:
                return command[0]
    raise AssertionError("no Python that the image's user may run")


def build(folder: Path) -> Path:
    """Run the RUN lines of the first stage with its paths below `folder`; the environment that the image gets."""
    source, python = folder / "src", interpreter()
    variables = {name: value for name, value in os.environ.items() if name in KEPT}
    for word, rest in stages()[0]:
        if word == "COPY":
            *names, target = rest.split()
            _copy(names, folder / target.lstrip("/"))
        elif word == "RUN":
            command = rest.replace("/opt/", f"{folder}/opt/").replace("/src", str(source))
            command = re.sub(r"^python ", f"{python} ", command)
            done = subprocess.run(command, shell=True, check=False, env=variables, capture_output=True, text=True)  # noqa: S602
            assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return folder / "opt" / "model-gateway"


def _copy(names: list[str], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(
                path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(path, target)


def test_its_install_commands_and_its_entry_point_run_in_a_fresh_environment() -> None:
    with folder_for_all() as folder:
        environment = build(folder)
        state, scratch = folder / "state", folder / "tmp"
        for writable in (state, scratch):
            writable.mkdir()
            if RUNS_AS is not None:
                os.chown(writable, USER, USER)
        port = free_port()
        variables = {
            **image_environment(),
            "PATH": f"{environment}/bin:/usr/bin:/bin",
            "GATEWAY_JOURNAL": str(state / "journal.db"),
            "TMPDIR": str(scratch),
            "PORT": str(port),
            "OPENAI_API_KEY": "sk-nobody",
            "GATEWAY_TENANTS": json.dumps({"acme": {"keys": [digest(KEY.encode())]}}),
        }
        with running(environment, variables, state) as process:
            document = until_ready(port, process)
            assert document["version"] == __version__
            health_check(environment, variables)
        assert process.returncode == 0
        assert (state / "journal.db").exists()


@contextlib.contextmanager
def running(environment: Path, variables: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The entry point with its command, as the image's user where this may be another one."""
    entry, command = (json.loads(rest) for word, rest in stages()[-1] if word in {"ENTRYPOINT", "CMD"})
    program = [str(environment / "bin" / entry[0]), *entry[1:], *command]
    with subprocess.Popen(
        program, env=variables, cwd=folder, stdout=subprocess.DEVNULL, user=RUNS_AS, group=RUNS_AS
    ) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=15)
        finally:
            process.kill()


def until_ready(port: int, process: subprocess.Popen[bytes]) -> dict[str, str]:
    for _ in range(300):
        assert process.poll() is None, "it has ended"
        with contextlib.suppress(httpx.TransportError), httpx.Client(trust_env=False) as client:
            if client.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                document: dict[str, str] = client.get(f"http://127.0.0.1:{port}/v1/health").json()
                return document
        time.sleep(0.1)
    raise AssertionError("it does not become ready")


def health_check(environment: Path, variables: dict[str, str]) -> None:
    (line,) = (rest for word, rest in stages()[-1] if word == "HEALTHCHECK")
    command = json.loads(line.partition("CMD")[2])
    assert subprocess.run(command, env=variables, check=False).returncode == 0
    elsewhere = {**variables, "PORT": str(free_port())}
    assert subprocess.run(command, env=elsewhere, check=False, capture_output=True).returncode != 0
