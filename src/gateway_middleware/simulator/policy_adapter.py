"""`python -m gateway_middleware.simulator.policy_adapter`: what `policy-adapter` must say, and how it may fail us.

    async with PolicyAdapter({"acme": {"allow": True, "limits": {"requests": "5/minute"}}}).serve() as server:
        ...                                # GATEWAY_POLICY_ADAPTER_URL=f"{server.url}/v1/data/gateway/authorize"
        server.adapter.behave(PolicyFault(status=503), times=2)

It answers as the data API of Open Policy Agent does: `{"result": ..., "decision_id": ...}`, without `result` where the
policy has no word about the input. Over HTTP: `GET /questions`, `POST /control/policy` with results by tenant, and
`POST /control/faults` with `{"fault": {...}, "times": 2}`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Literal

import msgspec

from gateway_middleware.simulator.connection import Connection, Connections
from gateway_middleware.simulator.event_loop import loop_factory
from gateway_middleware.simulator.heads import status_line
from gateway_middleware.simulator.record import Received, Request, RequestLog
from gateway_middleware.simulator.script import End, Step

UNDEFINED = object()
"""The policy has no word about it: the answer has no `result`."""
_ANYBODY = "*"
_decode_policy = msgspec.json.Decoder(dict[str, Any]).decode


class PolicyFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do wrong: answer this `status`, this `body` instead, after `delay` seconds, or not at all.

    `tenant`: to questions about this one only.
    """

    status: int = 200
    body: str | None = None
    delay: float = 0.0
    ends: Literal["answer", "drop", "hang"] = "answer"
    location: str | None = None
    tenant: str | None = None


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    fault: PolicyFault
    times: int | None = None


class PolicyServer(msgspec.Struct, frozen=True, kw_only=True):
    """A policy-adapter that listens; `data_url` is where it is asked."""

    url: str
    port: int
    adapter: PolicyAdapter

    @property
    def data_url(self) -> str:
        """The address for `GATEWAY_POLICY_ADAPTER_URL`."""
        return f"{self.url}/v1/data/gateway/authorize"


class PolicyAdapter:
    """Decides by `policy`: results by tenant (`*`: of all others), or a function from the input to the result.

    `token`: the only bearer token to take.
    """

    def __init__(
        self, policy: Mapping[str, Any] | Callable[[dict[str, Any]], Any] | None = None, *, token: str | None = None
    ) -> None:
        self.policy: Mapping[str, Any] | Callable[[dict[str, Any]], Any] = (
            {_ANYBODY: True} if policy is None else policy
        )
        self.log = RequestLog(time.time, record=True, capacity=1000)
        self.questions: list[dict[str, Any]] = []
        self._token = token
        self._orders: list[_Order] = []
        self._ids = count(1)

    def behave(self, fault: PolicyFault, *, times: int | None = None) -> None:
        """Do so for the next `times` questions, or from now on. What was ordered last goes first."""
        self._orders.insert(0, _Order(fault=fault, times=times))

    def behave_well(self) -> None:
        """Forget all faults."""
        self._orders.clear()

    @contextlib.asynccontextmanager
    async def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[PolicyServer]:
        """Listen inside the block. At its end, connections that are still open are cut."""
        connections = Connections()
        listening = await asyncio.get_running_loop().create_server(
            lambda: Connection(self, connections, None), host, port
        )
        chosen: int = listening.sockets[0].getsockname()[1]
        try:
            yield PolicyServer(url=f"http://{host}:{chosen}", port=chosen, adapter=self)
        finally:
            listening.close()
            await connections.abort()
            await listening.wait_closed()

    def respond(self, request: Request) -> tuple[Received | None, bytes | Iterator[Step]]:
        """The entry in the log (None for what is no question) and what to send."""
        route = (request.method, request.target.partition(b"?")[0])
        if request.method == "POST" and route[1].startswith(b"/v1/data/"):
            entry = self.log.begin(request)
            status, answer, fault = self._answer(request)
            entry.status = status
            return entry, answer if fault is None else _faulty(answer, fault)
        return None, self._control(route, request.body)

    def _answer(self, request: Request) -> tuple[int, bytes, PolicyFault | None]:
        headers = dict(request.headers)
        if self._token is not None and headers.get(b"authorization") != f"Bearer {self._token}".encode():
            return 401, _response(401, {"code": "unauthorized"}), None
        try:
            asked = _decode_policy(request.body)["input"]
        except (ValueError, KeyError):
            return 400, _response(400, {"code": "invalid_parameter"}), None
        self.questions.append(asked)
        fault = self._next_fault(asked)
        if fault is not None and (fault.body is not None or fault.status != 200):
            return fault.status, _raw(fault.status, (fault.body or "").encode(), location=fault.location), fault
        document: dict[str, Any] = {"decision_id": f"decision-{next(self._ids)}"}
        result = self._decide(asked)
        if result is not UNDEFINED:
            document["result"] = result
        return 200, _response(200, document), fault

    def _decide(self, asked: dict[str, Any]) -> Any:
        if callable(self.policy):
            return self.policy(asked)
        return self.policy.get(asked["tenant"], self.policy.get(_ANYBODY, UNDEFINED))

    def _next_fault(self, asked: dict[str, Any]) -> PolicyFault | None:
        for order in self._orders:
            if order.fault.tenant not in {None, asked.get("tenant")} or order.times == 0:
                continue
            if order.times is not None:
                order.times -= 1
            return order.fault
        return None

    def _control(self, route: tuple[str, bytes], body: bytes) -> bytes:
        try:
            if route == ("GET", b"/questions"):
                return _response(200, self.questions)
            if route == ("POST", b"/control/policy"):
                self.policy = _decode_policy(body)
                return _response(200, {})
            if route == ("POST", b"/control/faults"):
                self._orders.insert(0, msgspec.json.decode(body, type=_Order))
                return _response(200, {"orders": len(self._orders)})
        except ValueError as error:
            return _response(400, {"error": str(error)})
        return _response(404, {"error": "There are POST /v1/data/..., GET /questions and POST /control/..."})


def _faulty(answer: bytes, fault: PolicyFault) -> Iterator[Step]:
    if fault.delay:
        yield fault.delay
    if fault.ends == "answer":
        yield answer
    else:
        yield End.STALL if fault.ends == "hang" else End.RESET


def _response(status: int, document: object) -> bytes:
    return _raw(status, msgspec.json.encode(document))


def _raw(status: int, body: bytes, *, location: str | None = None) -> bytes:
    where = b"" if location is None else b"location: %b\r\n" % location.encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return status_line(status) + where + head + body


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="gateway_middleware.simulator.policy_adapter", description="A policy-adapter.")
    made.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    made.add_argument("--port", type=int, default=9300, help="0 takes a free one (default 9300)")
    made.add_argument("--policy", default='{"*": true}', help="results by tenant, in JSON (default: everybody may)")
    made.add_argument("--token", help="the only bearer token to take (default: any)")
    made.add_argument("--fault", help='what to do wrong from the beginning, in JSON: {"delay": 30}')
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM."""
    options = parser().parse_args(arguments)
    try:
        adapter = PolicyAdapter(_decode_policy(options.policy), token=options.token)
        if options.fault is not None:
            adapter.behave(msgspec.json.decode(options.fault, type=PolicyFault))
    except ValueError as error:
        sys.stderr.write(f"policy_adapter: {error}\n")
        return 2
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        return runner.run(_run(adapter, options))


async def _run(adapter: PolicyAdapter, options: argparse.Namespace) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        async with adapter.serve(host=options.host, port=options.port) as server:
            sys.stdout.write(f"Policy-adapter listening on {server.url}\n")
            sys.stdout.flush()
            await stopped.wait()
    except OSError as error:
        sys.stderr.write(f"policy_adapter: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
