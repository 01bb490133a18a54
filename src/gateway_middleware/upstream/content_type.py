"""The content type of an answer: ours where the provider's could make a browser run what a model wrote."""

from __future__ import annotations

import re

from gateway_middleware.core.domain import Surface

_INERT = re.compile(
    rb"(?:application/(?:json|octet-stream|x-subrip)|text/(?:plain|vtt)|audio/[a-z0-9.+-]+|video/[a-z0-9.+-]+"
    rb"|image/(?:png|jpeg|gif|webp))(?:\s*;[\x20-\x7e]*)?",
    re.IGNORECASE,
)
_JSON = b"application/json"
_MAX_LENGTH = 128
_INSTEAD = {
    Surface.AUDIO_SPEECH: b"application/octet-stream",
    Surface.AUDIO_TRANSCRIPTIONS: b"text/plain; charset=utf-8",
    Surface.AUDIO_TRANSLATIONS: b"text/plain; charset=utf-8",
}


def content_type_of(told: bytes | None, surface: Surface) -> bytes:
    """What the provider told, if it is a type of data; else that of what the surface answers with."""
    if told == _JSON:
        return _JSON
    if told is not None and len(told) <= _MAX_LENGTH and _INERT.fullmatch(told):
        return told
    return _INSTEAD.get(surface, _JSON)
