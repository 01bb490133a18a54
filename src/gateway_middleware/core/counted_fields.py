"""Which fields of a request decide what it may cost, by surface: one table for limits, prices and documentation."""

from __future__ import annotations

import msgspec

from gateway_middleware.core.domain import Surface


class CountedFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a surface that count; the same field on another surface counts nothing.

    `caps` bound the output in tokens, the largest one counts. `choices` say how many outputs are asked for, the largest
    one counts. `prompts` holds one prompt or a list of them, each of which gets all the outputs. `read` is what the
    model reads: text by its bytes, token ids by their number.
    """

    caps: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    prompts: str | None = None
    read: tuple[str, ...] = ()
    counted: frozenset[str] = frozenset()
    """All that says how many outputs are asked for: made from the others, never given."""
    texts: frozenset[str] = frozenset()
    """The same names as `read`."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "counted", frozenset((*self.choices, *filter(None, (self.prompts,)))))
        msgspec.structs.force_setattr(self, "texts", frozenset(self.read))


COUNTED: dict[Surface, CountedFields] = {
    Surface.CHAT: CountedFields(
        caps=("max_tokens", "max_completion_tokens"),
        choices=("n",),
        read=("messages", "tools", "functions", "response_format", "prediction"),
    ),
    Surface.RESPONSES: CountedFields(
        caps=("max_output_tokens",), read=("input", "instructions", "tools", "text", "prompt")
    ),
    Surface.COMPLETIONS: CountedFields(
        caps=("max_tokens",), choices=("n", "best_of"), prompts="prompt", read=("prompt", "suffix")
    ),
    Surface.MESSAGES: CountedFields(
        caps=("max_tokens",), read=("messages", "system", "tools", "output_format", "output_config")
    ),
    Surface.EMBEDDINGS: CountedFields(read=("input",)),
    Surface.COMPACT: CountedFields(read=("input", "instructions", "tools")),
    Surface.INPUT_TOKENS: CountedFields(),
    Surface.STORED: CountedFields(),
    Surface.COUNT_TOKENS: CountedFields(),
    Surface.MODERATIONS: CountedFields(),
    Surface.IMAGES_GENERATIONS: CountedFields(choices=("n",), read=("prompt",)),
    Surface.IMAGES_EDITS: CountedFields(choices=("n",), read=("prompt",)),
    Surface.IMAGES_VARIATIONS: CountedFields(choices=("n",)),
    Surface.AUDIO_SPEECH: CountedFields(read=("input", "instructions")),
    Surface.AUDIO_TRANSCRIPTIONS: CountedFields(read=("prompt",)),
    Surface.AUDIO_TRANSLATIONS: CountedFields(read=("prompt",)),
}
"""Every surface, by the parameters that OpenAI and Anthropic document for it."""


def render_table() -> str:
    """A Markdown table of what is reserved before a call and billed after it, with a newline at its end."""
    rows = [f"| {surface.value} | {_reserved(surface)} | {_billed(surface)} |" for surface in Surface]
    return "\n".join(["| surface | fields that are reserved for | billed |", "|---|---|---|", *rows]) + "\n"


def _reserved(surface: Surface) -> str:
    if not surface.uses_tokens:
        return "a request"
    counted = COUNTED[surface]
    output = [f"the largest of {_listed(counted.caps)}" if len(counted.caps) > 1 else _listed(counted.caps)]
    if not counted.caps:
        output = [] if surface is Surface.EMBEDDINGS else ["what 90 % of such calls needed lately"]
    if counted.choices:
        several = f"the largest of {_listed(counted.choices)}" if len(counted.choices) > 1 else _listed(counted.choices)
        output.append(f"times {several}")
    if counted.prompts is not None:
        output.append(f"times the prompts in `{counted.prompts}`")
    read = f"input: {_listed(counted.read)}" if counted.read else "no input"
    return f"{read}; output: {' '.join(output) or 'none'}"


def _billed(surface: Surface) -> str:
    return "input and output as the provider counts them" if surface.uses_tokens else "nothing: free at every provider"


def _listed(fields: tuple[str, ...]) -> str:
    return ", ".join(f"`{field}`" for field in fields)
