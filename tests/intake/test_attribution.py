"""What a client says that its call belongs to: tags, session, end user, trace."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.domain import Attribution, HeaderList
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.intake.attribution import attribution_of

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OLDER = "user_0123abcd_account_11111111-2222-3333-4444-555555555555_session_66666666-7777-8888-9999-000000000000"
NEWER = json.dumps({"device_id": "d" * 64, "account_uuid": "acc-1", "session_id": "sess-1"})


def read(headers: dict[str, str] | HeaderList | None = None, *, header: str | None = None, **fields: Any) -> Any:
    sent = headers if isinstance(headers, list) else [(n.encode(), v.encode()) for n, v in (headers or {}).items()]
    raw = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}
    return attribution_of(dict(sent), sent, raw, end_user_header=None if header is None else header.encode())


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"user-agent": "x"}, None),
        ({"x-gateway-tags": ""}, None),
        ({"x-gateway-tags": " , "}, None),
        ({"x-gateway-tags": "team=search, env=prod"}, Attribution(tags=(("team", "search"), ("env", "prod")))),
        ({"x-gateway-tags": "q=a=b"}, Attribution(tags=(("q", "a=b"),))),
        ({"x-gateway-session": "s-1"}, Attribution(session="s-1")),
        ({"x-gateway-session": "mine", "session_id": "its"}, Attribution(session="mine")),
        ({"x-claude-code-session-id": "cc"}, Attribution(session="cc")),
        ({"session_id": "codex"}, Attribution(session="codex")),
        ({"session-id": "codex-2"}, Attribution(session="codex-2")),
        ({"conversation_id": "codex-0"}, Attribution(session="codex-0")),
        ({"session_id": "no\tsession", "conversation_id": "c"}, Attribution(session="c")),
        ({"session_id": "x" * 129}, None),
        ({"traceparent": TRACE}, Attribution(traceparent=TRACE)),
        ({"traceparent": "nonsense"}, None),
    ],
)
def test_headers(headers: dict[str, str], expected: Attribution | None) -> None:
    assert read(headers) == expected


@pytest.mark.parametrize(
    ("fields", "user", "session"),
    [
        ({"user": "u-1"}, "u-1", None),
        ({"user": " u-1 "}, "u-1", None),
        ({"user": "u-1", "safety_identifier": "s-1"}, "s-1", None),
        ({"metadata": {"user_id": "m-1"}}, "m-1", None),
        ({"user": "u-1", "metadata": {"user_id": "m-1"}}, "u-1", None),
        ({"metadata": {"user_id": OLDER}}, OLDER.partition("_session_")[0], OLDER.rpartition("_session_")[2]),
        ({"metadata": {"user_id": NEWER}}, "acc-1", "sess-1"),
        ({"metadata": {"user_id": '{"device_id": "d-1", "account_uuid": ""}'}}, "d-1", None),
        ({"metadata": {"user_id": '{"name": 1}'}}, '{"name": 1}', None),
        ({"metadata": {"user_id": "{"}}, "{", None),
        ({"user": "Ünïcode\n"}, "Ünïcode", None),
        ({"user": "x" * 128}, "x" * 128, None),
    ],
)
def test_bodies(fields: dict[str, Any], user: str, session: str | None) -> None:
    assert read(**fields) == Attribution(end_user=user, session=session)


@pytest.mark.parametrize("user", ["", "  ", None, 7, ["u"], {"id": "u"}])
def test_a_body_that_names_nobody(user: Any) -> None:
    assert read(user=user) is None
    assert read(metadata={"user_id": user}) is None
    assert read(metadata=user) is None


def test_long_names_are_told_apart_by_their_digest() -> None:
    one, other = read(user="x" * 129), read(user="x" * 130)
    assert one.end_user.startswith("sha256:")
    assert one != other


def test_a_trusted_header_alone_names_the_end_user() -> None:
    assert read({"x-user": "real"}, header="x-user", user="forged") == Attribution(end_user="real")
    assert read({}, header="x-user", user="forged") is None
    assert read({"x-user": "u"}) is None


def test_a_header_that_is_sent_twice_is_one_list() -> None:
    twice: HeaderList = [(b"x-gateway-tags", b"a=1"), (b"x-gateway-tags", b"b=2")]
    assert read(twice) == Attribution(tags=(("a", "1"), ("b", "2")))


@pytest.mark.parametrize(
    "tags",
    [
        "novalue",
        "=v",
        "n=",
        "a b=c",
        "a=b c",
        "a=\x7f",
        "a=ü",
        "a=1,a=2",
        ",".join(f"t{i}=v" for i in range(9)),
        ",".join(f"t{i}={'v' * 60}" for i in range(5)),
        f"{'n' * 65}=v",
    ],
)
def test_tags_that_cannot_be_taken(tags: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read({"x-gateway-tags": tags})
    assert refused.value.param == "x-gateway-tags"


@pytest.mark.parametrize("session", ["", "x" * 129, "a b", "\x00"])
def test_a_session_that_cannot_be_taken(session: str) -> None:
    with pytest.raises(InvalidRequestError, match="x-gateway-session"):
        read({"x-gateway-session": session})


@given(value=st.binary(max_size=300), raw=st.binary(max_size=60))
@settings(deadline=None)
def test_whatever_is_sent_is_taken_or_refused(value: bytes, raw: bytes) -> None:
    sent: HeaderList = [(b"x-gateway-tags", value), (b"session_id", value), (b"traceparent", value)]
    fields = {"user": msgspec.Raw(raw), "metadata": msgspec.Raw(raw)}
    try:
        attribution = attribution_of(dict(sent), sent, fields)
    except InvalidRequestError:
        return
    if attribution is not None:
        msgspec.json.encode(attribution)
        assert len(attribution.tags) <= 8
