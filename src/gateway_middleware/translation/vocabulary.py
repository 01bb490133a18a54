"""The middle vocabulary: what a request and an answer say, in no dialect's words."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from gateway_middleware.core.domain import Usage


class Vendor(StrEnum):
    """Who made an opaque proof of reasoning: only that vendor can read it."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"


class Role(StrEnum):
    """Who speaks. SYSTEM stands for OpenAI's `developer` as well."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Stop(StrEnum):
    """Why an answer ended."""

    END = "end"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    CONTEXT_WINDOW = "context_window"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A source of a text. `url` and `title` are of the web; `raw` is the vendor's own object."""

    raw: dict[str, Any]
    url: str | None = None
    title: str | None = None


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Text. `cache` is Anthropic's `cache_control` object, where one marks the part."""

    text: str
    cache: dict[str, Any] | None = None
    citations: tuple[Citation, ...] = ()


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image, as base64 `data` of `media_type`, or behind a `url`. `detail` is OpenAI's."""

    data: str | None = None
    media_type: str | None = None
    url: str | None = None
    detail: str | None = None
    cache: dict[str, Any] | None = None

    @property
    def address(self) -> str:
        """The URL, or a `data:` URL of the content."""
        return self.url if self.url is not None else f"data:{self.media_type};base64,{self.data}"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A file, as base64 `data`, plain `text`, or behind a `url`."""

    data: str | None = None
    media_type: str | None = None
    url: str | None = None
    text: str | None = None
    name: str | None = None
    has_citations: bool = False
    cache: dict[str, Any] | None = None


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a client's tool. `arguments` is a JSON object as text; for a free-form tool any text."""

    id: str
    name: str
    arguments: str
    is_free_form: bool = False
    cache: dict[str, Any] | None = None


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool answered."""

    call_id: str
    parts: tuple[Text | Image | Document, ...]
    is_error: bool = False
    is_free_form: bool = False
    cache: dict[str, Any] | None = None


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """Reasoning that a model showed. `proof` is opaque and only for its `vendor`; without `text` it is redacted.

    `id` is the vendor's name of the item. An Anthropic proof with `is_redacted` is the data of a redacted block, else
    a signature of the text.
    """

    text: str = ""
    proof: str | None = None
    vendor: Vendor | None = None
    id: str | None = None
    is_redacted: bool = False


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The model's words of refusal."""

    text: str


Part: TypeAlias = "Text | Image | Document | ToolCall | ToolResult | Reasoning | Refusal"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn."""

    role: Role
    parts: tuple[Part, ...]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of the client. `schema` is a JSON schema, as it came; a free-form tool has none and takes any text.

    `form` is the format of a free-form tool, in the words of Responses.
    """

    name: str
    description: str | None = None
    schema: Any = None
    is_strict: bool | None = None
    is_free_form: bool = False
    form: dict[str, Any] | None = None
    cache: dict[str, Any] | None = None


class Choice(StrEnum):
    """What the model may do with its tools; NAMED: it must call the one that is named."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is the tool of `Choice.NAMED`. `allowed` narrows the tools to those names."""

    choice: Choice
    name: str | None = None
    allowed: tuple[str, ...] | None = None


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is JSON, after `schema` where there is one."""

    name: str = "output"
    description: str | None = None
    schema: dict[str, Any] | None = None
    is_strict: bool | None = None


class Thinking(StrEnum):
    """Whether the client asked for reasoning, when it does not name an effort."""

    OFF = "off"
    ON = "on"
    ADAPTIVE = "adaptive"


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A request. None is not asked for.

    `effort` is one of OpenAI's words, from `none` to `max`. `openai` holds the options that only OpenAI's two surfaces
    have, by the name that both give them.
    """

    messages: tuple[Message, ...]
    system: tuple[Text, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    may_call_parallel: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    output_format: OutputFormat | None = None
    effort: str | None = None
    thinking: Thinking | None = None
    thinking_budget: int | None = None
    thinking_display: str | None = None
    user: str | None = None
    service_tier: str | None = None
    cache: dict[str, Any] | None = None
    cache_key: str | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    verbosity: str | None = None
    is_stream: bool = False
    wants_usage: bool = False
    openai: dict[str, Any] = msgspec.field(default_factory=dict)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. `stop_sequence` is the text that ended it; `created` is in seconds since the epoch."""

    id: str
    model: str
    parts: tuple[Text | ToolCall | Reasoning | Refusal, ...]
    stop: Stop
    stop_sequence: str | None = None
    usage: Usage | None = None
    created: int | None = None
    service_tier: str | None = None
