"""To what a client attributes a call: tags, the session of an agent, the end user, the trace that it belongs to."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.domain import Attribution
from gateway_middleware.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_middleware.core.domain import HeaderList

TAGS, SESSION, TRACEPARENT = b"x-gateway-tags", b"x-gateway-session", b"traceparent"
_AGENT_SESSIONS = (b"x-claude-code-session-id", b"session_id", b"session-id", b"conversation_id")
"""What agents send of themselves: Claude Code; Codex CLI, by its version."""
_SESSIONS = frozenset((SESSION, *_AGENT_SESSIONS))
_HEADERS = frozenset((TAGS, TRACEPARENT)) | _SESSIONS
_NOTHING = Attribution()
_USER_FIELDS = frozenset(("safety_identifier", "user", "metadata"))
_MAX_TAGS, _MAX_TAGS_BYTES = 8, 256
_MAX_NAME = 128
_TAG = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]{0,63})=([!-+\--~]{1,128})")
"""A name, and printable ASCII without spaces and commas."""
_SESSION = re.compile(r"[!-~]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_CLAUDE_CODE = re.compile(r"(user_[0-9a-f]+_account_[0-9a-f-]*)_session_([0-9a-f-]+)")
"""`metadata.user_id` of Claude Code, before it became an object in JSON."""


def attribution_of(
    headers: Mapping[bytes, bytes],
    sent: HeaderList,
    fields: Mapping[str, msgspec.Raw],
    *,
    end_user_header: bytes | None = None,
) -> Attribution | None:
    """What a call says of itself; None: nothing. `headers` are those that were `sent`, by name.

    Where `end_user_header` is given, it alone says who the end user is; else the body's `safety_identifier`, `user` or
    `metadata.user_id`. Raises `InvalidRequestError` for tags and a session that cannot be taken.
    """
    if (
        _HEADERS.isdisjoint(headers)  # twice as fast as to ask the keys of the mapping
        and _USER_FIELDS.isdisjoint(fields)
        and end_user_header not in headers
    ):
        return None
    user, session = _of_body(fields)
    if end_user_header is not None:
        user = headers.get(end_user_header, b"").decode("latin-1").strip()
    attribution = Attribution(
        tags=_tags(sent) if TAGS in headers else (),
        session=session if _SESSIONS.isdisjoint(headers) else _session(headers) or session,
        end_user=_bounded(user) if user else None,
        traceparent=_traceparent(headers[TRACEPARENT]) if TRACEPARENT in headers else None,
    )
    return None if attribution == _NOTHING else attribution


def _tags(sent: HeaderList) -> tuple[tuple[str, str], ...]:
    """`team=search,env=prod`, in the order of the client. A header that is sent twice is one list, as HTTP has it."""
    text = b",".join([value for name, value in sent if name == TAGS])
    pairs = [part.strip() for part in text.decode("latin-1").split(",") if part.strip()]
    matches = [_TAG.fullmatch(pair) for pair in pairs]
    tags = tuple([(match[1], match[2]) for match in matches if match is not None])
    if len(text) > _MAX_TAGS_BYTES or len(tags) != len(pairs) or not len(dict(tags)) == len(tags) <= _MAX_TAGS:
        raise InvalidRequestError(
            f"The header x-gateway-tags takes at most {_MAX_TAGS} different name=value pairs with commas between them, "
            f"printable ASCII without spaces, {_MAX_TAGS_BYTES} bytes in all.",
            param="x-gateway-tags",
        )
    return tags


def _session(headers: Mapping[bytes, bytes]) -> str | None:
    """The client's own word, else what its agent sends anyway: that is taken as far as it can be."""
    own = headers.get(SESSION)
    if own is not None:
        session = own.decode("latin-1")
        if _SESSION.fullmatch(session) is None:
            raise InvalidRequestError(
                "The header x-gateway-session takes at most 128 printable ASCII characters.", param="x-gateway-session"
            )
        return session
    values = [headers[name].decode("latin-1") for name in _AGENT_SESSIONS if name in headers]
    return next((value for value in values if _SESSION.fullmatch(value)), None)


def _of_body(fields: Mapping[str, msgspec.Raw]) -> tuple[str | None, str | None]:
    """The end user and the session that a body names."""
    for name in ("safety_identifier", "user"):
        if name in fields and isinstance(user := _decoded(fields[name]), str) and user.strip():
            return user.strip(), None
    metadata = _decoded(fields["metadata"]) if "metadata" in fields else None
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    if not isinstance(user, str) or not user.strip():
        return None, None
    return _of_claude_code(user.strip())


def _of_claude_code(user: str) -> tuple[str, str | None]:
    """Claude Code writes the session beside its user, who is one in all sessions; any other client's user as it is."""
    older = _CLAUDE_CODE.fullmatch(user)
    if older is not None:
        return older[1], older[2]
    parts = _decoded(msgspec.Raw(user.encode())) if user.startswith("{") else None
    if not isinstance(parts, dict):
        return user, None
    session = parts.get("session_id")
    names = [name for key in ("account_uuid", "device_id") if isinstance(name := parts.get(key), str) and name]
    is_session = isinstance(session, str) and _SESSION.fullmatch(session)
    return (names[0] if names else user), (session if is_session else None)


def _decoded(raw: msgspec.Raw) -> Any:
    """None for what is no JSON."""
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None


def _bounded(user: str) -> str:
    """The name itself, or its digest where it is too long to be kept."""
    if len(user) <= _MAX_NAME:
        return user
    return f"sha256:{sha256(user.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _traceparent(sent: bytes) -> str | None:
    """As W3C Trace Context has it; anything else is nobody's trace."""
    text = sent.decode("latin-1")
    return text if _TRACEPARENT.fullmatch(text) else None
