"""Many breakers: hosts and deployments, rows of providers, an operator's commands, bounded memory."""

from __future__ import annotations

import msgspec
import pytest

from breaker_cases import CONNECT_ERROR, SERVER_ERROR, deployment, no_jitter, origin
from clock import Clock
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import RULES, SUCCEEDED, Judgement
from gateway_middleware.breaker.state.factory import BreakerFactory
from gateway_middleware.breaker.state.overrides import Command, Override, Overrides
from gateway_middleware.breaker.state.pairs import Admission, Refusal
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.registry import BreakerRegistry
from gateway_middleware.breaker.state.transitions import State, Transition
from gateway_middleware.core.domain import Deployment, Timeouts
from gateway_middleware.core.errors import PathNotFoundError
from gateway_middleware.core.provider_api import Origin

A, B, C = deployment("a"), deployment("b"), deployment("c")
HOST, HOST_KEY = origin(), "endpoint:api.example.com:443"
CLIENT_ERROR = RULES[FailureClass.CLIENT_ERROR]
LEFT = RULES[FailureClass.CLIENT_LEFT]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(
    clock: Clock,
    policy: BreakerPolicy | None = None,
    *,
    policies: dict[str, BreakerPolicy] | None = None,
    log: list[Transition] | None = None,
    max_pairs: int = 2048,
) -> BreakerRegistry:
    return BreakerRegistry(
        policy or BreakerPolicy(),
        factory=BreakerFactory(
            clock=clock, wall=clock.wall, random=no_jitter, on_transition=log.append if log is not None else None
        ),
        policies=policies,
        max_pairs=max_pairs,
    )


def admitted(registry: BreakerRegistry, to: Deployment = A, at: Origin = HOST) -> Admission:
    found = registry.admit(to, at)
    assert isinstance(found, Admission)
    return found


def refused(registry: BreakerRegistry, to: Deployment = A, at: Origin = HOST) -> Refusal:
    found = registry.admit(to, at)
    assert isinstance(found, Refusal)
    return found


def settle(registry: BreakerRegistry, judgement: Judgement, times: int = 5, to: Deployment = A) -> None:
    for _ in range(times):
        admitted(registry, to).settle(judgement)


def test_cb22_a_dead_deployment_leaves_the_others_alone(clock: Clock) -> None:
    registry = make(clock)
    settle(registry, SERVER_ERROR)
    assert refused(registry) == Refusal("openai/a", State.OPEN, 10.0)
    settle(registry, SUCCEEDED, 100, B)
    assert registry.state("openai") is State.CLOSED


def test_cb9_a_dead_host_shuts_all_its_deployments(clock: Clock) -> None:
    log: list[Transition] = []
    registry = make(clock, log=log)
    for to in (A, B, C, A, B):
        admitted(registry, to).settle(CONNECT_ERROR)
    for to in (A, B, C):
        assert refused(registry, to) == Refusal(HOST_KEY, State.OPEN, 10.0)
    admitted(registry, A, origin("other.example.com")).release()
    assert [step.key for step in log] == [HOST_KEY]


@pytest.mark.parametrize("judgement", [SERVER_ERROR, CLIENT_ERROR, SUCCEEDED])
def test_an_answer_of_any_kind_shows_that_the_host_works(clock: Clock, judgement: Judgement) -> None:
    registry = make(clock)
    settle(registry, CONNECT_ERROR, 4)
    settle(registry, judgement, 1, B)
    settle(registry, CONNECT_ERROR, 4)
    admitted(registry, C)


def test_the_first_content_shows_that_the_host_works(clock: Clock) -> None:
    registry = make(clock)
    settle(registry, CONNECT_ERROR, 4)
    stream = admitted(registry, B)
    stream.provisional(0.3)
    settle(registry, CONNECT_ERROR, 4)
    stream.settle(SERVER_ERROR)
    row = registry.snapshot()["openai"]
    assert row.endpoints == {HOST_KEY: row.endpoints[HOST_KEY]}
    assert row.endpoints[HOST_KEY].consecutive_failures == 4


def test_nothing_is_learnt_from_a_client_that_left(clock: Clock) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    settle(registry, CONNECT_ERROR, 4)
    settle(registry, LEFT, 1000)
    row = registry.snapshot()["openai"]
    assert row.endpoints[HOST_KEY].consecutive_failures == 4
    assert (row.deployments["openai/a"].successes, row.deployments["openai/a"].failures) == (0, 0)


def test_both_permits_or_none(clock: Clock) -> None:
    """A probe of the host is given back when the deployment refuses, and the other way round."""
    registry = make(clock)
    settle(registry, CONNECT_ERROR)
    clock.advance(10)
    probe = admitted(registry)
    assert refused(registry, B).key == HOST_KEY
    probe.release()
    registry.command("openai/b", Command.FORCE_OPEN)
    assert refused(registry, B).key == "openai/b"
    assert isinstance(registry.admit(A, HOST), Admission), "the place of the probe at the host is free"


def test_a_refusal_names_the_leaf_that_is_shut_for_longest(clock: Clock) -> None:
    registry = make(clock)
    settle(registry, CONNECT_ERROR)
    registry.command("openai/a", Command.FORCE_OPEN, ttl=99)
    assert refused(registry) == Refusal("openai/a", State.FORCED_OPEN, 99.0)


def test_an_admission_ends_once(clock: Clock) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    admission = admitted(registry)
    admission.settle(SERVER_ERROR)
    admission.settle(SERVER_ERROR)
    admission.release()
    row = registry.snapshot()["openai"]
    assert row.deployments["openai/a"].failures == 1
    assert row.endpoints[HOST_KEY].successes == 1


def test_row_of_a_provider(clock: Clock) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    registry.register(B, HOST)
    assert registry.state("openai") is State.CLOSED
    settle(registry, SERVER_ERROR)
    assert registry.state("openai") is State.OPEN, "all that had traffic are open"
    settle(registry, SUCCEEDED, 1, B)
    assert registry.state("openai") is State.CLOSED
    clock.advance(61)
    admitted(registry)
    assert registry.state("openai") is State.HALF_OPEN
    clock.advance(61)
    assert registry.state("openai") is State.CLOSED, "without traffic all of them count, and B is well"
    assert registry.state("nobody") is State.CLOSED


def test_row_of_a_provider_whose_host_is_out(clock: Clock) -> None:
    registry = make(clock)
    settle(registry, CONNECT_ERROR)
    refused(registry, B)
    assert registry.state("openai") is State.OPEN
    clock.advance(10)
    admitted(registry, B)
    assert registry.state("openai") is State.HALF_OPEN


def test_row_of_a_provider_that_is_forced_open(clock: Clock) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    registry.register(B, HOST)
    registry.command("openai", Command.FORCE_OPEN, ttl=30)
    assert registry.state("openai") is State.FORCED_OPEN
    clock.advance(30)
    assert registry.state("openai") is State.HALF_OPEN


def test_snapshot_shows_what_is_configured_and_what_is_in_trouble(clock: Clock) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    settle(registry, SUCCEEDED, 1, deployment("a prompt, pasted by mistake"))
    settle(registry, SERVER_ERROR, 5, C)
    azure = Deployment(provider="azure", model="gpt")
    registry.register(azure, origin("azure.example.com"))
    rows = registry.snapshot()
    assert set(rows) == {"openai", "azure"}
    assert set(rows["openai"].deployments) == {"openai/a", "openai/c"}
    assert rows["openai"].others == 1
    document = msgspec.json.decode(msgspec.json.encode(rows))
    assert document["azure"]["state"] == "closed"
    assert document["azure"]["deployments"]["azure/gpt"]["state"] == "closed"
    assert set(document["azure"]["endpoints"]) == {"endpoint:azure.example.com:443"}


def test_commands_for_a_deployment_and_for_a_host(clock: Clock) -> None:
    registry = make(clock)
    settle(registry, SERVER_ERROR)
    settle(registry, SUCCEEDED, 1, B)
    assert registry.command("openai/a", Command.RESET) == ["openai/a"]
    admitted(registry).release()
    assert registry.command("openai/a", Command.FORCE_OPEN, ttl=5) == ["openai/a"]
    refused(registry)
    admitted(registry, B).release()
    assert registry.command("openai/a", Command.AUTO) == ["openai/a"]
    admitted(registry).release()
    assert registry.command(HOST_KEY, Command.FORCE_OPEN, ttl=5) == [HOST_KEY]
    refused(registry, B)
    clock.advance(5)
    admitted(registry, B).release()


def test_commands_for_a_provider(clock: Clock) -> None:
    registry = make(clock)
    azure = Deployment(provider="azure", model="gpt")
    settle(registry, SUCCEEDED, 1, A)
    settle(registry, SUCCEEDED, 1, B)
    admitted(registry, azure).release()
    assert registry.command("openai", Command.FORCE_OPEN) == ["openai/a", "openai/b"]
    admitted(registry, azure).release()
    refused(registry, A)
    refused(registry, C)
    assert registry.command("openai", Command.RESET) == ["openai/a", "openai/b", "openai/c", HOST_KEY]
    for to in (A, B, C, deployment("d")):
        admitted(registry, to).settle(CONNECT_ERROR)
    assert registry.command("openai", Command.FORCE_CLOSE)[-1] == HOST_KEY
    settle(registry, CONNECT_ERROR, 50)


def test_a_force_holds_for_deployments_that_come_later_and_ends_in_time(clock: Clock) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    registry.command("openai", Command.FORCE_OPEN, ttl=30)
    assert registry.command("openai/later", Command.FORCE_CLOSE, ttl=30) == []
    clock.advance(10)
    assert refused(registry, B).retry_after == 20
    admitted(registry, deployment("later")).release()
    clock.advance(20)
    admitted(registry, C).release()


@pytest.mark.parametrize("key", ["", "nobody", "nobody/gpt", "endpoint:nowhere:1", "openai-2"])
def test_unknown_keys(clock: Clock, key: str) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    with pytest.raises(PathNotFoundError) as caught:
        registry.command(key, Command.RESET)
    assert caught.value.error_code == "unknown_circuit_breaker"


def test_overrides() -> None:
    overrides = Overrides()
    force, auto = Override(Command.FORCE_OPEN, 10.0), Override(Command.AUTO, 99.0)
    overrides.note("openai/a", force)
    assert overrides.find("openai/a", 9.9) == force
    assert overrides.find("openai/a", 10.0) is None
    assert overrides.find("openai/b", 0.0) is None
    overrides.note("openai", force)
    assert overrides.find("openai/b", 0.0) == force
    overrides.note("openai/a", auto)
    assert overrides.find("openai/a", 0.0) is None, "the later and narrower override holds"
    assert overrides.find("openai/a/b", 0.0) == force
    overrides.note("openai", force)
    assert overrides.find("openai/a", 0.0) == force, "and is ended by a later one for all"
    overrides.note("openai", auto)
    overrides.note("openai/a", auto)
    assert overrides.find("openai/a", 0.0) is None


def test_policies_of_providers_and_probes_as_patient_as_the_deployment(clock: Clock) -> None:
    registry = make(clock, policies={"azure": BreakerPolicy(consecutive=2)})
    azure = Deployment(provider="azure", model="gpt")
    settle(registry, SERVER_ERROR, 2, azure)
    refused(registry, azure)
    slow = Deployment(provider="openai", model="o", timeouts=Timeouts(first_byte=300.0))
    settle(registry, SERVER_ERROR, 5, slow)
    clock.advance(10)
    admitted(registry, slow)
    clock.advance(300.9)
    refused(registry, slow)
    clock.advance(0.1)
    admitted(registry, slow)


def test_shadow_refuses_nothing(clock: Clock) -> None:
    registry = make(clock, BreakerPolicy(mode=Mode.SHADOW))
    settle(registry, SERVER_ERROR, 50)
    settle(registry, CONNECT_ERROR, 50)
    assert registry.state("openai") is State.OPEN


def test_a_deployment_that_has_moved_begins_anew_and_stays_listed(clock: Clock) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    settle(registry, SERVER_ERROR)
    registry.register(A, HOST)
    refused(registry)
    admitted(registry, A, origin("new.example.com")).release()
    assert registry.snapshot()["openai"].deployments["openai/a"].state is State.CLOSED
    same = Origin(host=HOST.host, port=HOST.port, is_tls=HOST.is_tls)
    admitted(registry, A, same).settle(SERVER_ERROR)
    admitted(registry, A, HOST).release()
    assert registry.snapshot()["openai"].deployments["openai/a"].failures == 1


def test_retain(clock: Clock) -> None:
    registry = make(clock)
    registry.register(A, HOST)
    registry.register(B, origin("other.example.com"))
    settle(registry, SERVER_ERROR)
    registry.retain(["openai/a"])
    row = registry.snapshot()["openai"]
    assert (set(row.deployments), set(row.endpoints)) == ({"openai/a"}, {HOST_KEY})
    refused(registry)


def test_memory_is_bounded_and_trouble_is_kept(clock: Clock) -> None:
    registry = make(clock, max_pairs=40)
    registry.register(A, HOST)
    settle(registry, SERVER_ERROR, 5, B)
    settle(registry, SUCCEEDED, 1, C)
    registry.command("openai/c", Command.FORCE_CLOSE)
    for number in range(1000):
        clock.advance(0.001)
        settle(registry, SUCCEEDED, 1, deployment(str(number)))
    row = registry.snapshot()["openai"]
    assert len(row.deployments) + row.others <= 40
    assert {"openai/a", "openai/b", "openai/c"} <= set(row.deployments)
    assert refused(registry, B).state is State.OPEN


def test_memory_is_bounded_though_all_are_in_trouble(clock: Clock) -> None:
    registry = make(clock, max_pairs=40)
    for number in range(200):
        clock.advance(0.001)
        settle(registry, SERVER_ERROR, 5, deployment(str(number)))
    assert len(registry.snapshot()["openai"].deployments) <= 40
    assert refused(registry, deployment("199")).state is State.OPEN


def test_a_new_configuration_holds_at_once_and_states_stay(clock: Clock) -> None:
    registry = make(clock, policies={"openai": BreakerPolicy()})
    registry.register(A, HOST)
    registry.register(B, HOST)
    settle(registry, SERVER_ERROR, 5, B)
    settle(registry, SERVER_ERROR, 1, A)

    registry.configure([(A, HOST), (B, HOST)], policies={"openai": BreakerPolicy(consecutive=2)})

    assert refused(registry, B).state is State.OPEN
    settle(registry, SERVER_ERROR, 1, A)
    assert refused(registry, A).state is State.OPEN, "the first failure is not forgotten"
    clock.advance(10)
    registry.command("openai/a", Command.RESET)
    for _ in range(2):
        admitted(registry, A).settle(CONNECT_ERROR)
    assert refused(registry, A).key == HOST_KEY, "the host goes by the new numbers too"


def test_a_configuration_forgets_what_it_does_not_name(clock: Clock) -> None:
    registry = make(clock, policies={"openai": BreakerPolicy(), "gone": BreakerPolicy()})
    far = Deployment(provider="gone", model="m")
    registry.register(A, HOST)
    registry.register(far, origin("gone.example.com"))
    settle(registry, SERVER_ERROR, 5, B)

    slow = Deployment(provider="openai", model="a", timeouts=Timeouts(first_byte=300.0))
    registry.configure([(slow, HOST)], policies={"openai": BreakerPolicy()})

    assert set(registry.snapshot()) == {"openai"}
    assert refused(registry, B).state is State.OPEN, "a name of clients stays with its provider"
    settle(registry, SERVER_ERROR, 5, A)
    clock.advance(10)
    admitted(registry, A)
    clock.advance(300.9)
    refused(registry, A)


def test_of_two_providers_at_one_host_the_first_says_how_the_host_is_judged(clock: Clock) -> None:
    registry = make(clock, policies={"openai": BreakerPolicy(), "other": BreakerPolicy()})
    other = Deployment(provider="other", model="m")
    policies = {"openai": BreakerPolicy(consecutive=3), "other": BreakerPolicy(consecutive=9)}
    for deployment_ in (A, other):
        registry.register(deployment_, HOST)

    registry.configure([(A, HOST), (other, HOST)], policies=policies)

    settle(registry, CONNECT_ERROR, 3, other)
    assert refused(registry, A).key == HOST_KEY


@pytest.mark.parametrize("key", ["openai", "openai/a"])
def test_what_an_operator_has_shut_is_known_without_a_permit(clock: Clock, key: str) -> None:
    registry = make(clock)
    assert registry.forced_open(A) is None
    admitted(registry).release()
    registry.command(key, Command.FORCE_OPEN, ttl=30)
    assert registry.forced_open(A) == Refusal("openai/a", State.FORCED_OPEN, 30.0)
    clock.advance(31)
    assert registry.forced_open(A) is None


def test_what_was_shut_before_its_first_call(clock: Clock) -> None:
    registry = make(clock)
    registry.obey("openai", Command.FORCE_OPEN, 30, "elsewhere")
    clock.advance(10)
    assert registry.forced_open(A) == Refusal("openai/a", State.FORCED_OPEN, 20.0)


def test_what_failures_have_opened_is_not_shut_by_an_operator(clock: Clock) -> None:
    registry = make(clock)
    settle(registry, CONNECT_ERROR)
    refused(registry)
    assert registry.forced_open(A) is None
