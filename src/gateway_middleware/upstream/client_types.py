"""The HTTP client library whose types the engine speaks. A drop-in successor of httpx takes its place here."""

from __future__ import annotations

import httpx

__all__ = ["httpx"]
