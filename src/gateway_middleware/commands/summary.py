"""What a start and `check` say of a configuration: where things are kept, what is off, what is ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_middleware.settings import Settings

_IGNORED = {
    "HTTP_PROXY": "a provider's own `proxy` names its proxy",
    "HTTPS_PROXY": "a provider's own `proxy` names its proxy",
    "ALL_PROXY": "a provider's own `proxy` names its proxy",
    "NO_PROXY": "only a provider with a `proxy` goes through one",
    "SSL_CERT_FILE": "a provider's own `ca_file` adds authorities to the public ones",
    "SSL_CERT_DIR": "a provider's own `ca_file` adds authorities to the public ones",
    "REQUESTS_CA_BUNDLE": "a provider's own `ca_file` adds authorities to the public ones",
    "CURL_CA_BUNDLE": "a provider's own `ca_file` adds authorities to the public ones",
    "SSLKEYLOGFILE": "session keys are never written",
}
_PASSWORD = re.compile(r"(?<=//)[^/]*@")


def places(settings: Settings) -> Iterable[str]:
    """Where calls, limits and news are kept, by default too."""
    metering = settings.usage_metering_url or "off: they stay in the journal (GATEWAY_USAGE_METERING_URL)"
    yield f"journal {settings.journal if settings.journal != 'off' else 'off: nothing is metered (GATEWAY_JOURNAL)'}"
    yield f"usage events {metering if settings.journal != 'off' else 'off: there is no journal'}"
    yield f"limits and news {_PASSWORD.sub('', settings.storage_uri.reveal())}"
    yield f"limits of a tenant that names none: {_default_limits(settings)}"
    yield f"admin {'on' if settings.admin_token else 'off (GATEWAY_ADMIN_TOKEN)'}"
    yield f"metrics {'with a token' if settings.metrics_token else 'open to whoever asks (GATEWAY_METRICS_TOKEN)'}"
    yield f"files watched: {_watched(settings)}"


def switched_off(settings: Settings) -> list[str]:
    """What is not in force, and the variable that changes it."""
    parts = {
        "admin (GATEWAY_ADMIN_TOKEN)": settings.admin_token is None,
        "journal (GATEWAY_JOURNAL)": settings.journal == "off",
        "delivery of usage events (GATEWAY_USAGE_METERING_URL)": settings.usage_metering_url is None,
        "sharing over replicas (GATEWAY_STORAGE_URI)": settings.storage_uri.reveal() == "memory://",
        "circuit breakers (GATEWAY_BREAKER)": settings.breaker != "on",
        "queue (GATEWAY_QUEUE_SECONDS)": settings.queue_seconds is None,
        "tracing (GATEWAY_TRACING)": settings.tracing == "off",
    }
    return [name for name, is_off in parts.items() if is_off]


def ignored_variables(environ: Mapping[str, str]) -> Iterable[str]:
    """The variables for proxies and certificates that other programs go by and the gateway does not."""
    for name, instead in _IGNORED.items():
        for spelled in (name, name.lower()):
            if environ.get(spelled):
                yield f"{spelled}: ignored: {instead}"


def _default_limits(settings: Settings) -> str:
    named = {
        "requests": settings.default_requests,
        "tokens": settings.default_tokens,
        "concurrency": settings.default_concurrency,
        "spend": settings.default_spend,
    }
    return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None) or "none"


def _watched(settings: Settings) -> str:
    if not settings.files:
        return "none"
    paths = ", ".join(file.path for file in settings.files)
    every = f"every {settings.watch_seconds:g} s" if settings.watch_seconds else "never (GATEWAY_WATCH_SECONDS)"
    return f"{paths}, {every}"
