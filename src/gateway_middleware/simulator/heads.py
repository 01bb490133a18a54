"""Response headers as each vendor sends them, those included that a gateway must not pass on."""

from __future__ import annotations

from http import HTTPStatus
from time import gmtime, strftime

from gateway_middleware.core.domain import Clock, Dialect

_FRONT = (
    b"server: cloudflare\r\n"
    b"set-cookie: __cf_bm=simulated; path=/; HttpOnly; Secure; SameSite=None\r\n"
    b"x-content-type-options: nosniff\r\n"
)
_OPENAI = (
    b"openai-organization: org-simulated\r\n"
    b"openai-project: proj_simulated\r\n"
    b"openai-processing-ms: 7\r\n"
    b"openai-version: 2020-10-01\r\n"
    b"x-ratelimit-limit-requests: 10000\r\n"
    b"x-ratelimit-limit-tokens: 30000000\r\n"
    b"x-ratelimit-remaining-requests: 9999\r\n"
    b"x-ratelimit-remaining-tokens: 29999978\r\n"
    b"x-ratelimit-reset-requests: 6ms\r\n"
    b"x-ratelimit-reset-tokens: 0s\r\n"
    b"x-request-id: req_"
)
_ANTHROPIC = (
    b"anthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\n"
    b"anthropic-ratelimit-requests-limit: 4000\r\n"
    b"anthropic-ratelimit-requests-remaining: 3999\r\n"
    b"anthropic-ratelimit-requests-reset: %(reset)b\r\n"
    b"anthropic-ratelimit-tokens-limit: 2400000\r\n"
    b"anthropic-ratelimit-tokens-remaining: 2399000\r\n"
    b"anthropic-ratelimit-tokens-reset: %(reset)b\r\n"
    b"request-id: req_"
)
_AZURE = (
    b"azureml-model-session: d000-simulated\r\n"
    b"x-ms-rai-invoked: true\r\n"
    b"x-ms-region: Simulated Central\r\n"
    b"x-ratelimit-limit-requests: 250\r\n"
    b"x-ratelimit-limit-tokens: 250000\r\n"
    b"x-ratelimit-remaining-requests: 249\r\n"
    b"x-ratelimit-remaining-tokens: 249000\r\n"
    b"x-request-id: simulated\r\n"
    b"apim-request-id: "
)
_TEMPLATES = {Dialect.OPENAI: _OPENAI, Dialect.ANTHROPIC: _ANTHROPIC, Dialect.AZURE: _AZURE}
_PHRASES = {known.value: known.phrase for known in HTTPStatus}
_MINUTE = 60


def status_line(status: int) -> bytes:
    """The first line of a response."""
    phrase = _PHRASES.get(status, "Simulated")
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def without_headers(head: bytes, beginnings: tuple[str, ...]) -> bytes:
    """The head without the headers whose names begin so."""
    refused = tuple(beginning.encode() for beginning in beginnings)
    return b"".join(line for line in head.splitlines(keepends=True) if not line.startswith(refused))


class Heads:
    """Makes heads; all of one but the request id is made once a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minute = -1
        self._made: dict[tuple[Dialect, int, bytes], bytes] = {}

    def head(self, provider: Dialect, status: int, content_type: bytes, number: bytes) -> bytes:
        """Status line and headers, each with its line end, without framing and the blank line."""
        minute = int(self._clock()) // _MINUTE
        if minute != self._minute:
            self._minute = minute
            self._made.clear()
        key = (provider, status, content_type)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(*key)
        return b"%b%b\r\n" % (made, number)

    def _make(self, provider: Dialect, status: int, content_type: bytes) -> bytes:
        reset = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime((self._minute + 1) * _MINUTE)).encode()
        own = _TEMPLATES[provider].replace(b"%(reset)b", reset)
        return status_line(status) + b"content-type: " + content_type + b"\r\n" + _FRONT + own
