"""What a translated request says besides the conversation, for servers of OpenAI's format that take no such fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def is_about_extras(error: UpstreamStatusError) -> bool:
    """Whether the server says that it takes no such field."""
    if error.upstream_status not in _STATUSES:
        return False
    return _REFUSED.search(error.body) is not None and _NAMED.search(error.body) is not None


def leave_out_extras(written: dict[str, Any], losses: Losses) -> None:
    """Take them out of a request, and list them."""
    for field, name in _EXTRAS.items():
        if written.pop(field, None) is not None:
            losses.drop(name)
