"""A guard behind HTTP: one POST for each verdict.

The request is a JSON object of what is shown: `stage`, `part`, `content`, `tenant`, `model`, `surface`, `dialect`,
`request_id`. The answer is 200 with `action` (`pass`, `replace`, `refuse`), and `content` or `reason` with these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.fetch import FetchError
from gateway_middleware.guard.port import Verdict

if TYPE_CHECKING:
    from gateway_middleware.core.fetch import Fetch
    from gateway_middleware.core.secret import Secret
    from gateway_middleware.guard.port import Guarded

_OK = 200
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Verdict).decode


class WebhookGuard:
    """Asks the service at `url`, with `token` as bearer token.

    `deadline` is in seconds, `max_bytes` bounds the answer. A call raises `FetchError` when there is no verdict.
    """

    def __init__(self, url: str, *, fetch: Fetch, deadline: float, max_bytes: int, token: Secret | None = None) -> None:
        self._url = url
        self._fetch = fetch
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._headers = {"content-type": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token.reveal()}"

    async def __call__(self, guarded: Guarded) -> Verdict:
        answer = await self._fetch(
            "POST",
            self._url,
            headers=self._headers,
            body=_encode(guarded),
            deadline=self._deadline,
            max_bytes=self._max_bytes,
        )
        if answer.status != _OK:
            raise FetchError(f"HTTP {answer.status}")
        try:
            return _decode(answer.body)
        except ValueError as error:
            raise FetchError("no verdict") from error
