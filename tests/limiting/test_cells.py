"""What is taken from the cells of a plan is what its claims would have taken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.limiting.limit import Claim, Limit, LimitStatus, Unit
from gateway_middleware.limiting.reservation import LimitReachedError, PlannedReservation, Reservation, Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from limit_cases import claim, fresh, rpm, slots, spend, tpm

PLANS = st.lists(st.sampled_from([rpm(6), tpm(40), tpm(90, seconds=600), spend(70)]), max_size=4, unique=True)
SLOTS = st.sampled_from([[], [slots(2)]])
AMOUNT = st.one_of(st.none(), st.integers(0, 50))
STEPS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 20), st.floats(-90, 400), st.booleans(), st.tuples(AMOUNT, AMOUNT)),
    max_size=25,
)


class _Counted:
    """One store, with the limits of one plan in it."""

    def __init__(self, clock: Clock, tenant: str, limits: Sequence[Limit], *, weight: int = 1) -> None:
        self.store = MemoryStore(clock=clock, wall=clock.wall, weight=weight)
        self.reservations = Reservations(self.store)
        self.claims = [claim(tenant, limit) for limit in limits]
        self.held: list[Reservation] = []
        self._count = 0

    def costs(self, tokens: int, micro_dollars: int) -> list[Claim]:
        amounts = {Unit.TOKENS: tokens, Unit.SPEND: micro_dollars}
        return [Claim(c.key, c.limit, amounts.get(c.limit.unit, 1)) for c in self.claims]

    def used(self) -> list[int]:
        return [self.store.used(c.key) for c in self.claims]

    def reserve(self, claims: Sequence[Claim]) -> Reservation | None:
        try:
            self._count += 1
            return self.reservations.accept(self.store.admit(claims, b"%d" % self._count))
        except LimitReachedError:
            return None


def _told(reservation: Reservation) -> tuple[list[tuple[int, int, int, int]], list[LimitStatus]]:
    return list(reservation.standing), list(reservation.decision.statuses)


@given(PLANS, SLOTS, STEPS, st.integers(1, 3))
@settings(deadline=None)
def test_cells_take_and_settle_what_claims_do(
    windows: list[Limit],
    concurrent: list[Limit],
    steps: list[tuple[int, int, float, bool, tuple[int | None, int | None]]],
    weight: int,
) -> None:
    """Also where processes divide the limits, after windows were swept, and where the last limit refuses.

    Nothing is taken of the others then.
    """
    clock, tenant = Clock(86_400 * 20), fresh()
    limits = [*windows, *concurrent]
    by_claims, by_cells = (_Counted(clock, tenant, limits, weight=weight) for _ in range(2))
    cells = by_cells.reservations.cells(by_cells.claims)
    if cells is None:
        assert not limits
        return
    for tokens, micro_dollars, gap, ends, used in steps:
        clock.advance(gap)
        for one in (by_claims, by_cells):
            one.store.tick()
        expected = by_claims.reserve(by_claims.costs(tokens, micro_dollars))
        planned = by_cells.reservations.take_planned(cells, tokens, micro_dollars)
        assert (planned is None) == (expected is None)
        assert by_cells.used() == by_claims.used()
        if planned is not None and expected is not None:
            assert _told(planned) == _told(expected)
            assert planned.is_degraded == expected.is_degraded
            assert planned.decision.weight == expected.decision.weight == weight
            by_claims.held.append(expected)
            by_cells.held.append(planned)
        if ends and by_cells.held:
            for one in (by_claims, by_cells):
                one.held.pop(0).end(tokens=used[0], spend=used[1])
            assert by_cells.used() == by_claims.used()
        assert by_cells.reservations.leased == by_claims.reservations.leased


def test_a_reservation_from_cells_ends_once() -> None:
    counted = _Counted(Clock(), fresh(), [rpm(5), slots(2)])
    cells = counted.reservations.cells(counted.claims)
    assert cells is not None
    reservation = counted.reservations.take_planned(cells, 0, 0)
    assert isinstance(reservation, PlannedReservation)
    assert counted.used() == [1, 1]
    assert counted.reservations.leased == 1
    for _ in range(2):
        reservation.end(requests=0)
        assert counted.used() == [0, 0]
    assert not reservation.is_open
    assert counted.reservations.leased == 0


@pytest.mark.anyio
async def test_the_lease_of_a_long_call_is_renewed() -> None:
    clock = Clock()
    counted = _Counted(clock, fresh(), [slots(1)])
    cells = counted.reservations.cells(counted.claims)
    assert cells is not None
    reservation = counted.reservations.take_planned(cells, 0, 0)
    for _ in range(400):  # a hundred seconds of housekeeping; a lease lasts thirty
        clock.advance(0.25)
        await counted.reservations.tick()
    assert counted.used() == [1]
    assert counted.reservations.take_planned(cells, 0, 0) is None
    del reservation  # a call that was lost without an end
    for _ in range(400):
        clock.advance(0.25)
        await counted.reservations.tick()
    assert counted.used() == [0]


def test_what_is_forgotten_is_looked_up_again() -> None:
    counted = _Counted(Clock(), fresh(), [rpm(1)])
    cells = counted.reservations.cells(counted.claims)
    assert cells is not None
    before = counted.reservations.take_planned(cells, 0, 0)
    assert before is not None
    assert counted.reservations.take_planned(cells, 0, 0) is None
    counted.store.forget(counted.claims[0].key)
    assert counted.reservations.take_planned(cells, 0, 0) is not None
    assert counted.used() == [1]
    counted.store.clear()
    assert counted.used() == [0]
    assert counted.reservations.take_planned(cells, 0, 0) is not None
    assert counted.used() == [1]
