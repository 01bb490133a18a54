"""The allow-list of each surface, and the one look at a request that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Surface
from gateway_middleware.intake.resources.chat import CHAT, COMPLETIONS
from gateway_middleware.intake.resources.media import EDITS, EMBEDDINGS, IMAGES, MODERATIONS, SPEECH
from gateway_middleware.intake.resources.messages import MESSAGES
from gateway_middleware.intake.resources.responses import RESPONSES
from gateway_middleware.intake.resources.rules import NULL, Rule, Scan, anything, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

TABLES: Mapping[Surface, Mapping[str, Rule]] = {
    Surface.CHAT: CHAT,
    Surface.COMPLETIONS: COMPLETIONS,
    Surface.RESPONSES: RESPONSES,
    Surface.INPUT_TOKENS: RESPONSES,
    Surface.COMPACT: RESPONSES,
    Surface.STORED: {},
    Surface.MESSAGES: MESSAGES,
    Surface.COUNT_TOKENS: MESSAGES,
    Surface.EMBEDDINGS: EMBEDDINGS,
    Surface.MODERATIONS: MODERATIONS,
    Surface.IMAGES_GENERATIONS: IMAGES,
    Surface.IMAGES_EDITS: EDITS,
    Surface.IMAGES_VARIATIONS: EDITS,
    Surface.AUDIO_SPEECH: SPEECH,
    Surface.AUDIO_TRANSCRIPTIONS: {},
    Surface.AUDIO_TRANSLATIONS: {},
}


def references_of(surface: Surface, fields: Mapping[str, msgspec.Raw]) -> Mapping[str, str]:
    """The identifiers of stored things that the sender must own, each with the field that names it.

    Raises `InvalidRequestError` that names the field for what is neither self-contained nor of a kind whose owners are
    known.
    """
    table, scan = TABLES[surface], Scan()
    for name, raw in fields.items():
        rule = table.get(name, plain)
        if rule is not anything and raw != NULL:
            scan.field = scan.member = name[:64]
            rule(raw, scan)
    scan.close()
    return scan.references
