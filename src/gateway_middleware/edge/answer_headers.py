"""The headers that every answer carries: who answered, after how many attempts, in what time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Dialect

if TYPE_CHECKING:
    from gateway_middleware.core.domain import HeaderList
    from gateway_middleware.core.price import Cost
    from gateway_middleware.core.record import CallRecord

_NO_SNIFF: tuple[bytes, bytes] = (b"x-content-type-options", b"nosniff")
"""A browser takes an answer for what its content type says, whatever a model has written into it."""
_MAX_NAME, _MAX_LIST = 128, 2048
_MAX_DEPLOYMENTS = 1024


class DeploymentHeaders:
    """What answers say of a deployment, whatever the call: made once for each. A full table starts again."""

    __slots__ = ("_headers",)

    def __init__(self) -> None:
        self._headers: dict[tuple[str, str], HeaderList] = {}

    def of(self, provider: str, key: str) -> HeaderList:
        """Who answered: the provider, and the deployment with this key."""
        headers = self._headers.get((provider, key))
        if headers is None:
            if len(self._headers) >= _MAX_DEPLOYMENTS:
                self._headers.clear()
            headers = [(b"x-gateway-provider", provider.encode()), (b"x-gateway-deployment", _value(key))]
            self._headers[provider, key] = headers
        return headers


def answer_headers(
    record: CallRecord, now: float, cost: Cost | None = None, *, deployments: DeploymentHeaders
) -> HeaderList:
    """Headers for the start of the answer, `now` being that moment on the record's clock.

    `Server-Timing`: `upstream` is the time of all attempts until now, `gateway` is the rest. `x-gateway-attempts`:
    `provider;outcome;ms` for each; the attempt that is being relayed has no outcome yet. `x-gateway-cost`: US dollars,
    by the price list that `x-gateway-price-version` names. A route that is to end says so, and a call that goes on with
    a cheaper one because a budget is spent (`x-gateway-budget`, `x-gateway-route`).
    """
    request_id = record.request_id.encode()
    headers: HeaderList = [(b"x-request-id", request_id), _NO_SNIFF]
    if record.dialect is Dialect.ANTHROPIC:
        headers.append((b"request-id", request_id))
    upstream = _add_attempts(headers, record, now, deployments) if record.attempts else 0.0
    if record.retirement is not None:
        headers += record.retirement.headers
    if record.stepped_down is not None:
        headers += [(b"x-gateway-budget", b"stepped-down"), (b"x-gateway-route", _value(record.stepped_down.name))]
    if cost is not None:
        headers.append((b"x-gateway-cost", cost.text.encode()))
        headers.append((b"x-gateway-price-version", _value(cost.version)))
    gateway = max(now - record.started - upstream, 0.0)
    headers.append((b"server-timing", b"gateway;dur=%.2f, upstream;dur=%.2f" % (gateway * 1000, upstream * 1000)))
    return headers


def _add_attempts(headers: HeaderList, record: CallRecord, now: float, deployments: DeploymentHeaders) -> float:
    """Returns the seconds that all attempts took."""
    entries, upstream = [], 0.0
    for attempt in record.attempts:
        seconds = (now if attempt.ended is None else attempt.ended) - attempt.started
        upstream += seconds
        outcome = attempt.outcome or ("streaming" if record.is_stream else "success")
        entries.append(b"%b;%b;%d" % (attempt.deployment.provider.encode(), outcome.encode(), round(seconds * 1000)))
    last = record.attempts[-1]
    if last.upstream_request_id is not None:
        headers.append((b"x-gateway-upstream-request-id", _value(last.upstream_request_id)))
    headers += deployments.of(last.deployment.provider, last.deployment.key)
    headers.append((b"x-gateway-attempts", b", ".join(entries)))
    if last.translation is not None and last.translation.dropped:
        headers.append((b"x-gateway-dropped", _value(_listed(last.translation.dropped))))
    return upstream


def _listed(names: tuple[str, ...]) -> str:
    """Names with commas between them, as many as fit."""
    listed = ", ".join(name[:_MAX_NAME] for name in names)
    return listed if len(listed) <= _MAX_LIST else f"{listed[:_MAX_LIST].rpartition(',')[0]}, ..."


def _value(text: str) -> bytes:
    """A header value: model names may have come from a client."""
    if not (text.isascii() and text.isprintable()):
        text = text.encode("unicode_escape").decode("ascii")
    return text.encode("ascii")
