"""Several keys of one provider: which one a call takes, and what it takes to go to another one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_cases import Calls, named, route, status_error
from clock import Clock
from gateway_middleware.breaker.cooldown import Cooldowns
from gateway_middleware.breaker.credentials import CallCredentials, PooledKey, Pools
from gateway_middleware.breaker.failover import AttemptSequence, PlannedAttempt
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import Cooldown, CooldownScope
from gateway_middleware.breaker.operator import Operator
from gateway_middleware.breaker.state.errors import CoolingDownError
from gateway_middleware.breaker.state.policy import Mode
from gateway_middleware.core.client_credential import ClientCredential
from gateway_middleware.core.domain import Deployment, Payer, Route, account_of
from gateway_middleware.core.errors import ProviderAuthError, StaleConnectionError, UpstreamTimeoutError
from gateway_middleware.core.secret import Secret

A, B = "a/m", "b/m"


def pool(*names: str, provider: str = "a", **weights: float) -> tuple[PooledKey, ...]:
    return tuple(
        PooledKey(name=name, account=f"{provider}#{name}", identity=f"id of {name}", weight=weights.get(name, 1.0))
        for name in names
    )


class Keyed(Calls):
    """Calls at a provider `a` with keys, and others with one."""

    def __init__(self, *keys: PooledKey, **options: Any) -> None:
        super().__init__(**options)
        self.failover.pools.replace({"a": keys or pool("one", "two", "three")})

    def call(self, *names: str, affinity: bytes = b"someone") -> AttemptSequence:

        body = b"%d" % next(self._numbers)
        credentials = CallCredentials(self.failover.pools, affinity=affinity)
        return self.failover.begin(route(*names), body=body, started=self.clock(), credentials=credentials)


def order(pools: Pools, affinity: bytes) -> list[str | None]:
    credentials = CallCredentials(pools, affinity=affinity)
    return [each.key_name for each in credentials([Deployment(provider="a", model="m")])]


def place(planned: PlannedAttempt | None) -> str | None:
    return None if planned is None else f"{planned.deployment.key}#{planned.deployment.key_name}"


@given(st.binary(min_size=1, max_size=64), st.sets(st.sampled_from("abcdefgh"), min_size=2))
def test_a_key_that_comes_or_goes_moves_its_own_calls_only(affinity: bytes, names: set[str]) -> None:
    whole = order(Pools({"a": pool(*sorted(names))}), affinity)
    assert sorted(str(name) for name in whole) == sorted(names)
    assert order(Pools({"a": pool(*sorted(names, reverse=True))}), affinity) == whole
    gone = whole[-1]
    assert order(Pools({"a": pool(*sorted(names - {str(gone)}))}), affinity) == whole[:-1]


def test_calls_spread_by_weight_and_a_key_without_serves_last() -> None:
    pools = Pools({"a": pool("one", "two", "spare", two=3.0, spare=0.0)})
    orders = [order(pools, b"%d" % number) for number in range(4000)]
    first = Counter(each[0] for each in orders)
    assert first["spare"] == 0
    assert {each[-1] for each in orders} == {"spare"}
    assert 2.7 < first["two"] / first["one"] < 3.3


def test_accounts_that_are_not_the_gateways_have_no_part_in_it() -> None:
    own = ClientCredential(Secret("sk-own-0123456789"))
    credentials = CallCredentials(Pools({"a": pool("one", "two")}), affinity=b"x", client=own)
    tenants = Deployment(provider="a", model="m", account=account_of("a", "acme"), payer=Payer.TENANT)
    clients = Deployment(provider="a", model="m", account="a@(client)", payer=Payer.CLIENT)
    other = Deployment(provider="b", model="m")
    one, two, three = credentials([tenants, clients, other])
    assert (one, three) == (tenants, other)
    assert (two.account, two.credential) == ("a@(client)", f"a@(client)/{own.digest}")
    assert "sk-own" not in two.credential


ANOTHER_KEY = [
    status_error(429, headers={"retry-after": "30"}),
    status_error(429, headers={"retry-after": "1"}),
    status_error(429, b'{"error": {"message": "Request too large for m"}}'),
    status_error(429, b'{"error": {"code": "insufficient_quota"}}'),
    status_error(402),
    ProviderAuthError("no", body=b'{"error": {"code": "invalid_api_key"}}'),
    ProviderAuthError("no", upstream_status=403, body=b'{"error": {"message": "no access to model m"}}'),
    ProviderAuthError("no", upstream_status=403),
]


@pytest.mark.parametrize("error", ANOTHER_KEY, ids=repr)
def test_what_is_said_of_a_key_leads_to_another_key_and_costs_no_budget(error: Any) -> None:
    calls = Keyed()
    sequence = calls.call(A, B)
    places: list[str | None] = []
    planned: PlannedAttempt | None = sequence.first()
    while planned is not None:
        places.append(place(planned))
        planned = sequence.failed(planned, error, can_move=True)
    assert len(set(places)) == len(places) == 3  # each is an attempt, and a call has three
    assert {str(each).partition("#")[0] for each in places} == {A}
    assert calls.budget._window.totals[1] == 0  # noqa: SLF001  # nothing was paid from it
    calls.register(A)
    assert calls.failures(A) == 0


OTHER_DEPLOYMENT = [
    status_error(500),
    UpstreamTimeoutError("late", phase="first_byte"),
    status_error(404, b'{"error": {"code": "model_not_found"}}'),
]


@pytest.mark.parametrize("error", OTHER_DEPLOYMENT, ids=repr)
def test_what_is_said_of_a_deployment_is_said_to_all_its_keys(error: Any) -> None:
    sequence = Keyed().call(A, B)
    first = sequence.first()
    assert place(sequence.failed(first, error, can_move=True)) == f"{B}#None"


def test_a_stale_connection_is_no_reason_for_another_key() -> None:
    sequence = Keyed().call(A, B)
    first = sequence.first()
    again = sequence.failed(first, StaleConnectionError("gone", was_sent=True), can_move=True)
    assert place(again) == place(first)


def test_a_key_cools_alone_and_the_call_takes_the_next() -> None:
    calls = Keyed()
    sequence = calls.call(A)
    first = sequence.first()
    second = sequence.failed(first, status_error(429, headers={"retry-after": "30"}), can_move=True)
    assert second is not None
    sequence.succeeded(second, None)
    assert place(calls.call(A).first()) == place(second)
    assert [event.credential for event in calls.events] == [f"a#{first.deployment.key_name}"]
    calls.clock.advance(30)
    assert place(calls.call(A).first()) == place(first)


def test_with_all_keys_cooling_the_shortest_wait_is_told() -> None:
    calls = Keyed(*pool("one", "two"), max_attempts=5)
    sequence = calls.call(A)
    planned: PlannedAttempt | None = sequence.first()
    for seconds in ("30", "20"):
        assert planned is not None
        planned = sequence.failed(planned, status_error(429, headers={"retry-after": seconds}), can_move=True)
    assert planned is None
    with pytest.raises(CoolingDownError) as raised:
        calls.call(A).first()
    assert raised.value.retry_after == 20


def test_a_second_request_beside_a_slow_one_is_for_another_deployment() -> None:
    calls = Keyed(max_attempts=5)
    sequence = calls.call(A, B)
    first = sequence.first()
    assert place(sequence.spare()) == f"{B}#None"
    other_key = sequence.failed(first, status_error(429, headers={"retry-after": "30"}), can_move=True)
    assert other_key is not None
    assert other_key.deployment.key == A
    assert calls.call(A).spare() is not None  # nobody is under way yet
    alone = calls.call(A)
    alone.first()
    assert alone.spare() is None


def test_a_list_for_a_special_failure_has_keys_as_well() -> None:

    calls = Keyed(*pool("one", "two"))
    credentials = CallCredentials(calls.failover.pools, affinity=b"x")

    special = Route(name="r", deployments=(named(B),), on_context_window=(named(A),))
    sequence = calls.failover.begin(special, body=b"", started=calls.clock(), credentials=credentials)
    first = sequence.first()
    following = sequence.failed(
        first, status_error(400, b'{"error": {"code": "context_length_exceeded"}}'), can_move=True
    )
    assert following is not None
    assert following.deployment.key_name in {"one", "two"}


def test_what_an_operator_sees_of_keys() -> None:
    calls = Keyed(*pool("one", "two"))
    cooldowns = calls.cooldowns
    operator = Operator(calls.registry, cooldowns, mode=Mode.ON, pools=calls.failover.pools)
    cooldowns.cool(Cooldown(CooldownScope.CREDENTIAL, 60.0), deployment=A, credential="a#one")
    row = {"deployment": None, "seconds": 60.0, "class": None}
    assert operator.status("a")["keys"] == [
        {"name": "one", "weight": 1.0, "refused": None, "cooldowns": [row]},
        {"name": "two", "weight": 1.0, "refused": None, "cooldowns": []},
    ]
    assert operator.status("a")["cooldowns"] == [{**row, "key": "one"}]
    assert operator.status("b")["keys"] == []
    assert operator.accounts("a") == ["a#one", "a#two"]
    assert operator.accounts("b") == ["b"]
    calls.register(A)

    assert operator.problems(["a"], [route(A)]) == []
    cooldowns.cool(
        Cooldown(CooldownScope.CREDENTIAL, 60.0), deployment=A, credential="a#two", why=FailureClass.PROVIDER_AUTH
    )
    assert [(problem.kind, problem.name) for problem in operator.problems(["a"], [route(A)])] == [
        ("provider_auth", "a#two"), ("route_out", "fast"),
    ]  # fmt: skip
    assert operator.status("a")["keys"][1]["refused"] == "provider_auth"
    operator.forget_cooldowns("a")
    assert operator.status("a")["cooldowns"] == []


def test_names_of_accounts_lead_to_their_provider() -> None:
    cooldowns = Cooldowns(Clock())
    names = ("a", "a#one", "a@acme", "a@acme#1", "ab", "ab#one")
    for name in names:
        cooldowns.cool(Cooldown(CooldownScope.CREDENTIAL, 60.0), deployment=A, credential=name)
    cooldowns.reset_provider("a")
    assert [cooling.credential for cooling in cooldowns.snapshot()] == ["ab", "ab#one"]
