"""`demo`: simulator and gateway on this machine, with a key to try and, with `--tour`, a short narrated tour."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shlex
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_urlsafe
from typing import TYPE_CHECKING

from gateway_middleware.app import GatewayApplication
from gateway_middleware.commands.extras import require_serve
from gateway_middleware.commands.serve import door_limits, listening, make_server, url_of
from gateway_middleware.edge.fd_sink import FdSink
from gateway_middleware.gateway import Gateway
from gateway_middleware.settings import Settings
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest, new_key

if TYPE_CHECKING:
    import argparse
    import socket
    from collections.abc import AsyncIterator, Callable, Iterator

    import uvicorn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--port`, `--tour`, `--once`."""
    parser.add_argument("--port", type=int, default=8080, help="where the gateway listens; 0: any (default 8080)")
    parser.add_argument("--tour", action="store_true", help="play a short narrated tour first")
    parser.add_argument("--once", action="store_true", help="stop after the start (and the tour)")


def run(args: argparse.Namespace) -> int:
    """Run until interrupted."""
    require_serve("demo")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the log goes to the same descriptor
    asyncio.run(_demo(port=args.port, with_tour=args.tour, once=args.once))
    return 0


def demo_environment(simulator_url: str, key: str, port: int, *, admin_token: str, journal: str) -> dict[str, str]:
    """The environment of the demo: three providers behind one simulator, five routes, one tenant with limits."""
    routes = {
        "fast": ["openai/gpt-5-mini", "azure/gpt5mini"],
        "claude": ["anthropic/claude-sonnet-4-5"],
        "gpt5mini": ["azure/gpt5mini"],
        "embed": ["openai/text-embedding-3-small"],
        "resilient": ["openai/sim-status-503", "azure/gpt5mini"],
    }
    limits = {"requests": "600/minute", "tokens": "200000/minute", "concurrency": 20}
    return {
        "OPENAI_API_KEY": "sk-simulated",
        "OPENAI_BASE_URL": f"{simulator_url}/v1",
        "ANTHROPIC_API_KEY": "sk-ant-simulated",
        "ANTHROPIC_BASE_URL": simulator_url,
        "AZURE_OPENAI_API_KEY": "simulated",
        "AZURE_OPENAI_ENDPOINT": simulator_url,
        "GATEWAY_ROUTES": json.dumps(routes),
        "GATEWAY_TENANTS": json.dumps({"demo": {"keys": [digest(key.encode())], **limits}}),
        "GATEWAY_ADMIN_TOKEN": admin_token,
        "GATEWAY_PORT": str(port),
        "GATEWAY_JOURNAL": journal,
        "GATEWAY_LOG_FORMAT": "human" if sys.stdout.isatty() else "json",
    }


@contextlib.asynccontextmanager
async def _serving(server: uvicorn.Server, listener: socket.socket) -> AsyncIterator[None]:
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.01)
    if task.done():
        await task
        raise SystemExit("demo: the gateway could not start")
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def _demo(*, port: int, with_tour: bool, once: bool) -> None:
    key, admin_token = new_key(), token_urlsafe(24)
    with contextlib.suppress(asyncio.CancelledError):
        _end_at(signal.SIGINT, signal.SIGTERM)
        async with _players(key, admin_token, port) as (server, url, log):
            print(f"The Model Gateway is listening on {url}", flush=True)
            if with_tour:
                from gateway_middleware.commands.tour import play

                with log.held():
                    await play(url, key)
            print(_welcome(url, key, admin_token))
            if not once:
                await _until_interrupted(server)


def _end_at(*numbers: signal.Signals) -> None:
    """These cancel the task that runs now, so that everything is taken away that it has made, its files too."""
    task = asyncio.current_task()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())


class _Log:
    """Lines of the log to standard output; those of the tour after the tour, all together."""

    def __init__(self) -> None:
        self.sink = FdSink(1)
        self.flush: Callable[[], None] = lambda: None
        self._held: list[bytes] | None = None

    def __call__(self, lines: bytes) -> None:
        if self._held is None:
            self.sink(lines)
        else:
            self._held.append(lines)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._held = []
        yield
        self.flush()
        held, self._held = self._held, None
        print("\n── What the gateway logged of it\n")
        print(b"".join(held).decode(), end="", flush=True)


@contextlib.asynccontextmanager
async def _players(key: str, admin_token: str, port: int) -> AsyncIterator[tuple[uvicorn.Server, str, _Log]]:
    """Simulator and gateway, where the gateway listens, and its log."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="model-gateway-"))
        simulator = await stack.enter_async_context(Simulator().serve(host="127.0.0.1", port=0))
        journal = str(Path(folder) / "journal.db")
        environment = demo_environment(simulator.url, key, port, admin_token=admin_token, journal=journal)
        settings = Settings.from_env(environment)
        log = _Log()
        stack.callback(log.sink.close)
        app = GatewayApplication(Gateway(settings, write_log=log))
        log.flush = app.gateway.log.lines.flush
        server = make_server(
            app,
            host="127.0.0.1",
            port=port,
            limits=door_limits(settings),
            drain_seconds=settings.drain_seconds,
            outbox=app.gateway.outbox,
        )
        listener = stack.enter_context(listening(settings))
        await stack.enter_async_context(_serving(server, listener))
        yield server, url_of(listener), log


async def _until_interrupted(server: uvicorn.Server) -> None:
    print("Press Ctrl-C to stop. One line for each call follows.\n", flush=True)
    while not server.should_exit:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.1)


def _welcome(url: str, key: str, admin_token: str) -> str:
    """What to do next: each block can be pasted as it stands."""
    python = shlex.quote(sys.executable)
    return f"""
Three simulated providers (openai, anthropic, azure) are behind the gateway. Nothing leaves this machine.

key      {key}
models   fast (openai, azure behind it), resilient, claude, gpt5mini, embed; or openai/<any>, anthropic/<any>
health   {url}/v1/health
metrics  {url}/metrics
console  {url}/console
         with the operator's token {admin_token}

Open a second terminal and paste any of these blocks.

curl, a whole answer and a stream:

curl -s {url}/v1/chat/completions -H "authorization: Bearer {key}" \\
  -H "content-type: application/json" \\
  -d '{{"model": "fast", "messages": [{{"role": "user", "content": "Hello!"}}]}}'; echo

curl -sN {url}/v1/chat/completions -H "authorization: Bearer {key}" \\
  -H "content-type: application/json" \\
  -d '{{"model": "claude", "stream": true, "messages": [{{"role": "user", "content": "Count to five."}}]}}'

The SDKs, once they are installed:

{python} -m pip install -q openai anthropic

{python} - <<'END'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
print(client.responses.create(model="fast", input="Hello!").output_text)
END

{python} - <<'END'
from anthropic import Anthropic
client = Anthropic(base_url="{url}", api_key="{key}")
message = client.messages.create(model="claude", max_tokens=100, messages=[{{"role": "user", "content": "Hello!"}}])
print(message.content[0].text)
END
"""
