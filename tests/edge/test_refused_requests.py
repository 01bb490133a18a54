"""What never becomes a call is counted all the same, and told in a bounded number of lines."""

from __future__ import annotations

import json
from typing import Any

from clock import Clock
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.refused_requests import RefusedRequests


def test_all_are_counted_and_some_are_logged() -> None:
    written: list[bytes] = []
    log, clock = AccessLog(written.append), Clock()
    refused = RefusedRequests(log, clock)

    def lines() -> list[dict[str, Any]]:
        log.flush()
        return [json.loads(line) for line in b"".join(written).splitlines()]

    for number in range(1000):
        refused.note(status=400, code="invalid_http", message="no", request_id=f"r{number}")
    assert refused.counts == {"invalid_http": 1000}
    assert [(line["request_id"], line["unlogged"]) for line in lines()] == [(f"r{n}", 0) for n in range(10)]
    clock.advance(10.0)
    refused.note(status=408, code="request_timeout", message="slow", request_id="last")
    assert refused.counts == {"invalid_http": 1000, "request_timeout": 1}
    last = lines()[-1]
    assert (last["event"], last["level"], last["status"], last["code"]) == (
        "request_refused", "warning", 408, "request_timeout",
    )  # fmt: skip
    assert last["unlogged"] == 990
