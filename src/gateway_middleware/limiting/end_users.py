"""Limits of each end user of a tenant, bounded in the number of users that are told apart."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway_middleware.limiting.limit import Claim, Limit, Unit, limit_key

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock

MAX_END_USERS = 10_000
"""Of one tenant, in one process."""
_NO_USER, _OTHER_USERS = "no-user", "other-users"


class EndUsers:
    """The end users of one tenant that are counted apart.

    Calls that name nobody are counted together, so that leaving the name out is no way around a limit. So are those of
    all further users while `max_users` have called within `idle` seconds: invented names take no memory.
    """

    def __init__(self, *, idle: float, max_users: int = MAX_END_USERS, clock: Clock = time.monotonic) -> None:
        self._idle = idle
        self._max_users = max_users
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def scope(self, end_user: str | None, *, is_call: bool = True) -> str:
        """Under what the calls of a user are counted: `user/alice`. A look alone makes nobody known."""
        if end_user is None:
            return _NO_USER
        if is_call and not self._make_known(end_user):
            return _OTHER_USERS
        return f"user/{end_user}"

    def _make_known(self, end_user: str) -> bool:
        now, seen = self._clock(), self._seen
        if end_user not in seen and len(seen) >= self._max_users:
            longest_idle = next(iter(seen))
            if now - seen[longest_idle] < self._idle:
                return False
            del seen[longest_idle]
        seen[end_user] = now
        seen.move_to_end(end_user)
        return True


class EndUserLimits:
    """The limits that each end user of one tenant has. `tag` and `scope` are where the tenant's limits are counted."""

    __slots__ = ("_limits", "_scope", "_tag", "_users")

    def __init__(self, tag: str, scope: Sequence[str], limits: Sequence[Limit], users: EndUsers) -> None:
        self._tag = tag
        self._scope = scope
        self._limits = limits
        self._users = users

    def claims(self, end_user: str | None, costs: dict[Unit, int], *, is_call: bool = True) -> list[Claim]:
        """What a call takes of them; a unit that is not among `costs` is not claimed."""
        scope = (*self._scope, self._users.scope(end_user, is_call=is_call))
        return [
            Claim(limit_key(self._tag, limit, *scope), limit, costs[limit.unit])
            for limit in self._limits
            if limit.unit in costs
        ]
