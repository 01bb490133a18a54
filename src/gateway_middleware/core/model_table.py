"""Context windows and longest outputs of models, in tokens. Made by a script: see `docs/translation.md`."""

LIMITS: dict[str, tuple[int | None, int | None]] = {}
