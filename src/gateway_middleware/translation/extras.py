"""What a translated request says besides the conversation, for servers of OpenAI's format that take no such fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.errors import UpstreamStatusError
    from gateway_middleware.translation.fields import Losses

_EXTRAS = {
    "user": "user",
    "safety_identifier": "safety_identifier",
    "prompt_cache_key": "cache_key",
    "prompt_cache_retention": "prompt_cache_retention",
    "metadata": "metadata",
}
"""Fields that change nothing of an answer, with the vocabulary's names."""
_NAMED = re.compile(rb"""["'`.\\](?:%b)[\\"'`:]""" % "|".join(_EXTRAS).encode())
_REFUSED = re.compile(
    rb"extra|unknown|unrecogni[sz]ed|unsupported|unexpected|not (?:supported|permitted|allowed)", re.IGNORECASE
)
_STATUSES = frozenset({400, 422})
_MAX_MODELS = 256
_UNDER_WAY = 60.0


class RefusedExtras:
    """The models whose server has refused such a field: they are sent none of them. `now` gives seconds."""

    __slots__ = ("_learnt", "_now")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._learnt: dict[str, float] = {}

    def learns(self, model: str, error: UpstreamStatusError) -> bool:
        """Whether this error says so, to a call that was sent before it was known."""
        says_so = error.upstream_status in _STATUSES and _REFUSED.search(error.body) and _NAMED.search(error.body)
        if not says_so:
            return False
        if len(self._learnt) >= _MAX_MODELS:
            self._learnt.clear()
        return self._now() - self._learnt.setdefault(model, self._now()) < _UNDER_WAY

    def leave_out(self, written: dict[str, Any], model: str, losses: Losses) -> None:
        """Take them out of a request to such a model, and list them."""
        if model not in self._learnt:
            return
        for field, name in _EXTRAS.items():
            if written.pop(field, None) is not None:
                losses.drop(name)
