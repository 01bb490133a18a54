"""Load by `wrk` (Debian), in C: closed loops over keep-alive connections. Without it the load is `benchmarks.load`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load
from benchmarks.servers import KEY, LOAD_CORE

BODY = load.BODY.decode().replace("%m", "@MODEL@").replace("%s", "")
STREAM_BODY = load.BODY.decode().replace("%m", "@MODEL@").replace("%s", ',"stream":true')
_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local folder = os.getenv("BENCH_WRK")
local function read(name)
  local file = assert(io.open(folder .. "/" .. name, "rb"))
  local all = file:read("*a")
  file:close()
  return all
end
wrk.body = read("body")
local keys, models = {}, {}
for line in read("keys"):gmatch("[^\\n]+") do keys[#keys + 1] = line end
for line in read("models"):gmatch("[^\\n]+") do models[#models + 1] = line end
for line in read("headers"):gmatch("[^\\n]+") do
  local name, value = line:match("^(.-): (.*)$")
  wrk.headers[name] = value
end
local turn = 0
if #keys == 1 and #models == 1 then
  wrk.headers["authorization"] = "Bearer " .. keys[1]
  wrk.body = wrk.body:gsub("@MODEL@", models[1])
else
  request = function()
    turn = turn + 1
    local body = wrk.body:gsub("@MODEL@", models[turn % #models + 1])
    local key = keys[turn % #keys + 1]
    wrk.headers["authorization"] = "Bearer " .. key
    return wrk.format(nil, nil, wrk.headers, body)
  end
end
done = function(s, l, r)
  io.write(string.format('JSON {"done":%d,"seconds":%.4f,"p50":%d,"p99":%d,"status":%d,"lost":%d}\\n',
    s.requests, s.duration / 1e6, l:percentile(50), l:percentile(99), s.errors.status,
    s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout))
end
"""


@dataclass(frozen=True)
class Sample:
    """What one run of load saw: calls, seconds, latencies in milliseconds; `failed` calls are among the done."""

    done: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Job:
    """What is asked: a body with `@MODEL@` in it, the keys and models that take turns in it, and further headers."""

    path: str = "/v1/chat/completions"
    body: str = BODY
    keys: Sequence[str] = (KEY,)
    models: Sequence[str] = ("chat/gpt-5-mini",)
    headers: Mapping[str, str] = field(default_factory=dict)


def is_here() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def run(port: int, job: Job, *, connections: int, seconds: float) -> Sample:
    """Ask for so many seconds, each connection again as soon as it has its answer."""
    if not is_here():
        return _run_in_python(port, job, connections=connections, seconds=seconds)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {
            "script.lua": _SCRIPT,
            "body": job.body,
            "keys": "\n".join(job.keys),
            "models": "\n".join(job.models),
            "headers": "\n".join(f"{name}: {value}" for name, value in job.headers.items()),
        }.items():
            (Path(folder) / name).write_text(text)
        command = [
            "taskset",
            "-c",
            LOAD_CORE,
            "wrk",
            "-t",
            "1",
            "-c",
            str(connections),
            "-d",
            f"{max(round(seconds), 1)}s",
            "--timeout",
            "30s",
            "-s",
            f"{folder}/script.lua",
            f"http://127.0.0.1:{port}{job.path}",
        ]
        out = subprocess.run(
            command, env={**os.environ, "BENCH_WRK": folder}, capture_output=True, text=True, check=True, timeout=120
        )
    found = json.loads(next(line[5:] for line in out.stdout.splitlines() if line.startswith("JSON ")))
    return Sample(
        found["done"], found["status"] + found["lost"], found["seconds"], found["p50"] / 1000, found["p99"] / 1000
    )


def _run_in_python(port: int, job: Job, *, connections: int, seconds: float) -> Sample:
    body = job.body.replace("@MODEL@", job.models[-1]).encode()
    request = load.post(job.path, "bench", job.keys[-1], body, job.headers)
    result = load.closed_loop(port, request, connections=connections, seconds=seconds)
    return Sample(result.done, result.failed, result.seconds, result.quantile(0.5), result.quantile(0.99))
