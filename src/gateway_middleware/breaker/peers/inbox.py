"""What other replicas have said, and what this one does about it. No I/O: the effects are three callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway_middleware.breaker.peers.hints import HintBoard
from gateway_middleware.breaker.peers.news import News, Outbox, Sync
from gateway_middleware.breaker.peers.orders import NumberedOrder, OrderBook, encode
from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.core.domain import Clock

_log = logging.getLogger("gateway_middleware")

_COMMANDS = {command.value: command for command in Command}
_SAME = 0.1


class Inbox:
    """Applies news. `cooldowns` knows which ones are known. The clock of Redis is read off each `Sync`."""

    def __init__(
        self,
        replica: str,
        cooldowns: Outbox,
        clock: Clock,
        *,
        on_cooldown: Callable[[str | None, str, float], None],
        on_command: Callable[[str, Command, float, str], None],
        on_hint: Callable[[str, float], None],
    ) -> None:
        self._replica = replica
        self._cooldowns = cooldowns
        self._clock = clock
        self._on_cooldown, self._on_command, self._on_hint = on_cooldown, on_command, on_hint
        self._board = HintBoard(replica)
        self._offset = 0.0
        self.book = OrderBook()

    def hear(self, news: News) -> bool:
        """One message; False when one before it has been missed."""
        if news.replica == self._replica:
            return True
        orders = self.book.hear(news.orders)
        self._carry_out(orders or [])
        self._receive(news)
        return orders is not None

    def read(self, sync: Sync, asked: float) -> None:
        """All that stands. It was asked for at `asked`."""
        self._offset = float(sync.now) / 1000 - (asked + self._clock()) / 2
        self._carry_out(self.book.read(sync.orders, int(sync.generation)))
        self._receive(sync.news())

    def clear(self, key: str, command: Command) -> None:
        """An operator knows better than what is known of a breaker, or of all of a provider."""
        self._board.forget(key)
        if command is Command.RESET:
            self._cooldowns.forget(key)

    def standing(self) -> list[str | bytes | int]:
        """The orders that stand, as arguments of the script `RESTORE`."""
        arguments: list[str | bytes | int] = []
        for numbered in self.book.standing(round((self._clock() + self._offset) * 1000)):
            arguments += [numbered.order.key, numbered.generation, numbered.ends, encode(numbered)]
        return arguments

    def _receive(self, news: News) -> None:
        for (deployment, credential), ends in news.cooldowns:
            seconds = self._left(ends)
            if self._cooldowns.heard((deployment, credential), seconds, same=_SAME):
                _call(self._on_cooldown, deployment, credential, seconds)
        now = self._clock()
        for (key, replica), ends in news.hints:
            agreed = self._board.note(key, replica, now + self._left(ends), now)
            if agreed is not None:
                _call(self._on_hint, key, agreed)

    def _carry_out(self, orders: list[NumberedOrder]) -> None:
        for numbered in orders:
            order, left, command = numbered.order, self._left(numbered.ends), _COMMANDS.get(numbered.order.command)
            if left > 0 and command is not None:
                self.clear(order.key, command)
                _call(self._on_command, order.key, command, left, order.reason)

    def _left(self, ends: float) -> float:
        return max(ends / 1000 - self._offset - self._clock(), 0.0)


def _call(callback: Callable[..., None], *arguments: object) -> None:
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - it is another room's, and the news after it are to be applied
        _log.exception("Breaker news could not be applied")
