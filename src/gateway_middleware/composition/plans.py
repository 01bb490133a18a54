"""The plans of calls as a part: dropped as soon as anything changes that they go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.composition.part import Commit, Lifeless
from gateway_middleware.core.plan import Plans

if TYPE_CHECKING:
    from gateway_middleware.composition.keys import RuntimeKeys
    from gateway_middleware.composition.revocations import Revocations
    from gateway_middleware.settings import Settings


class CallPlans(Lifeless):
    """The plans of one gateway. A reload drops them, whatever it changes, and so does a key or tenant that changes.

    It commits after the parts whose new settings the next plans are made from.
    """

    takes: frozenset[str] = frozenset()

    def __init__(self, revocations: Revocations, keys: RuntimeKeys) -> None:
        self.calls = Plans()
        revocations.subscribe(self.calls.drop)
        keys.subscribe(self.calls.drop)

    def prepare(self, new: Settings) -> Commit:
        """Plans are made anew, by the calls that come after."""
        return self.calls.drop
