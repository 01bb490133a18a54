"""`python -m benchmarks.crash_drill --kills 100`: kill -9 under load, and no call that a provider took lacks its event.

A gateway process serves calls, half of them streams, in front of the simulator; every call names a model of its own.
Somebody is killed at random moments: the server, its worker, the keeper, or worker and keeper at once; a server that is
gone is started again. In the end every model that the provider was asked for must be in the journal, and none twice.

`--as stock` is the same under stock uvicorn, `mounted` in another application, `injected` that with a transport of
httpx: there the process that serves also keeps the journal, and is the one that is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil
from starlette.applications import Starlette

from benchmarks.servers import free_port
from gateway_middleware import Gateway, Settings, mount
from gateway_middleware.simulator import Server, Simulator

WAYS = {
    "serve": ("", ["gateway_middleware", "serve"]),
    "stock": ("", ["uvicorn", "--factory", "gateway_middleware:create_app"]),
    "mounted": ("/llm", ["uvicorn", "--factory", "benchmarks.crash_drill:mounted"]),
    "injected": ("/llm", ["uvicorn", "--factory", "benchmarks.crash_drill:injected"]),
}
"""How the gateway is run: the prefix of its paths, and the module with its arguments."""


def mounted(transport: httpx.AsyncBaseTransport | None = None) -> Starlette:
    """An application with the gateway in it."""
    gateway = Gateway(Settings.from_env(), transport=transport)
    app = Starlette(lifespan=lambda _: gateway.lifespan())
    mount(app, "/llm", gateway)
    return app


def injected() -> Starlette:
    """The same, and providers are reached by httpx."""
    return mounted(httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None)))


class Drill:
    """One run."""

    def __init__(
        self,
        folder: Path,
        upstream: str,
        *,
        rate: float,
        way: str = "serve",
        more: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.journal = folder / "journal.db"
        self.headers = headers or {}
        self._port = free_port()
        self._prefix, self._command = WAYS[way]
        self._rate = rate
        self._asked = self._made = 0
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OPENAI_"))},
            "OPENAI_API_KEY": "sk-drill",
            "OPENAI_BASE_URL": f"{upstream}/v1",
            "GATEWAY_OPEN": "true",
            "GATEWAY_PORT": str(self._port),
            "GATEWAY_JOURNAL": str(self.journal),
            "GATEWAY_MAX_ATTEMPTS": "1",
            **(more or {}),
        }

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return f"http://127.0.0.1:{self._port}{self._prefix}"

    def start(self) -> subprocess.Popen[bytes]:
        """A gateway process."""
        command = [sys.executable, "-m", *self._command]
        if self._command[0] == "uvicorn":
            command += ["--port", str(self._port), "--log-level", "critical"]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def load(self, over: asyncio.Event, *, patience: float = 5.0) -> None:
        """Calls at a steady rate until it is over, whatever becomes of them; clients leave when it takes so long."""
        async with httpx.AsyncClient(
            base_url=self.url,
            trust_env=False,
            headers=self.headers,
            timeout=patience,
            limits=httpx.Limits(max_connections=None),
        ) as client:
            async with asyncio.TaskGroup() as calls:
                while not over.is_set():
                    calls.create_task(self._call(client))
                    await asyncio.sleep(random.expovariate(self._rate))

    async def _call(self, client: httpx.AsyncClient) -> None:
        self._asked += 1
        with contextlib.suppress(httpx.HTTPError):
            await self.ask(client, self._asked)

    async def ask(self, client: httpx.AsyncClient, number: int) -> int:
        """One call to a model that no other call asks for; every second one is a stream."""
        is_stream = number % 2 == 0
        self._made += 1
        model = f"sim-length-5:gap-{10 if is_stream else 0}:input-{self._made}"
        body = {"model": f"openai/{model}", "messages": [{"role": "user", "content": "x"}], "stream": is_stream}
        return (await client.post("/v1/chat/completions", json=body)).status_code

    async def until_ready(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(400):
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)
        raise SystemExit("the gateway does not start")

    def events(self) -> list[dict[str, object]]:
        """Everything in the journal."""
        with sqlite3.connect(self.journal) as db:
            return [json.loads(body) for (body,) in db.execute("SELECT body FROM events")]


VICTIMS = ("server", "worker", "keeper", "worker and keeper")


def victims_of(server: int, which: str) -> list[psutil.Process]:
    """The processes of that name, as far as they live."""
    parent = psutil.Process(server)
    if which == "server":
        return [parent]
    children = {
        child: "keeper" if "keeper_main" in " ".join(child.cmdline()) else "worker" for child in parent.children()
    }
    return [child for child, name in children.items() if name in which]


async def run(kills: int, rate: float, way: str = "serve") -> dict[str, object]:
    """Returns the figures. `way` is one of WAYS."""
    names = VICTIMS if way == "serve" else VICTIMS[:1]
    with tempfile.TemporaryDirectory(prefix="crash-drill-") as folder:
        async with Simulator(capacity=1_000_000).serve() as simulator:
            drill = Drill(Path(folder), simulator.url, rate=rate, way=way)
            over = asyncio.Event()
            load = asyncio.create_task(drill.load(over))
            started = time.monotonic()
            process = drill.start()
            for number in range(kills + 1):
                await drill.until_ready()
                await asyncio.sleep(random.uniform(0.05, 0.6))
                if number < kills:
                    victims = victims_of(process.pid, names[number % len(names)])
                    for victim in victims:
                        victim.kill()
                    await asyncio.to_thread(psutil.wait_procs, victims, 10)
                    if process.poll() is not None:
                        process = drill.start()
            over.set()
            await load
            await asyncio.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            process.wait()
            return figures_of(drill, simulator) | {"kills": kills, "seconds": round(time.monotonic() - started, 1)}


def figures_of(drill: Drill, simulator: Server) -> dict[str, object]:
    """What the provider took beside what was metered."""
    events = drill.events()
    metered = {str(event["model"]).removeprefix("openai/") for event in events}
    taken = {request.model for request in simulator.simulator.requests if request.model}
    twice = [name for name, count in Counter(event["id"] for event in events).items() if count > 1]
    return {
        "calls_taken_by_the_provider": len(taken),
        "events": len(events),
        "of_crashes": sum(event["outcome"] == "gateway_crash" for event in events),
        "lost": len(taken - metered),
        "double": len(twice),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--as", dest="way", choices=WAYS, default="serve")
    chosen = parser.parse_args()
    figures = asyncio.run(run(chosen.kills, chosen.rate, chosen.way))
    print(json.dumps(figures, indent=2))
    return 1 if figures["lost"] or figures["double"] else 0


if __name__ == "__main__":
    sys.exit(main())
