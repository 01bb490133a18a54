"""What the name of a model may be, to a client and in the configuration, and which names need not be said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Surface

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MODEL_NAME = 256
RULE = f"1 to {MAX_MODEL_NAME} printable ASCII characters, no space at either end, no .. or //"
"""The rule in words, for complaints."""

DEFAULT_MODELS: Mapping[Surface, str] = {
    Surface.MODERATIONS: "omni-moderation-latest",
    Surface.IMAGES_GENERATIONS: "dall-e-2",
    Surface.IMAGES_EDITS: "dall-e-2",
    Surface.IMAGES_VARIATIONS: "dall-e-2",
}
"""What OpenAI's API reference names as the default where a request names no model. It is the name for routes, limits
and prices; the provider gets the request without a model and takes the default of its own."""


def is_model_name(name: str) -> bool:
    """Whether providers can use such a name: `@cf/meta/llama`, `claude-x[1m]`, `~a/b` and `Qwen/Qwen3` are in use.

    Names go into headers and logs, so everything but printable ASCII is none. `..` and `//` are for paths.
    """
    is_plain = 0 < len(name) <= MAX_MODEL_NAME and name.isascii() and name.isprintable() and name == name.strip()
    return is_plain and ".." not in name and "//" not in name
