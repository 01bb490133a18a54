"""Embeddings, moderations, images and audio; forms too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway_middleware.intake.resources.chat import PARTS, VOICE
from gateway_middleware.intake.resources.rules import (
    Each,
    Members,
    Quick,
    Rule,
    Scan,
    Shaped,
    address,
    all_of,
    anything,
    nothing,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

EMBEDDINGS: dict[str, Rule] = all_of("model input encoding_format user input_type truncate task")
MODERATIONS: dict[str, Rule] = {"model": anything, "input": Quick(str | list[str], rule=Each(PARTS))}
_IMAGE = "model prompt size quality style response_format user background moderation output_format input_fidelity"
IMAGES: dict[str, Rule] = all_of(_IMAGE)
_PICTURE = Shaped(text=address, members=Members({"image_url": address, "file_id": nothing}))
EDITS: dict[str, Rule] = {**IMAGES, "images": Each(_PICTURE), "image": _PICTURE, "mask": _PICTURE}
SPEECH: dict[str, Rule] = {"voice": VOICE, **all_of("model input instructions response_format stream_format language")}

_FORM_NAMES = frozenset(
    f"{_IMAGE} image image[] mask file language include[] include timestamp_granularities[] timestamp_granularities "
    "chunking_strategy known_speaker_names[] known_speaker_references[] known_speaker_names "
    "known_speaker_references".split()
)
_PLAIN = re.compile(rb"[0-9.+-]{0,32}|[a-z]{0,32}")


def check_form(fields: Mapping[bytes, bytes]) -> None:
    """Refuse a form with a field that might name what is stored: one that is not known, with more than a word in it."""
    scan = Scan()
    for name, content in fields.items():
        scan.field = scan.member = name.decode("latin-1")[:64]
        if scan.field not in _FORM_NAMES and _PLAIN.fullmatch(content.strip()) is None:
            scan.refuse_member()
