"""What each surface brings to translation: how its requests, answers and streams are read and written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from gateway_middleware.core.domain import Surface
from gateway_middleware.translation.chat import request_decoder as chat_requests
from gateway_middleware.translation.chat.answer_decoder import read_answer as read_chat_answer
from gateway_middleware.translation.chat.answer_encoder import write_answer as write_chat_answer
from gateway_middleware.translation.chat.request_encoder import write_request as write_chat_request
from gateway_middleware.translation.chat.stream_decoder import ChatStreamDecoder
from gateway_middleware.translation.chat.stream_encoder import ChatStreamEncoder
from gateway_middleware.translation.context import (
    AnswerDecoder,
    AnswerEncoder,
    Context,
    StreamDecoder,
    StreamEncoder,
)
from gateway_middleware.translation.fields import Losses
from gateway_middleware.translation.ids import answer_id
from gateway_middleware.translation.messages import request_decoder as messages_requests
from gateway_middleware.translation.messages.answer_decoder import read_answer as read_message
from gateway_middleware.translation.messages.answer_encoder import write_answer as write_message
from gateway_middleware.translation.messages.request_encoder import write_request as write_messages_request
from gateway_middleware.translation.messages.stream_decoder import MessagesStreamDecoder
from gateway_middleware.translation.messages.stream_encoder import MessagesStreamEncoder
from gateway_middleware.translation.responses import request_decoder as responses_requests
from gateway_middleware.translation.responses.answer_decoder import read_answer as read_response
from gateway_middleware.translation.responses.answer_encoder import write_answer as write_response
from gateway_middleware.translation.responses.request_encoder import write_request as write_responses_request
from gateway_middleware.translation.responses.stream_decoder import ResponsesStreamDecoder
from gateway_middleware.translation.responses.stream_encoder import ResponsesStreamEncoder
from gateway_middleware.translation.target import Target
from gateway_middleware.translation.vocabulary import Conversation


class ClientSide(msgspec.Struct, frozen=True, kw_only=True):
    """A surface as clients speak it. `names` are its words for what the vocabulary names."""

    names: dict[str, str]
    answer_id: Callable[[str], str]
    """The id of an answer, as it is given to clients, by the provider's id."""
    read_request: Callable[[dict[str, Any], Losses], Conversation]
    write_answer: AnswerEncoder
    stream_encoder: Callable[[Context], StreamEncoder]


class ProviderSide(msgspec.Struct, frozen=True, kw_only=True):
    """A surface as providers speak it."""

    write_request: Callable[[Conversation, Target, Losses], dict[str, Any]]
    read_answer: AnswerDecoder
    stream_decoder: Callable[[Context], StreamDecoder]


CLIENTS = {
    Surface.RESPONSES: ClientSide(
        names=responses_requests.NAMES,
        answer_id=partial(answer_id, prefix="resp_"),
        read_request=responses_requests.read_request,
        write_answer=write_response,
        stream_encoder=ResponsesStreamEncoder,
    ),
    Surface.CHAT: ClientSide(
        names=chat_requests.NAMES,
        answer_id=partial(answer_id, prefix="chatcmpl-"),
        read_request=chat_requests.read_request,
        write_answer=write_chat_answer,
        stream_encoder=ChatStreamEncoder,
    ),
    Surface.MESSAGES: ClientSide(
        names=messages_requests.NAMES,
        answer_id=partial(answer_id, prefix="msg_"),
        read_request=messages_requests.read_request,
        write_answer=write_message,
        stream_encoder=MessagesStreamEncoder,
    ),
}
PROVIDERS = {
    Surface.RESPONSES: ProviderSide(
        write_request=write_responses_request,
        read_answer=read_response,
        stream_decoder=ResponsesStreamDecoder,
    ),
    Surface.CHAT: ProviderSide(
        write_request=write_chat_request,
        read_answer=read_chat_answer,
        stream_decoder=ChatStreamDecoder,
    ),
    Surface.MESSAGES: ProviderSide(
        write_request=write_messages_request,
        read_answer=read_message,
        stream_decoder=MessagesStreamDecoder,
    ),
}
"""Every surface of one table can be translated to every other of the second."""
