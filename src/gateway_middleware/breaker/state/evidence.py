"""What recent calls say about a provider: the input of the decision to open a breaker."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from gateway_middleware.breaker.state.window import FAILURE, SLOW, SUCCESS, Window

if TYPE_CHECKING:
    from gateway_middleware.breaker.failure.rules import Judgement
    from gateway_middleware.breaker.state.policy import BreakerPolicy

_MAX_CLASSES = 20
"""Failures whose classes are remembered for the operator."""


class Evidence:
    """Successes, failures and slow answers of the window; failures in a row; and when the provider wants to be asked.

    `not_before` is the latest moment that a `Retry-After` beside a failure has named, on the breaker's clock.
    """

    __slots__ = ("_classes", "_shape", "consecutive", "not_before", "window")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._shape = (policy.window, policy.buckets)
        self.window = Window(policy.window, buckets=policy.buckets)
        self.consecutive = 0
        self.not_before = 0.0
        self._classes: deque[str] = deque(maxlen=_MAX_CLASSES)

    def success(self, now: float) -> int:
        """Count a success; returns its bucket in the window."""
        return self.window.add(now, SUCCESS)

    def completed(self) -> None:
        """An answer has come to its end: failures in a row are over."""
        self.consecutive = 0
        self.not_before = 0.0

    def whole(self, now: float) -> int:
        """Both at once."""
        self.consecutive = 0
        self.not_before = 0.0
        return self.window.add(now, SUCCESS)

    def slow(self, now: float) -> None:
        """Count a success that took too long to its first content."""
        self.window.add(now, SLOW)

    def failure(self, now: float, judgement: Judgement, *, instead_of: int | None) -> None:
        """Count a failure, in the place of the success in the bucket `instead_of`."""
        if instead_of is not None:
            self.take_back(now, instead_of)
        self.window.add(now, FAILURE)
        self.consecutive += 1
        self._classes.append(judgement.failure_class or "unknown")
        if judgement.min_open is not None:
            self.not_before = max(self.not_before, now + judgement.min_open)

    def take_back(self, now: float, bucket: int) -> None:
        """Uncount a success."""
        self.window.take_back(now, SUCCESS, bucket)

    def reason_to_open(self, policy: BreakerPolicy) -> str | None:
        """In words for an operator; None: there is none."""
        successes, failures, slow = self.window.totals
        return policy.reason_to_open(self.consecutive, successes=successes, failures=failures, slow=slow)

    def clear(self) -> None:
        """Forget all counts. The classes of the last failures stay, for the operator."""
        self.window.clear()
        self.completed()

    def forget_classes(self) -> None:
        """Forget why calls failed."""
        self._classes.clear()

    def take(self, policy: BreakerPolicy) -> bool:
        """Count by another policy from now on. True if its window has another shape: then it begins empty."""
        shape = (policy.window, policy.buckets)
        if shape == self._shape:
            return False
        self._shape, self.window = shape, Window(policy.window, buckets=policy.buckets)
        return True

    @property
    def why(self) -> dict[str, int]:
        """The last failures, by class."""
        return dict(Counter(self._classes))
