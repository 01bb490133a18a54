"""The peers: what is installed of each, how it is started, and which features are on without a database.

Each stands in front of one address of the mock provider, under the model name `bench`, and has the limits of
`servers.LIMITS` where it has such limits: none that a benchmark could reach. What is said to be on is what its
configuration took; a key check is tried before each measurement.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.environments import Package
from benchmarks.servers import KEY

MODEL, UPSTREAM_MODEL, UPSTREAM_KEY = "bench", "gpt-4o-mini", "sk-bench"
FEATURES = ("key", "requests", "tokens", "concurrency", "prices", "budget", "breaker", "usage kept")
"""`usage kept`: what a call used is on disk or with a database before the call ends."""


@dataclass(frozen=True)
class Setup:
    """What a peer is started with: its environment, a folder for its files, a free port and its provider's address."""

    environment: Path
    folder: Path
    port: int
    upstream: str

    def file(self, name: str, text: str) -> str:
        """Write a file for the peer; its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True)
class Launch:
    """How a peer is started and asked; `address` is a file where one that chooses its port itself writes its URL."""

    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    model: str = MODEL
    headers: Mapping[str, str] = field(default_factory=dict)
    address: Path | None = None


@dataclass(frozen=True)
class Peer:
    """A gateway of others; `on` says of the features that are on in which form."""

    name: str
    package: Package
    launch: Callable[[Setup], Launch]
    on: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


_LITELLM_AUTH = f"""
import hmac

from fastapi import HTTPException
from litellm.proxy._types import UserAPIKeyAuth


async def check(request, api_key):
    if not hmac.compare_digest(api_key, {KEY!r}):
        raise HTTPException(status_code=401, detail="no such key")
    return UserAPIKeyAuth(
        api_key=api_key, user_id="bench", rpm_limit=10**9, tpm_limit=10**12, max_parallel_requests=10_000
    )
"""


def litellm(setup: Setup) -> Launch:
    """Keys of its own need Postgres; a function of the operator's may check them, and limit them in memory."""
    deployment = {
        "model": f"openai/{UPSTREAM_MODEL}", "api_base": f"{setup.upstream}/v1", "api_key": UPSTREAM_KEY,
        "input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6,
    }  # fmt: skip
    settings = {
        "model_list": [{"model_name": MODEL, "litellm_params": deployment}],
        "router_settings": {
            "allowed_fails": 5,
            "cooldown_time": 10,
            "provider_budget_config": {"openai": {"budget_limit": 1e8, "time_period": "30d"}},
        },
        "general_settings": {"master_key": f"sk-{KEY}", "custom_auth": "bench_auth.check"},
    }
    setup.file("bench_auth.py", _LITELLM_AUTH)
    config = setup.file("config.yaml", json.dumps(settings))
    return Launch(
        [
            str(setup.environment / "bin" / "litellm"), "--config", config, "--host", "127.0.0.1",
            "--port", str(setup.port), "--num_workers", "1", "--telemetry", "False",
        ],
        {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )  # fmt: skip


def portkey(setup: Setup) -> Launch:
    """The provider is named by each request."""
    program = setup.environment / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Launch(
        [shutil.which("node") or "node", str(program), f"--port={setup.port}", "--headless"],
        headers={"x-portkey-provider": "openai", "x-portkey-custom-host": f"{setup.upstream}/v1"},
    )


_ROLTER = """
[server]
host = "127.0.0.1"
port = {port}
[[providers]]
name = "mock"
kind = "openai_compatible"
api_base = "{upstream}"
[[routes]]
model = "{model}"
strategy = "round_robin"
[[routes.targets]]
provider = "mock"
model = "{upstream_model}"
[[virtual_keys]]
key = "{key}"
name = "bench"
models = []
[[model_prices]]
model = "{model}"
input_per_mtok = 1.0
output_per_mtok = 4.0
[breaker]
enabled = true
[queue]
capacity = 10000
workers = 10000
"""


def rolter(setup: Setup) -> Launch:
    """Limits and budgets are counted in Redis, and let everything through without it."""
    text = _ROLTER.format(port=setup.port, upstream=setup.upstream, model=MODEL, upstream_model=UPSTREAM_MODEL, key=KEY)
    config = setup.file("rolter.toml", text)
    command = [str(setup.environment / "bin" / "rolter"), "gateway", "--config", config]
    return Launch(command, {"ROLTER_UPDATE_CHECK": "false"})


def smg(setup: Setup) -> Launch:
    """A rate and a number of calls at once for all tenants together; limits of a tenant are for gRPC workers alone."""
    return Launch([
        str(setup.environment / "bin" / "smg"), "launch", "--host", "127.0.0.1", "--port", str(setup.port),
        "--prometheus-host", "127.0.0.1", "--prometheus-port", str(setup.port + 1),
        "--backend", "openai", "--worker-urls", setup.upstream, "--tenant-api-key", f"bench:{KEY}",
        "--max-concurrent-requests", "10000", "--rate-limit-tokens-per-second", "1000000",
        "--disable-health-check", "--history-backend", "none",
    ])  # fmt: skip


_TENSORZERO = """
[gateway]
observability.enabled = false
[models.{model}]
routing = ["mock"]
[models.{model}.providers.mock]
type = "openai"
api_base = "{upstream}/v1/"
model_name = "{upstream_model}"
api_key_location = "none"
cost = [
  {{ pointer = "/usage/prompt_tokens", cost_per_million = 1.0, required = true }},
  {{ pointer = "/usage/completion_tokens", cost_per_million = 4.0, required = true }},
]
"""
_TENSORZERO_SERVER = """
import pathlib, sys, threading

from tensorzero.tensorzero import _start_http_gateway

gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
pathlib.Path(sys.argv[2]).write_text(gateway.base_url)
threading.Event().wait()
"""


def tensorzero(setup: Setup) -> Launch:
    """PyPI has no server of it, but one inside of its client, which its own helper for OpenAI's client uses."""
    text = _TENSORZERO.format(model=MODEL, upstream=setup.upstream, upstream_model=UPSTREAM_MODEL)
    config, server = setup.file("tensorzero.toml", text), setup.file("server.py", _TENSORZERO_SERVER)
    address = setup.folder / "address"
    return Launch(
        [str(setup.environment / "bin" / "python"), server, config, str(address)],
        path="/openai/v1/chat/completions",
        model=f"tensorzero::model_name::{MODEL}",
        address=address,
    )


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "litellm",
            Package("litellm", "[proxy]"),
            litellm,
            {
                "key": "yes", "requests": "yes", "tokens": "yes", "concurrency": "yes", "prices": "yes",
                "budget": "of the provider", "breaker": "cooldown",
            },
            "key and its limits by a function of the operator's",
        ),
        Peer("portkey", Package("@portkey-ai/gateway", from_npm=True), portkey),
        Peer(
            "rolter",
            Package("rolter"),
            rolter,
            {"key": "yes", "concurrency": "queue of the provider", "prices": "yes", "breaker": "yes"},
            "limits and budgets need Redis",
        ),
        Peer(
            "smg",
            Package("smg"),
            smg,
            {"key": "yes", "requests": "of all together", "concurrency": "of all together", "breaker": "yes"},
        ),
        Peer(
            "tensorzero",
            Package("tensorzero"),
            tensorzero,
            {"prices": "yes"},
            "keys need Postgres, limits Valkey or Postgres",
        ),
    )
}  # fmt: skip
"""Each peer by its name."""
