"""What is decided without Redis: whose turn it is, what is new, which command comes next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.breaker.peers.command_log import CommandLog
from gateway_middleware.breaker.peers.cooldowns import SharedCooldowns
from gateway_middleware.breaker.peers.messages import Cooled, NumberedCommand, PeerCommand, decode, encode
from gateway_middleware.breaker.peers.probe_leases import IDLE_SECONDS, ProbeLeases

KEY = "openai/gpt-5"


def command(generation: int, key: str = KEY) -> NumberedCommand:
    return NumberedCommand(generation, 10**13, PeerCommand(key, "reset"))


class Leases:
    """Leases of a replica whose store answers at once."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.leases = ProbeLeases(self.clock)
        self.leases.share(is_shared=True)

    def answer(self, others: float = 0.0) -> list[float]:
        requests = dict(self.leases.requests)
        self.leases.requests.clear()
        for key, seconds in requests.items():
            if seconds:
                self.leases.answered(key, seconds, self.clock(), others)
        return list(requests.values())


def test_a_lease_is_short_until_a_probe_is_out_and_after_it() -> None:
    store = Leases()
    assert not store.leases.may_probe(KEY, 61.0)
    assert store.answer() == [IDLE_SECONDS]
    assert store.leases.may_probe(KEY, 61.0)
    assert store.answer() == [61.0]
    store.leases.ended(KEY, again=True)
    assert store.answer() == [IDLE_SECONDS]
    assert store.leases.may_probe(KEY, 61.0)
    store.leases.ended(KEY, again=False)
    assert store.answer() == [0.0]
    assert not store.leases.may_probe(KEY, 61.0)


def test_an_unused_lease_is_not_relied_on_when_it_is_about_to_end() -> None:
    store = Leases()
    store.leases.prepare(KEY)
    store.answer()
    store.clock.advance(IDLE_SECONDS - 0.05)
    assert not store.leases.may_probe(KEY, 61.0)
    assert store.answer() == [IDLE_SECONDS]
    assert store.leases.may_probe(KEY, 61.0)


def test_another_replicas_lease_is_not_asked_for_at_each_call() -> None:
    store = Leases()
    for _ in range(100):
        assert not store.leases.may_probe(KEY, 61.0)
    assert store.answer(others=50.0) == [IDLE_SECONDS]
    for _ in range(100):
        assert not store.leases.may_probe(KEY, 61.0)
    assert store.answer() == []
    store.clock.advance(0.3)
    assert not store.leases.may_probe(KEY, 61.0)
    assert store.answer() == [IDLE_SECONDS]


def test_a_lease_that_comes_after_its_reason_is_given_back() -> None:
    store = Leases()
    store.leases.prepare(KEY)
    store.leases.requests.clear()  # under way
    store.leases.ended(KEY, again=False)
    store.leases.requests.clear()  # the store has seen this one first
    store.leases.answered(KEY, IDLE_SECONDS, store.clock(), 0.0)
    assert store.answer() == [0.0]


def test_a_lease_that_is_another_replicas_after_its_reason_is_nothing() -> None:
    store = Leases()
    store.leases.answered(KEY, IDLE_SECONDS, store.clock(), 5.0)
    assert store.answer() == []


def test_an_answer_that_never_comes_is_asked_for_again() -> None:
    store = Leases()
    store.leases.prepare(KEY)
    store.leases.requests.clear()
    store.clock.advance(1.1)
    store.leases.prepare(KEY)
    assert store.answer() == [IDLE_SECONDS]


def test_alone_every_probe_may_go_and_is_made_known_later() -> None:
    store = Leases()
    store.leases.share(is_shared=False)
    store.leases.prepare(KEY)
    assert store.leases.may_probe(KEY, 61.0)
    assert store.leases.may_probe("openai/over", 1.0)
    assert store.leases.requests == {}
    store.clock.advance(2.0)
    store.leases.share(is_shared=True)
    assert store.leases.requests == {KEY: pytest.approx(59.0)}
    store.leases.sweep()
    assert store.leases.held() == [KEY]


def test_a_prolonged_lease_stays_a_probe() -> None:
    store = Leases()
    store.leases.prepare(KEY)
    store.answer()
    store.leases.may_probe(KEY, 61.0)
    store.answer()
    store.clock.advance(30.0)
    assert store.leases.may_probe(KEY, 61.0)
    assert store.leases.held() == [KEY]


def test_requests_are_bounded() -> None:
    store = Leases()
    for number in range(5000):
        store.leases.prepare(f"openai/{number}")
    assert len(store.leases.requests) == 4096
    store.leases.prepare("openai/0")
    assert store.leases.wake.is_set()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30))
def test_every_replica_ends_with_the_last_command_of_each_key(given_: list[tuple[str, bool]]) -> None:
    """Commands of this replica (True) and of another, which this one reads at some time later."""
    log, standing, done = CommandLog(), dict[str, NumberedCommand](), dict[str, int]()
    for generation, (key, is_own) in enumerate(given_, 1):
        before = log.known
        standing[key] = command(generation, key)
        if is_own:
            done[key] = generation
            log.take_own(standing[key], before)
        if generation % 3 == 0:
            done |= {numbered.command.key: numbered.generation for numbered in log.read(standing.values(), generation)}
    done |= {numbered.command.key: numbered.generation for numbered in log.read(standing.values(), len(given_))}

    assert done == {key: numbered.generation for key, numbered in standing.items()}
    assert log.known == len(given_)
    assert log.read(standing.values(), len(given_)) == []
    assert {numbered.command.key for numbered in log.standing(0)} == set(standing)


def test_commands_are_carried_out_in_the_order_of_their_generations() -> None:
    log = CommandLog()
    assert log.read([], 5) == []
    assert log.read([command(8, "b"), command(7, "a"), command(5, "old")], 8) == [command(7, "a"), command(8, "b")]
    assert log.known == 8
    assert log.standing(10**14) == []


def test_an_own_command_is_not_carried_out_twice_unless_another_came_before() -> None:
    log = CommandLog()
    log.read([], 5)
    log.take_own(command(6), 5)
    assert log.read([command(6)], 6) == []
    log.take_own(command(8), 6)
    assert log.read([command(7, "a"), command(8)], 8) == [command(7, "a"), command(8)]


def test_what_is_not_understood_is_none() -> None:
    assert decode(encode(command(3))) == command(3)
    assert decode(b"[1,2]") is decode(b"\xff") is None


def test_cooldowns_that_wait_are_bounded_and_the_oldest_goes() -> None:
    cooldowns = SharedCooldowns(Clock(), max_entries=3)
    for n in range(5):
        cooldowns.put(KEY, str(n), 10.0)
    assert cooldowns.dropped == 2
    assert [pair[1] for pair, _ in cooldowns.take()] == ["2", "3", "4"]


def test_what_is_left_of_the_time_is_told_and_nothing_that_is_over() -> None:
    clock = Clock()
    cooldowns = SharedCooldowns(clock)
    for n in range(300):
        cooldowns.put(KEY, str(n), 1.0)
    cooldowns.put(KEY, "long", 10.0)
    clock.advance(4.0)
    assert dict(cooldowns.take()) == {(KEY, "long", None): pytest.approx(6.0)}
    cooldowns.put_back([((KEY, "long", None), 6.0)])
    cooldowns.put(KEY, "long", 9.0)
    cooldowns.put_back([((KEY, "long", None), 6.0)])
    assert dict(cooldowns.take()) == {(KEY, "long", None): pytest.approx(9.0)}
    assert cooldowns.take() == []


def test_what_is_no_longer_there_is_new_when_it_comes_again() -> None:
    cooldowns = SharedCooldowns(Clock())
    c: Cooled = (KEY, "c", None)
    d: Cooled = (None, "d", None)
    assert dict(cooldowns.learn([(c, 60.0), (d, 0.0)])) == {c: pytest.approx(60.0)}
    assert cooldowns.learn([(c, 60.05)]) == []
    assert cooldowns.learn([]) == []
    assert dict(cooldowns.learn([(c, 5.0)])) == {c: pytest.approx(5.0)}


def test_an_own_cooldown_that_waits_is_not_forgotten_by_reading() -> None:
    cooldowns = SharedCooldowns(Clock())
    cooldowns.put(KEY, "c", 30.0)
    assert cooldowns.learn([]) == []
    cooldowns.take()
    assert cooldowns.learn([((KEY, "c", None), 30.0)]) == []


def test_a_redis_that_forgot_is_told_what_still_holds() -> None:
    clock = Clock()
    cooldowns = SharedCooldowns(clock)
    cooldowns.learn([((KEY, "c", None), 60.0), ((KEY, "d", None), 1.0)])
    clock.advance(2.0)
    cooldowns.put(None, "e", 5.0)
    cooldowns.repeat()
    assert dict(cooldowns.take()) == {(KEY, "c", None): pytest.approx(58.0), (None, "e", None): pytest.approx(5.0)}


def test_of_two_classes_the_one_that_lasts_is_told_last() -> None:
    longer: Cooled = (KEY, "c", "model_denied")
    shorter: Cooled = (KEY, "c", "rate_limited")
    learnt = SharedCooldowns(Clock()).learn([(longer, 60.0), (shorter, 5.0)])
    assert [cooled for cooled, _ in learnt] == [shorter, longer]


@pytest.mark.parametrize(
    ("key", "left"),
    [
        ("openai", {("openai-eu/x", "openai-eu"), (None, "other")}),
        (KEY, {("openai/mini", "openai"), ("openai-eu/x", "openai-eu"), (None, "other")}),
    ],
)
def test_a_reset_forgets_what_is_below_it(key: str, left: set[tuple[str | None, str]]) -> None:
    cooldowns = SharedCooldowns(Clock())
    pairs = [
        (KEY, "openai"),
        ("openai/mini", "openai"),
        (None, "openai"),
        ("openai-eu/x", "openai-eu"),
        (None, "other"),
    ]
    for deployment, credential in pairs:
        cooldowns.put(deployment, credential, 60.0)
    cooldowns.forget(key)
    assert {cooled[:2] for cooled, _ in cooldowns.take()} == left
