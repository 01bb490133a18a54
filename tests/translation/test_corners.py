"""Events and members that only one way of translation knows."""

from __future__ import annotations

from gateway_middleware.translation.fields import Fields, Losses


def test_a_direct_caller_is_no_loss() -> None:
    losses = Losses({})
    block = Fields({"caller": {"type": "direct"}}, "content", losses)
    block.ignore_direct_caller()
    block.close()
    assert losses.dropped == ()


def test_another_caller_is_listed() -> None:
    losses = Losses({})
    block = Fields({"caller": {"type": "code_execution"}}, "content", losses)
    block.ignore_direct_caller()
    block.close()
    assert losses.dropped != ()
