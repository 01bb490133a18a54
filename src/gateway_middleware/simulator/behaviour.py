"""How a simulated provider misbehaves: every option, and which requests it applies to."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal, TypeAlias

import msgspec

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Framing: TypeAlias = Literal["auto", "chunked", "length", "close"]

FAULTS = {
    "reset": "reads the request, resets the connection (RST)",
    "close": "reads the request, closes the connection with 0 bytes",
    "stall": "reads the request, sends nothing, ever",
    "stall_head": "sends the head, then nothing, ever",
    "cut_head": "sends half a head and closes",
    "garbage": "answers with bytes that are not HTTP and closes",
    "html": "answers 200 with an HTML page",
    "empty": "answers 200 without a body",
    "malformed": "sends one broken event after the first chunk; broken JSON where nothing is streamed",
    "drip": "sends every byte by itself",
    "surplus": "sends a second answer that nobody asked for",
    "close_after": "closes after a complete answer, unannounced",
    "stale": "answers, then closes the kept connection when the next request arrives on it, unanswered",
    "informational": "sends `103 Early Hints` before the head",
}
"""Name and meaning of each fault. Several are joined by `+`."""


class Replay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recorded answer. In JSON, `body` is base64.

    `cut`: `whole` in one piece, `bytes` byte by byte, or the offsets at which the body is cut into pieces. Each piece
    is a write of its own, and a chunk of its own where the framing is chunked (`auto`: for event streams).
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    cut: Literal["whole", "bytes"] | tuple[Count, ...] = "whole"
    framing: Framing = "auto"
    end: Literal["clean", "cut", "reset", "stall"] = "clean"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How to answer. Durations are seconds; counts of `..._after` are content chunks; the default is a good answer.

    Raises `ValueError` for an unknown fault.
    """

    ttft: Seconds = 0.0
    """Silence before the head."""
    content_delay: Seconds = 0.0
    """Silence between the lifecycle frames of a stream and its first content."""
    gap: Seconds = 0.0
    """Silence between two chunks."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Gaps vary evenly by this share."""
    length: Count | None = None
    """Content chunks; without it, as many as the reply has words. The output cap of the request is kept."""
    chunk_size: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Characters in each content chunk."""
    tool_calls: Count = 0
    """Answer with calls of the tools that the request offers."""
    pings: Count = 0
    """Ping events (comments in OpenAI's format) before the first content."""
    input_tokens: Count | None = None
    """Inclusive of cached and cache-write tokens, whatever the provider's own convention is."""
    output_tokens: Count | None = None
    """Inclusive of reasoning tokens."""
    cached_tokens: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0
    usage: bool = True
    """Whether usage is reported."""
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    """Answer with an error (or redirection) of this status."""
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    body: str | None = None
    """The raw body that goes with `status`."""
    retry_after: Seconds | None = None
    retry_after_ms: Count | None = None
    headers: dict[str, str] = {}
    """Further response headers."""
    fail_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """The share of calls that status and faults strike; the others are answered well. Alone, it means status 500."""
    framing: Framing = "auto"
    """`length` sends a stream in one piece; `close` ends the body by closing the connection."""
    content_length_delta: int = 0
    """Added to the content-length of the answer. The connection closes after it."""
    chunk_split: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = ()
    """Cut the body into writes of these sizes, over and over."""
    fault: str = ""
    reset_after: Count | None = None
    stall_after: Count | None = None
    truncate_after: Count | None = None
    """The connection closes without the end of the body."""
    eof_after: Count | None = None
    """The body ends cleanly, the wire format does not."""
    error_after: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    """An error event; 0 is right after the lifecycle frames, -1 the very first event."""
    replay: Replay | None = None

    def __post_init__(self) -> None:
        unknown = self.faults - FAULTS.keys()
        if unknown:
            raise ValueError(f"unknown fault {min(unknown)!r}; there are {', '.join(FAULTS)}")

    @property
    def faults(self) -> frozenset[str]:
        """The names joined in `fault`."""
        return frozenset(self.fault.split("+")) if self.fault else frozenset()

    @property
    def is_harmful(self) -> bool:
        """Whether anything but a good answer is asked for."""
        return bool(self.fault) or any(getattr(self, name) != default for name, default in _HARM.items())


_HARM: dict[str, object] = {
    "status": None,
    "reset_after": None,
    "stall_after": None,
    "truncate_after": None,
    "eof_after": None,
    "error_after": None,
    "content_length_delta": 0,
}
PLAIN = Behaviour()


def harmless(behaviour: Behaviour) -> Behaviour:
    """The same without status and faults."""
    without = {"fault": "", "retry_after": None, "retry_after_ms": None, **_HARM}
    return msgspec.structs.replace(behaviour, **without)


class Match(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which requests a rule is for: shell patterns, all of which must fit. `surface` is a path such as `messages`."""

    model: str = "*"
    surface: str = "*"
    provider: str = "*"
    path: str = "*"

    def fits(self, *, model: str, surface: str, provider: str, path: str) -> bool:
        """Whether a request is one of them."""
        return (
            fnmatchcase(model, self.model)
            and fnmatchcase(surface, self.surface)
            and fnmatchcase(provider, self.provider)
            and fnmatchcase(path, self.path)
        )


class Rule(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A behaviour for the requests that match. `times` is how many are left; None means always."""

    behaviour: Behaviour
    match: Match = Match()
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Rulebook:
    """Rules with `times` are used up first, in the order they came; then the latest standing rule holds."""

    def __init__(self) -> None:
        self._counted: list[Rule] = []
        self._standing: list[Rule] = []

    def __bool__(self) -> bool:
        return bool(self._counted or self._standing)

    @property
    def rules(self) -> list[Rule]:
        """In the order in which they are tried."""
        return [*self._counted, *self._standing]

    def add(self, rule: Rule) -> None:
        """Take a rule."""
        if rule.times is None:
            self._standing.insert(0, rule)
        else:
            self._counted.append(rule)

    def clear(self) -> None:
        """Forget all rules."""
        self._counted.clear()
        self._standing.clear()

    def find(self, *, model: str, surface: str, provider: str, path: str) -> Rule | None:
        """The rule for a request."""
        for rule in self.rules:
            if rule.match.fits(model=model, surface=surface, provider=provider, path=path):
                return rule
        return None

    def use(self, rule: Rule) -> None:
        """Count one use."""
        if rule.times is not None:
            rule.times -= 1
            if rule.times <= 0:
                self._counted.remove(rule)
