"""The control endpoint of the simulator: tests in another process set its behaviour and read its log over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import msgspec

from gateway_middleware.simulator.answer import encode
from gateway_middleware.simulator.behaviour import Rule, Rulebook
from gateway_middleware.simulator.heads import status_line
from gateway_middleware.simulator.record import Received, Request, RequestLog

_decode_rule = msgspec.json.Decoder(Rule).decode


class Controlled(Protocol):
    """What can be controlled: how requests are answered, and the log of them."""

    rules: Rulebook
    log: RequestLog


Control: TypeAlias = Callable[[Controlled, Request], dict[str, Any]]


def respond(simulator: Controlled, request: Request, path: str) -> bytes:
    """The whole answer to a control request."""
    control = _CONTROLS.get((request.method, path))
    if control is None:
        known = ", ".join(f"{method} {known}" for method, known in _CONTROLS)
        return _answer(404, {"error": f"There is no {request.method} {path}, but {known}."})
    try:
        return _answer(200, control(simulator, request))
    except ValueError as error:
        return _answer(400, {"error": str(error)})


def _answer(status: int, document: Any) -> bytes:
    body = encode(document)
    head = status_line(status) + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


def _list_rules(simulator: Controlled, _: Request) -> dict[str, Any]:
    return {"rules": msgspec.to_builtins(simulator.rules.rules)}


def _add_rule(simulator: Controlled, request: Request) -> dict[str, Any]:
    simulator.rules.add(_decode_rule(request.body))
    return {"rules": len(simulator.rules.rules)}


def _clear_rules(simulator: Controlled, _: Request) -> dict[str, Any]:
    simulator.rules.clear()
    return {"rules": 0}


def _list_requests(simulator: Controlled, _: Request) -> dict[str, Any]:
    requests = [_entry(each) for each in simulator.log.entries]
    return {"counters": msgspec.to_builtins(simulator.log.counters), "requests": requests}


def _clear_requests(simulator: Controlled, _: Request) -> dict[str, Any]:
    simulator.log.clear()
    return {"requests": 0}


def _entry(received: Received) -> dict[str, Any]:
    """Headers as pairs of text, and the body as text; bytes that are none are escaped."""
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in received.headers]
    body = received.body.decode("utf-8", "backslashreplace")
    return msgspec.structs.asdict(received) | {"headers": headers, "body": body}


_CONTROLS: dict[tuple[str, str], Control] = {
    ("GET", "/control/behaviour"): _list_rules,
    ("POST", "/control/behaviour"): _add_rule,
    ("DELETE", "/control/behaviour"): _clear_rules,
    ("GET", "/control/requests"): _list_requests,
    ("DELETE", "/control/requests"): _clear_requests,
}
