"""AWS Signature Version 4: says who calls by a signature over the request.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.provider_api import AwsConfig, UpstreamRequest

    Headers = tuple[tuple[bytes, bytes], ...]

_ALGORITHM = "AWS4-HMAC-SHA256"


class AwsSigner:
    """Adds the headers of a signature to a request whose target and body are final. `wall` is seconds since the epoch.

    Signed are method, path, query, host, time and body; other headers may change on the way.
    """

    def __init__(self, config: AwsConfig, *, wall: Clock) -> None:
        self._config = config
        self._wall = wall

    def __call__(self, request: UpstreamRequest) -> UpstreamRequest:
        config = self._config
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall()))
        headers = {"host": request.target.origin.authority, "x-amz-date": moment}
        if config.session_token is not None:
            headers["x-amz-security-token"] = config.session_token.reveal()
        names = ";".join(headers)
        scope = f"{moment[:8]}/{config.region}/{config.service}/aws4_request"
        canonical = hashlib.sha256(_canonical(request, headers).encode()).hexdigest()
        text = f"{_ALGORITHM}\n{moment}\n{scope}\n{canonical}"
        signature = hmac.digest(_key(config, moment[:8]), text.encode(), "sha256").hex()
        credential = f"Credential={config.access_key_id.reveal()}/{scope}"
        headers["authorization"] = f"{_ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"
        del headers["host"]  # it is part of the target
        added = tuple((name.encode(), value.encode()) for name, value in headers.items())
        return msgspec.structs.replace(request, headers=(*request.headers, *added))


def _canonical(request: UpstreamRequest, headers: dict[str, str]) -> str:
    """The request as both sides write it down. `headers` are in the order of their names."""
    path, _, query = request.target.path.partition("?")
    lines = [
        request.target.method,
        quote(path, safe="/-_.~"),
        "&".join(sorted(pair if "=" in pair else f"{pair}=" for pair in query.split("&") if pair)),
        *(f"{name}:{value}" for name, value in headers.items()),
        "",
        ";".join(headers),
        hashlib.sha256(request.body).hexdigest(),
    ]
    return "\n".join(lines)


def _key(config: AwsConfig, day: str) -> bytes:
    key = b"AWS4" + config.secret_access_key.reveal().encode()
    for part in (day, config.region, config.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
