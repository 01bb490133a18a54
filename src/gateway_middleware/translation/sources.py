"""Addresses of images and files: `data:` URLs and others."""

from __future__ import annotations

import re
from mimetypes import guess_type

from gateway_middleware.translation.vocabulary import Document, Image

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
PDF = "application/pdf"


def split_data_url(address: str) -> tuple[str | None, str] | None:
    """Media type and base64 content of a `data:` URL, or None for another address."""
    head = _DATA_URL.match(address)
    return (head[1], address[head.end() :]) if head else None


def image_at(address: str, detail: str | None = None, cache: dict[str, object] | None = None) -> Image:
    """The image behind a URL of any kind."""
    content = split_data_url(address)
    if content is None:
        return Image(url=address, detail=detail, cache=cache)
    return Image(media_type=content[0] or "image/png", data=content[1], detail=detail, cache=cache)


def file_of(data: str, name: str | None, cache: dict[str, object] | None = None) -> Document:
    """The file in a `data:` URL or in bare base64, whose type its name then says."""
    media_type, content = split_data_url(data) or (None, data)
    if media_type is None:
        media_type = guess_type(name)[0] if name else None
    return Document(media_type=media_type or PDF, data=content, name=name, cache=cache)
