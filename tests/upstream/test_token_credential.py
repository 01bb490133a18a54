"""A token for all calls: renewed early, used while no other can be got, forced anew when it is refused."""

from __future__ import annotations

import asyncio

import pytest

from clock import Clock
from gateway_middleware.core.bearer_token import Token, TokenFault
from gateway_middleware.core.errors import ProviderAuthError, UpstreamConnectError
from gateway_middleware.upstream.token_credential import TokenCredential

pytestmark = pytest.mark.anyio
AWAY = TokenFault("no answer in time")


class Identity:
    """Gives tokens `t1`, `t2`, ... of an hour, or `fault`."""

    def __init__(self, *, random: float = 0.5) -> None:
        self.clock = Clock()
        self.asked = 0
        self.fault: TokenFault | None = None
        self.gate: asyncio.Event | None = None
        self.faults: list[TokenFault] = []
        self.tokens: list[str] = []
        self.credential = TokenCredential(
            self._get, wall=self.clock.wall, clock=self.clock, random=lambda: random,
            on_token=lambda token: self.tokens.append(token.value), on_fault=self.faults.append,
        )  # fmt: skip

    async def _get(self) -> Token | TokenFault:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        return self.fault or Token(f"t{self.asked}", self.clock.wall() + 3600)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_thousand_calls_are_one_token_and_the_first_may_leave() -> None:
    identity = Identity()
    identity.gate = asyncio.Event()
    calls = [asyncio.ensure_future(identity.credential.token()) for _ in range(1000)]
    await settle()
    calls[0].cancel()
    await settle()
    identity.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results.count("t1") == 999
    assert (identity.asked, identity.tokens) == (1, ["t1"])


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 0.7), (0.5, 0.8), (0.999, 0.9)])
async def test_it_is_renewed_early_in_the_background(random: float, seconds: float) -> None:
    identity = Identity(random=random)
    await identity.credential.token()
    identity.clock.advance(3600 * seconds - 2)
    assert await identity.credential.token() == "t1"
    await settle()
    assert identity.asked == 1
    identity.clock.advance(5)
    assert await identity.credential.token() == "t1"
    await settle()
    assert await identity.credential.token() == "t2"


async def test_three_expiries_under_load_are_one_call_each() -> None:
    identity = Identity()
    for _ in range(3 * 3600):
        await identity.credential.token()
        identity.clock.advance(1)
        await asyncio.sleep(0)
    assert identity.asked == 4


async def test_an_outage_is_not_noticed_while_the_token_lasts() -> None:
    identity = Identity()
    await identity.credential.token()
    identity.fault = AWAY
    identity.clock.advance(3000)
    for _ in range(500):
        assert await identity.credential.token() == "t1"
        await settle()
        identity.clock.advance(1)
    assert 15 <= identity.asked <= 30
    identity.clock.advance(100)
    for _ in range(50):
        with pytest.raises(UpstreamConnectError):
            await identity.credential.token()
    asked = identity.asked
    identity.fault = None
    identity.clock.advance(30)
    assert await identity.credential.token() == f"t{asked + 1}"


async def test_a_refusal_is_a_fault_of_our_credential() -> None:
    identity = Identity()
    identity.fault = TokenFault("HTTP 401, invalid_client", is_refusal=True)
    for _ in range(2):
        with pytest.raises(ProviderAuthError, match="refused the gateway's credential"):
            await identity.credential.token()
    assert identity.asked == 1


async def test_a_refused_token_is_forced_anew_once() -> None:
    identity = Identity()
    token = await identity.credential.token()
    results = await asyncio.gather(*(identity.credential.renewed(token) for _ in range(100)))
    assert (set(results), identity.asked) == ({"t2"}, 2)
    assert await identity.credential.renewed("t1") == "t2"
    assert await identity.credential.renewed("t2") is None
    assert identity.asked == 2
    identity.clock.advance(10)
    assert await identity.credential.renewed("t2") == "t3"


async def test_a_token_that_is_given_again_is_no_better_one() -> None:
    identity = Identity()
    same = Token("same", identity.clock.wall() + 3600)

    async def get() -> Token:
        return same

    credential = TokenCredential(
        get,
        wall=identity.clock.wall,
        clock=identity.clock,
        random=lambda: 0.5,
        on_token=lambda _: None,
        on_fault=lambda _: None,
    )
    assert await credential.renewed(await credential.token()) is None


async def test_a_token_that_cannot_be_renewed_by_force() -> None:
    identity = Identity()
    token = await identity.credential.token()
    identity.fault = AWAY
    with pytest.raises(UpstreamConnectError):
        await identity.credential.renewed(token)
    assert identity.faults == [AWAY]


@pytest.mark.parametrize("step", [86_400.0, -86_400.0])
async def test_lc14_a_step_of_the_time_of_day_puts_off_no_renewal(step: float) -> None:
    identity = Identity()
    identity.fault = AWAY
    with pytest.raises(UpstreamConnectError):
        await identity.credential.token()
    identity.clock.step(step)
    identity.clock.advance(1.0)
    identity.fault = None
    assert await identity.credential.token() == "t2"
    assert await identity.credential.renewed("t2") == "t3"
    identity.clock.step(step)
    identity.clock.advance(10.0)
    assert await identity.credential.renewed("t3") is not None
    identity.clock.step(step)
    identity.clock.advance(3600.0)
    asked = identity.asked
    await identity.credential.token()
    await settle()
    assert identity.asked == asked + 1, "its hour is over, whatever the clock on the wall says"


async def test_closing_stops_asking() -> None:
    identity = Identity()
    identity.gate = asyncio.Event()
    call = asyncio.ensure_future(identity.credential.token())
    await settle()
    await identity.credential.aclose()
    with pytest.raises(asyncio.CancelledError):
        await call
