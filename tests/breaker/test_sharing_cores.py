"""What is decided without Redis: whose turn it is, what is news, which order comes next."""

from __future__ import annotations

import pytest

from clock import Clock
from gateway_middleware.breaker.peers.hints import HintBoard
from gateway_middleware.breaker.peers.news import Outbox
from gateway_middleware.breaker.peers.orders import NumberedOrder, OrderBook, SharedOrder, encode
from gateway_middleware.breaker.peers.probes import IDLE_SECONDS, ProbeLeases, Request

KEY = "openai/gpt-5"


def order(generation: int, key: str = KEY) -> NumberedOrder:
    return NumberedOrder(generation, 10**13, SharedOrder(key, "reset"))


class Leases:
    """Leases of a replica whose store answers at once."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.leases = ProbeLeases(self.clock, lambda: None)
        self.leases.share(is_shared=True)

    def answer(self, others: float = 0.0) -> list[float]:
        asked = dict(self.leases.requests)
        self.leases.requests.clear()
        for key, request in asked.items():
            if request.seconds:
                self.leases.answered(key, request, self.clock(), others)
        return [request.seconds for request in asked.values()]


def test_a_lease_is_short_until_a_probe_is_out_and_after_it() -> None:
    given = Leases()
    assert not given.leases.may_probe(KEY, 61.0)
    assert given.answer() == [IDLE_SECONDS]
    assert given.leases.may_probe(KEY, 61.0)
    assert given.answer() == [61.0]
    given.leases.ended(KEY, again=True)
    assert given.answer() == [IDLE_SECONDS]
    assert given.leases.may_probe(KEY, 61.0)
    given.leases.ended(KEY, again=False)
    assert given.answer() == [0.0]
    assert not given.leases.may_probe(KEY, 61.0)


def test_an_unused_lease_is_not_relied_on_when_it_is_about_to_end() -> None:
    given = Leases()
    given.leases.prepare(KEY)
    given.answer()
    given.clock.advance(IDLE_SECONDS - 0.05)
    assert not given.leases.may_probe(KEY, 61.0)
    assert given.answer() == [IDLE_SECONDS]
    assert given.leases.may_probe(KEY, 61.0)


def test_what_is_somebody_elses_is_not_asked_for_at_each_call() -> None:
    given = Leases()
    for _ in range(100):
        assert not given.leases.may_probe(KEY, 61.0)
    assert given.answer(others=50.0) == [IDLE_SECONDS]
    for _ in range(100):
        assert not given.leases.may_probe(KEY, 61.0)
    assert given.answer() == []
    given.clock.advance(0.3)
    assert not given.leases.may_probe(KEY, 61.0)
    assert given.answer() == [IDLE_SECONDS]


def test_a_lease_that_comes_after_its_reason_is_given_back() -> None:
    given = Leases()
    given.leases.prepare(KEY)
    given.leases.requests.clear()  # under way
    given.leases.ended(KEY, again=False)
    given.leases.requests.clear()  # the store has seen this one first
    given.leases.answered(KEY, Request(IDLE_SECONDS), given.clock(), 0.0)
    assert given.answer() == [0.0]


def test_an_answer_that_never_comes_is_asked_for_again() -> None:
    given = Leases()
    given.leases.prepare(KEY)
    given.leases.requests.clear()
    given.clock.advance(1.1)
    given.leases.prepare(KEY)
    assert given.answer() == [IDLE_SECONDS]


def test_orders_are_taken_once_in_their_order_and_a_gap_is_seen() -> None:
    book = OrderBook()
    assert book.read([], 5) == []
    assert book.hear([order(6)]) == [order(6)]
    assert book.hear([order(6)]) == []
    assert book.hear([order(8)]) is None
    assert book.read([encode(order(8, "b")), encode(order(7, "a")), b"rubbish"], 8) == [order(7, "a"), order(8, "b")]
    assert book.known == 8
    assert {found.order.key for found in book.standing(0)} == {KEY, "a", "b"}
    assert book.standing(10**14) == []


def test_an_own_order_is_not_carried_out_twice_unless_another_came_before() -> None:
    book = OrderBook()
    book.read([], 5)
    assert book.take_own(order(6), 5)
    assert not book.take_own(order(8), 6)
    assert book.hear([order(7)]) == [order(7)]
    assert not book.take_own(order(8), 6)


def test_hints_need_two_others_and_act_once() -> None:
    board = HintBoard("me")
    assert board.note(KEY, "a", 10.0, 0.0) is None
    assert board.note(KEY, "me", 10.0, 0.0) is None
    assert board.note(KEY, "a", 12.0, 0.0) is None
    assert board.note(KEY, "b", 20.0, 0.0) == 12.0
    assert board.note(KEY, "b", 20.1, 0.0) is None
    assert board.note(KEY, "c", 15.0, 1.0) == pytest.approx(14.0)
    assert board.note(KEY, "a", 30.0, 25.0) is None, "the others are silent by now"
    board.forget("openai")
    assert board.note(KEY, "b", 40.0, 25.0) is None


def test_an_outbox_is_bounded_and_drops_the_oldest() -> None:
    clock = Clock()
    outbox = Outbox(clock, most=3)
    for n in range(5):
        outbox.put((KEY, str(n)), 10.0)
    assert outbox.dropped == 2
    assert [pair[1] for pair, _ in outbox.take()] == ["2", "3", "4"]


def test_an_outbox_tells_what_is_left_of_the_time_and_nothing_that_is_over() -> None:
    clock = Clock()
    outbox = Outbox(clock, most=1000)
    for n in range(300):
        outbox.put((KEY, str(n)), 1.0)
    outbox.put((KEY, "long"), 10.0)
    clock.advance(4.0)
    assert dict(outbox.take()) == {(KEY, "long"): pytest.approx(6.0)}
    outbox.put_back([((KEY, "long"), 6.0)])
    outbox.put((KEY, "long"), 0.0)
    assert outbox.take() == [((KEY, "long"), 0.0)]
    outbox.put((KEY, "never said"), 0.0)
    assert outbox.take() == []
