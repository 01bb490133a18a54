"""What an answer of the data API means: a yes is a yes, everything else a no or no answer at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.domain import LimitOverrides
from gateway_middleware.limiting.quota import Quota, overridden
from gateway_middleware.policy.decision import Decision, Question, read_answer

QUESTION = Question(tenant="acme", key_id=None, action="call", endpoint="chat", surface="chat", model="gpt-5")


def check(limits: LimitOverrides) -> None:
    overridden(Quota(), limits)


def read(document: Any) -> Decision:
    return read_answer(document if isinstance(document, bytes) else json.dumps(document).encode(), check)


def test_the_question_is_the_input_of_the_data_api() -> None:
    assert json.loads(QUESTION.body) == {
        "input": {"tenant": "acme", "key_id": None, "action": "call", "endpoint": "chat", "surface": "chat",
                  "model": "gpt-5", "route": None}
    }  # fmt: skip


@pytest.mark.parametrize(
    "result", [True, {"allow": True}, {"allow": True, "future": [1]}, {"allow": True, "limits": {}}]
)
def test_a_yes(result: Any) -> None:
    assert read({"result": result, "decision_id": "d1"}) == Decision(is_allowed=True, decision_id="d1")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"decision_id": "d"},
        {"result": None},
        {"result": False},
        {"result": {}},
        {"result": {"allow": False}},
        {"result": {"reason": "no allow in it"}},
        {"result": {"limits": {"requests": "5/minute"}}},
        {"warning": {"code": "api_usage_warning"}},
    ],
)
def test_everything_that_is_not_a_yes_is_a_no(document: Any) -> None:
    decision = read(document)
    assert (decision.is_allowed, decision.terms, decision.is_suspended) == (False, None, False)


@pytest.mark.parametrize(
    "limits", [{"requests": 0}, {"tokens": "0/minute"}, {"spend": "0.00/month"}, {"concurrency": 0}]
)
def test_a_limit_of_nothing_is_a_suspension_whatever_is_allowed(limits: Any) -> None:
    decision = read({"result": {"allow": True, "limits": limits, "reason": "unpaid"}})
    assert (decision.is_allowed, decision.is_suspended, decision.reason) == (False, True, "unpaid")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"garbage",
        b"<html>",
        b"[]",
        b"true",
        b'"yes"',
        b"\xff",
        b"[" * 100_000,
        b'{"result": {"a": ' + b"[" * 100_000,
        {"result": "yes"},
        {"result": 1},
        {"result": [True]},
        {"result": {"allow": "true"}},
        {"result": {"allow": 1}},
        {"result": {"allow": None}},
        {"result": True, "decision_id": 7},
        {"result": {"allow": True, "limits": {"request": "5/minute"}}},
        {"result": {"allow": True, "limits": {"requests": "many"}}},
        {"result": {"allow": True, "limits": {"requests": 5}}},
        {"result": {"allow": True, "limits": {"requests": "-1/minute"}}},
        {"result": {"allow": True, "limits": {"spend": "ten/month"}}},
        {"result": {"allow": True, "limits": []}},
        {"result": {"allow": True, "limits": {"concurrency": -1}}},
        {"result": {"allow": True, "limits": {"concurrency": "5"}}},
        {"result": {"allow": True, "models": "gpt-5"}},
        {"result": {"allow": True, "models": [""]}},
        {"result": {"allow": True, "models": ["m" * 300]}},
        {"result": {"allow": True, "models": [str(i) for i in range(1001)]}},
        {"result": {"allow": True, "labels": ["eu"]}},
        {"result": {"allow": True, "labels": {"a": 1}}},
        {"result": {"allow": True, "labels": {"a": "b\nc"}}},
        {"result": {"allow": True, "labels": {str(i): "x" for i in range(17)}}},
    ],
)
def test_what_is_no_answer_is_never_taken_for_one(document: Any) -> None:
    with pytest.raises(ValueError):
        read(document)


def test_terms() -> None:
    terms = read(
        {"result": {"allow": True, "models": ["gpt-*"], "labels": {"region": "eu"},
                    "limits": {"requests": "5/minute", "concurrency": 2, "spend": "10/month", "tokens": "9/day"}}}
    ).terms  # fmt: skip
    assert terms is not None
    assert terms.limits == LimitOverrides(requests="5/minute", tokens="9/day", concurrency=2, spend="10/month")
    assert (terms.models, terms.labels) == (("gpt-*",), (("region", "eu"),))


def test_no_models_at_all_is_not_the_same_as_no_word_about_models() -> None:
    nothing, everything = read({"result": {"allow": True, "models": []}}).terms, read({"result": {"allow": True}}).terms
    assert nothing is not None
    assert nothing.models == ()
    assert everything is None


def test_the_same_terms_have_the_same_generation_and_others_another() -> None:
    def generation(**result: Any) -> str:
        terms = read({"result": {"allow": True, **result}, "decision_id": "x"}).terms
        assert terms is not None
        return terms.generation

    assert generation(models=["a", "b"]) == generation(models=["b", "a"], reason="why")
    different: list[Any] = [{"models": ["a"]}, {"models": ["b"]}, {"labels": {"a": "b"}}, {"labels": {"b": "a"}},
                 {"limits": {"requests": "1/day"}}, {"limits": {"tokens": "1/day"}}]  # fmt: skip
    assert len({generation(**result) for result in different}) == len(different)


def test_a_reason_is_one_line_of_bounded_length() -> None:
    decision = read(
        {"result": {"allow": False, "reason": "no\r\nx-evil: 1\x1b[31m" + "a" * 1000}, "decision_id": "d\n" * 200}
    )
    assert decision.reason is not None
    assert decision.reason.isprintable()
    assert len(decision.reason) <= 256
    assert decision.decision_id is not None
    assert decision.decision_id.isprintable()


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(
    st.sampled_from(["result", "allow", "limits", "models", "labels", "reason", "requests"]), s)))  # fmt: skip
def test_only_a_true_that_is_one_lets_anybody_in(document: Any) -> None:
    try:
        decision = read(document)
    except ValueError:
        return
    result = document.get("result")
    assert decision.is_allowed is (result is True or (isinstance(result, dict) and result.get("allow") is True
                                                     and not decision.is_suspended))  # fmt: skip
