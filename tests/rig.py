"""A gateway over scripted providers, with a clock that is moved: what the breaker does, without a socket."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, TypeAlias

import httpx

from asgi_driver import Transcript, drive
from clock import Clock
from gateway_middleware import Gateway, Settings
from gateway_middleware.core.clocks import Clocks
from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.errors import UpstreamError
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.guard.rules import GuardRule
from running import KEY, LogLines
from scripted import ScriptedAnswer, ScriptedExchange

Script: TypeAlias = "Callable[[UpstreamRequest], ScriptedAnswer | UpstreamError]"
ADMIN = "an-admin-token-of-some-length"
JSON: HeaderList = [(b"content-type", b"application/json")]
SSE: HeaderList = [(b"content-type", b"text/event-stream")]
ASK: Any = [{"role": "user", "content": "Good morning"}]
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
GOOD = b'{"id":"chatcmpl-1","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


def answering(body: bytes = GOOD, *, status: int = 200, headers: dict[str, str] | None = None) -> Script:
    """A script that always gives this whole answer."""
    extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return lambda _: ScriptedAnswer(status, [*JSON, *extra], [body])


def failing(status: int, code: str = "server_error", *, headers: dict[str, str] | None = None) -> Script:
    """A script that always answers with an error in OpenAI's shape."""
    return answering(json.dumps({"error": {"message": "no", "code": code}}).encode(), status=status, headers=headers)


def streaming(*chunks: bytes, failure: UpstreamError | None = None) -> Script:
    """A script that always streams these chunks."""
    return lambda _: ScriptedAnswer(200, SSE, chunks, failure=failure)


class Rig:
    """Providers are `a`, `b` and `c` of OpenAI's kind and `x` of Anthropic's; scripts are by provider."""

    def __init__(
        self,
        routes: dict[str, Any] | None = None,
        *,
        tracer_provider: Any = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        guards: Sequence[GuardRule] = (),
        **extra: str,
    ) -> None:
        self.clock = Clock()
        self.scripts: dict[str, Script] = {}
        self.calls: Counter[str] = Counter()
        self._numbers = count()
        self.log = LogLines()
        self.exchange = ScriptedExchange(self._answer)
        providers = {
            name: {"kind": "anthropic" if name == "x" else "openai", "base_url": f"https://{name}.test/v1",
                   "api_key": f"sk-secret-of-{name}"}
            for name in "abcx"
        }  # fmt: skip
        providers["x"]["base_url"] = "https://x.test"
        self.environment = {
            "GATEWAY_PROVIDERS": json.dumps(providers),
            "GATEWAY_ROUTES": json.dumps(routes or {"fast": ["a/m", "b/m"]}),
            "GATEWAY_OPEN": "true",
            "GATEWAY_JOURNAL": "off",
            "GATEWAY_ADMIN_TOKEN": ADMIN,
            **extra,
        }
        self.gateway = Gateway(
            Settings.from_env(self.environment),
            exchange=self.exchange,
            transport=transport,
            write_log=self.log,
            clocks=Clocks(monotonic=self.clock, wall=self.clock.wall, sleep=sleep or self.clock.sleep),
            tracer_provider=tracer_provider,
            guards=guards,
            reread=lambda: Settings.from_env(self.environment),
        )

    def _answer(self, request: UpstreamRequest) -> ScriptedAnswer | UpstreamError:
        provider = request.target.origin.host.partition(".")[0]
        self.calls[provider] += 1
        return self.scripts.get(provider, answering())(request)

    async def call(
        self,
        model: str = "fast",
        *,
        path: str = CHAT,
        stream: bool = False,
        leave_after: int | None = None,
        headers: dict[str, str] | None = None,
        sends_key: bool = True,
        **more: Any,
    ) -> Transcript:
        """One model call, with a body that no other has."""
        greeting = f"Good morning {next(self._numbers)}"
        messages, prompt = [{"role": "user", "content": greeting}], greeting if path == RESPONSES else "x"
        asked = {"model": model, "messages": messages, "max_tokens": 9, "input": prompt, **more}
        body = json.dumps({**asked, **({"stream": True} if stream else {})}).encode()
        sent = [(b"content-type", b"application/json")]
        sent += [(b"authorization", f"Bearer {KEY}".encode())] if sends_key else []
        sent += [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        return await drive(
            self.gateway, method="POST", path=path, headers=sent, body=body, leave_after=leave_after, catches=True
        )

    async def get(self, path: str) -> Any:
        """The document at a path."""
        return (await drive(self.gateway, path=path)).json()

    async def get_text(self, path: str) -> str:
        """The text at a path."""
        return (await drive(self.gateway, path=path)).body.decode()

    async def post(self, path: str, body: Any = None, *, token: str = ADMIN) -> Transcript:
        """An operator's call."""
        headers = [(b"authorization", f"Bearer {token}".encode())]
        content = b"" if body is None else json.dumps(body).encode()
        return await drive(self.gateway, method="POST", path=path, headers=headers, body=content)

    async def command(self, key: str, command: str, body: Any = None) -> Transcript:
        """A command to a circuit breaker."""
        return await self.post(f"/v1/admin/circuit-breakers/{key}/{command}", body)

    async def state(self, provider: str = "a") -> str:
        """The state of a provider's row in `/v1/health`."""
        state: str = (await self.get("/v1/health"))["circuit_breakers"][provider]["state"]
        return state

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event so far."""
        self.gateway.log.lines.flush()
        found = [json.loads(line) for line in self.log.raw.splitlines()]
        return [line for line in found if line["event"] == event]


def chat_events(*texts: str, end: bool = True) -> Sequence[bytes]:
    """Events of a chat stream: the role first, as OpenAI sends it."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    events = [b"data: " + json.dumps({"id": "c", "choices": [{"index": 0, "delta": d}]}).encode() for d in deltas]
    return [event + b"\n\n" for event in [*events, *([b"data: [DONE]"] if end else [])]]
