"""Responses that the simulator has stored: to be read, streamed once more, cancelled and deleted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import parse_qs

import msgspec

from gateway_middleware.core.sse import parse_event, split_events
from gateway_middleware.simulator.answer import EVENTS, Answer, Stream, Task, encode
from gateway_middleware.simulator.places import Place
from gateway_middleware.simulator.responses import document_of, events_of, input_items

CAPACITY = 1000
_MAX_PIECES = 10_000
_MAX_PAGE = 100
_BEFORE_THE_END = frozenset({"queued", "in_progress"})


class _Numbered(msgspec.Struct):
    sequence_number: int = 0


_decode_number = msgspec.json.Decoder(_Numbered).decode


class _Stored:
    """One response. One of the background is in progress when it is read for the first time, and then completed."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.state: str | None = "queued" if task.parameters.background else None

    def advance(self) -> None:
        if self.state in _BEFORE_THE_END:
            self.state = "in_progress" if self.state == "queued" else None

    @property
    def document(self) -> dict[str, Any]:
        return document_of(self.task, self.state)


class StoredResponses:
    """The latest thousand, by their ids."""

    def __init__(self) -> None:
        self._stored: OrderedDict[str, _Stored] = OrderedDict()

    def keep(self, task: Task) -> None:
        """Store the response of this call, unless it asks not to."""
        if task.parameters.store is not False:
            self._stored[f"resp_{task.number}"] = _Stored(task)
            if len(self._stored) > CAPACITY:
                self._stored.popitem(last=False)

    def has(self, response_id: str | None, account: str) -> bool:
        """Whether a call of this account may go on from this response; None: from none."""
        stored = None if response_id is None else self._stored.get(response_id)
        return response_id is None or (stored is not None and stored.task.account == account)

    def answer(self, place: Place, method: str, account: str) -> Answer:
        """What OpenAI says of this response to this account."""
        stored = self._stored.get(place.response_id)
        if stored is None or stored.task.account != account:
            return _refused(404, f"Response with id '{place.response_id}' not found.")
        if method == "DELETE":
            del self._stored[place.response_id]
            return Answer(body=encode({"id": place.response_id, "object": "response", "deleted": True}))
        query = {name.removesuffix("[]"): values for name, values in parse_qs(place.query).items()}
        if place.tail == "cancel":
            return _cancelled(stored)
        return _page(stored, query) if place.tail else _read(stored, query)


def _refused(status: int, message: str, param: str | None = None) -> Answer:
    """In the words of OpenAI and of Azure."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return Answer(status=status, body=encode({"error": error}))


def no_previous(response_id: str | None) -> Answer:
    """The call names a response that its account does not have."""
    message = f"Previous response with id '{response_id}' not found."
    error = {"message": message, "type": "invalid_request_error", "param": "previous_response_id",
             "code": "previous_response_not_found"}  # fmt: skip
    return Answer(status=400, body=encode({"error": error}))


def _cancelled(stored: _Stored) -> Answer:
    if not stored.task.parameters.background:
        return _refused(400, "Cannot cancel a synchronous response.")
    if stored.state in _BEFORE_THE_END:
        stored.state = "cancelled"
    return Answer(body=encode(stored.document))


def _read(stored: _Stored, query: dict[str, list[str]]) -> Answer:
    if query.get("stream") != ["true"]:
        stored.advance()
        return Answer(body=encode(stored.document))
    stored.state = None
    after = _number(query, "starting_after", -1)
    return Answer(content_type=EVENTS, stream=Stream(content=_events(stored.task, after)))


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    """0 for what is none."""
    text = query.get(name, [str(default)])[0]
    return int(text) if text.lstrip("-").isdecimal() else 0


def _events(task: Task, after: int) -> Iterator[bytes]:
    """Those with a greater number, one at a time."""
    stream = events_of(task)
    pieces = [stream.opening, *stream.lead, *islice(stream.content, _MAX_PIECES), *stream.closing]
    for event in split_events(b"".join(pieces)):
        if _decode_number(parse_event(event)[1]).sequence_number > after:
            yield event


def _page(stored: _Stored, query: dict[str, list[str]]) -> Answer:
    limit = _number(query, "limit", 20)
    if not 1 <= limit <= _MAX_PAGE:
        message = f"Invalid 'limit': integer out of range. Expected a value between 1 and {_MAX_PAGE}."
        return _refused(400, message, param="limit")
    items = input_items(stored.task)
    if query.get("order") != ["asc"]:
        items.reverse()
    ids = [item["id"] for item in items]
    after = query.get("after", [""])[0]
    left = items[ids.index(after) + 1 :] if after in ids else items
    page = left[:limit]
    document = {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(left) > len(page),
    }
    return Answer(body=encode(document))
