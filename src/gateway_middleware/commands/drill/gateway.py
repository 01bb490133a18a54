"""The gateway of a drill: `serve` as a process, asked as its users and as the on-call ask it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway_middleware.commands.drill.processes import Program, until
from gateway_middleware.commands.drill.story import Story

ADMIN = "the-operators-token-of-the-drill"
_LOOK_SECONDS = 0.05


class Answer(msgspec.Struct, frozen=True):
    """What a caller got. Status 0: no answer at all."""

    status: int
    seconds: float
    headers: Mapping[str, str] = {}
    text: str = ""

    @property
    def deployment(self) -> str:
        """Who answered."""
        return self.headers.get("x-gateway-deployment", "")


class RunningGateway:
    """`keys` are those of the tenants, by name; `config` the file that the process watches."""

    def __init__(
        self,
        program: Program,
        url: str,
        *,
        keys: Mapping[str, str],
        config: Path,
        client: httpx.AsyncClient,
        story: Story,
    ) -> None:
        self.program = program
        self.url = url
        self.config = config
        self._keys = keys
        self._numbers = count(1)
        self._client = client
        self._story = story

    async def call(self, model: str = "fast", *, tenant: str = "acme", stream: bool = False) -> Answer:
        """A chat completion, with words that no other call has: the same failing again would be one failure."""
        hello = {"role": "user", "content": f"hello {next(self._numbers)}"}
        body = {"model": model, "messages": [hello], "stream": stream}
        headers = {"authorization": f"Bearer {self._keys[tenant]}"}
        began = time.monotonic()
        try:
            response = await self._client.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)
        except httpx.TransportError as error:
            return Answer(0, time.monotonic() - began, text=repr(error))
        return Answer(response.status_code, time.monotonic() - began, dict(response.headers), response.text)

    async def calls(self, number: int, model: str = "fast", *, at_once: int = 1, tenant: str = "acme") -> list[Answer]:
        """Several, `at_once` of them at a time."""
        turns = asyncio.Semaphore(at_once)

        async def one() -> Answer:
            async with turns:
                return await self.call(model, tenant=tenant)

        return list(await asyncio.gather(*(one() for _ in range(number))))

    async def look(self, path: str, jq: str = "") -> Any:
        """What the on-call reads, printed as typed: `jq` is a path into the document such as `.metering.state`."""
        found = await self.read(path, jq)
        self._story.shell(f"curl -s $GW{path}" + (f" | jq -c {jq}" if jq else ""), found)
        return found

    async def read(self, path: str, jq: str = "") -> Any:
        """The same without a word."""
        document = (await self._client.get(self.url + path)).json()
        for name in jq.split(".")[1:]:
            document = document[name]
        return document

    async def wait_for(self, path: str, jq: str, is_right: Callable[[Any], bool], seconds: float) -> float | None:
        """Seconds until a value is right; None: not in time."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if is_right(await self.read(path, jq)):
                return time.monotonic() - began
            await asyncio.sleep(_LOOK_SECONDS)
        return None

    async def command(self, path: str, body: Any = None) -> Any:
        """What the on-call orders, printed as typed."""
        answer = await self._client.post(self.url + path, json=body, headers={"authorization": f"Bearer {ADMIN}"})
        given = f" -d '{json.dumps(body)}'" if body is not None else ""
        self._story.shell(f'curl -s -X POST -H "Authorization: Bearer $ADMIN"{given} $GW{path}', answer.text)
        return answer.json()

    async def grep(self, text: str) -> list[str]:
        """The lines of the log with a text, the first of them printed. Lines come up to 50 ms after what they tell."""
        await until(lambda: any(text in line for line in self.program.lines), 2.0)
        lines = [line for line in self.program.lines if text in line]
        first = json.loads(lines[0]).get("message", lines[0]) if lines else "(nothing)"
        self._story.shell(f"kubectl logs -l app=model-gateway | grep '{text}' | head -1", first)
        return lines

    async def metric(self, name: str) -> float:
        """The sum over all series of a metric, printed."""
        text = (await self._client.get(f"{self.url}/metrics")).text
        rows = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        total = sum(map(float, rows))
        self._story.shell(f"curl -s $GW/metrics | grep ^{name}", f"{name} {total:g}")
        return total

    def write(self, text: str) -> None:
        """Put another configuration in the place of the old one, in one step."""
        draft = self.config.with_suffix(".draft")
        draft.write_text(text, "utf-8")
        draft.replace(self.config)
