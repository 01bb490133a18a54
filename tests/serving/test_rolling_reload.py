"""A reload of one worker after the other, as a table of calls."""

from __future__ import annotations

from gateway_middleware.serving.rolling_reload import RollingReload


def begun(*workers: int) -> RollingReload:
    """The first of these was asked at 0."""
    reload = RollingReload()
    reload.begin(workers)
    assert reload.next(0.0) == workers[0]
    return reload


def test_each_is_asked_when_the_one_before_has_answered() -> None:
    reload = begun(1, 2)
    assert reload.next(0.0) is None
    reload.answered(2, is_taken=True)  # it was not asked
    assert reload.next(0.0) is None
    reload.answered(1, is_taken=True)
    assert reload.next(0.0) == 2
    reload.answered(2, is_taken=True)
    assert reload.next(0.0) is None
    assert reload.seconds_left(0.0) is None


def test_where_one_refuses_the_others_keep_what_they_have() -> None:
    reload = begun(1, 2, 3)
    reload.answered(1, is_taken=False)
    assert reload.next(0.0) is None


def test_one_that_says_nothing_is_silent_after_half_a_minute() -> None:
    reload = begun(1, 2)
    assert reload.seconds_left(10.0) == 20.0
    assert reload.silent(29.9) is None
    assert reload.silent(30.0) == 1
    assert reload.seconds_left(31.0) == 0.0
    assert RollingReload().silent(100.0) is None


def test_one_that_ends_is_not_waited_for() -> None:
    reload = begun(1, 2, 3)
    reload.gone(2)
    reload.gone(1)
    assert reload.next(0.0) == 3


def test_a_second_reload_asks_again_whoever_was_asked_before_it() -> None:
    reload = begun(1, 2)
    reload.begin([1, 2])
    asked = []
    for worker in (1, 2, 1):
        reload.answered(worker, is_taken=True)
        asked.append(reload.next(0.0))
    assert asked == [2, 1, None]


def test_nobody_is_asked_after_a_stop() -> None:
    reload = begun(1, 2)
    reload.stop()
    assert reload.next(0.0) is None
    assert reload.seconds_left(0.0) is None
