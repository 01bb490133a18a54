"""What the name of a model may be, to a client and in the configuration."""

from __future__ import annotations

MAX_MODEL_NAME = 256
RULE = f"1 to {MAX_MODEL_NAME} printable ASCII characters, no space at either end, no .. or //"
"""The rule in words, for complaints."""


def is_model_name(name: str) -> bool:
    """Whether providers can use such a name: `@cf/meta/llama`, `claude-x[1m]`, `~a/b` and `Qwen/Qwen3` are in use.

    Names go into headers and logs, so everything but printable ASCII is none. `..` and `//` are for paths.
    """
    is_plain = 0 < len(name) <= MAX_MODEL_NAME and name.isascii() and name.isprintable() and name == name.strip()
    return is_plain and ".." not in name and "//" not in name
