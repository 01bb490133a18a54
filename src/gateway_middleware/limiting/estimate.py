"""How many tokens a call will take, before it is made.

Input: bytes of what the model reads, divided by bytes per token; the ratio is learnt for each model from the providers'
own counts. Output: the cap that the client has set, else what this tenant's calls to this model have needed lately.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from gateway_middleware.core.counted_fields import COUNTED
from gateway_middleware.core.domain import Dialect, ModelRequest, Surface, Usage
from gateway_middleware.core.quantile import Quantiles

DEFAULT_OUTPUT = 1024
IMAGE_TOKENS = 1100
"""A large image: 765 to 1,105 at OpenAI (high detail), about 1,600 at most at Anthropic."""
_DOCUMENT_BYTES_PER_TOKEN = 40
"""A page of a PDF is about 100 kB of base64 and 2,500 tokens."""
_BYTES_PER_TOKEN = 4.0
_TOOL_PROMPT_TOKENS = 350
"""What Anthropic adds to a call that names tools."""
_MESSAGE_TOKENS = 8
_FORGET = 0.98
_WARM = 8
_MAX_MODELS = 2048
_MAX_PAIRS = 8192
_MAX_RATIO, _MIN_RATIO = 12.0, 0.5
_NO_OUTPUT = frozenset({
    Surface.EMBEDDINGS,
    Surface.COUNT_TOKENS,
    Surface.INPUT_TOKENS,
    Surface.MODERATIONS,
    Surface.STORED,
})  # fmt: skip
_SELDOM_OUTPUT = frozenset({
    Surface.IMAGES_GENERATIONS,
    Surface.IMAGES_EDITS,
    Surface.IMAGES_VARIATIONS,
    Surface.AUDIO_SPEECH,
})  # fmt: skip
"""Images and sound are counted in tokens at some models only: until a model has shown them, none are expected."""
_MAX_RUNS = 20_000
_BASE64_MARKS = (b";base64,", b'"data":"', b'"data": "')
_IMAGE_MARKS = (b'"image_url":', b'"input_image"', b'"type":"image"', b'"type": "image"')
"""One image has one or two of these."""
_MIN_BLOB = 64


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """Tokens that a call is expected to take. `is_capped`: the client has set the bound on the output itself.

    `text_bytes` is what the input was estimated from, 0 where nothing can be learnt from it.
    """

    input_tokens: int
    output_tokens: int
    is_capped: bool
    text_bytes: int

    def within(self, smallest: int) -> int:
        """Tokens to reserve where the smallest limit is `smallest`: never more, so that a small limit stays usable.

        A call whose input alone is more than the limit keeps its full cost and is refused.
        """
        if self.input_tokens > smallest:
            return self.input_tokens
        return min(self.input_tokens + self.output_tokens, smallest)


class Estimator:
    """Estimates, and learns from what calls have really used."""

    def __init__(self, *, default_output: int = DEFAULT_OUTPUT) -> None:
        self._default_output = default_output
        self._ratios: OrderedDict[str, _Ratio] = OrderedDict()
        self._outputs: Quantiles[tuple[str, str]] = Quantiles(0.9, max_keys=_MAX_PAIRS)

    def estimate(self, request: ModelRequest, tenant: str) -> Estimate:
        """What the call will take."""
        text, blobs = measure(request)
        tokens = self._tokens(request, text) + blobs
        output, is_capped = self._output(request, tenant)
        return Estimate(max(tokens, 1), output, is_capped, 0 if blobs else text)

    def learn(self, request: ModelRequest, tenant: str, estimate: Estimate, usage: Usage) -> None:
        """Take the provider's counts of a complete answer into account; an output that was capped teaches nothing."""
        if usage.input_tokens and estimate.text_bytes:
            self._ratio(request.model).add(estimate.text_bytes, usage.input_tokens - _fixed(request))
        if usage.output_tokens is not None and not estimate.is_capped:
            self._outputs.add((tenant, request.model), -(-usage.output_tokens // max(request.choices, 1)))

    def _tokens(self, request: ModelRequest, text: int) -> int:
        ratio = self._ratios.get(request.model)
        return int(text / (ratio.value if ratio is not None else _BYTES_PER_TOKEN)) + _fixed(request)

    def _output(self, request: ModelRequest, tenant: str) -> tuple[int, bool]:
        if request.surface in _NO_OUTPUT:
            return 0, True
        choices = max(request.choices, 1)
        if request.output_cap is not None:
            return request.output_cap * choices, True
        learnt = self._outputs.get((tenant, request.model), at_least=_WARM)
        if learnt is None:
            learnt = 0 if request.surface in _SELDOM_OUTPUT else self._default_output
        return learnt * choices, False

    def _ratio(self, model: str) -> _Ratio:
        """That of a model; the one that was asked for longest ago makes room for a new one."""
        ratio = self._ratios.get(model)
        if ratio is not None:
            self._ratios.move_to_end(model)
            return ratio
        if len(self._ratios) >= _MAX_MODELS:
            self._ratios.popitem(last=False)
        ratio = self._ratios[model] = _Ratio()
        return ratio


class _Ratio:
    """Bytes per token, exponentially forgetting. Begins with some weight on the usual ratio."""

    __slots__ = ("_bytes", "_tokens", "value")

    def __init__(self) -> None:
        self._bytes, self._tokens = 400 * _BYTES_PER_TOKEN, 400.0
        self.value = _BYTES_PER_TOKEN

    def add(self, size: int, tokens: int) -> None:
        if tokens > 0:
            self._bytes = self._bytes * _FORGET + size
            self._tokens = self._tokens * _FORGET + tokens
            self.value = min(max(self._bytes / self._tokens, _MIN_RATIO), _MAX_RATIO)


def _fixed(request: ModelRequest) -> int:
    has_tools = request.dialect is Dialect.ANTHROPIC and "tools" in request.fields
    return _MESSAGE_TOKENS + (_TOOL_PROMPT_TOKENS if has_tools else 0)


def measure(request: ModelRequest) -> tuple[int, int]:
    """Bytes of text that the model reads, and tokens of what is no text (images, documents, sound)."""
    fields = request.fields
    if not fields:
        return len(request.body) if request.content_type.startswith(b"application/json") else 0, 0
    text = tokens = 0
    for name in COUNTED[request.surface].texts.intersection(fields):
        size, blobs = _measure_value(bytes(fields[name]))
        text += size
        tokens += blobs
    return text, tokens


def _measure_value(raw: bytes) -> tuple[int, int]:
    if raw.startswith(b"[") and raw.find(b'"') < 0 and raw.find(b"{") < 0:  # `in` costs bytes a caught error
        return 0, raw.count(b",") + 1  # token ids, or lists of them
    images = max([raw.count(mark) for mark in _IMAGE_MARKS]) if raw.find(b"image") >= 0 else 0
    blobs = sum([length for mark in _BASE64_MARKS for length in _runs(raw, mark)]) if raw.find(b"data") >= 0 else 0
    return max(len(raw) - blobs, 0), images * IMAGE_TOKENS if images else blobs // _DOCUMENT_BYTES_PER_TOKEN


def _runs(raw: bytes, mark: bytes) -> Iterable[int]:
    """Lengths of the strings that begin with (or after) a mark; short ones are text, and so is all after very many."""
    at = raw.find(mark)
    for _ in range(_MAX_RUNS):
        if at < 0:
            return
        begin = at + len(mark)
        end = raw.find(b'"', begin)
        if end < 0:
            return
        if end - begin >= _MIN_BLOB and b" " not in raw[begin : begin + _MIN_BLOB]:
            yield end - begin
        at = raw.find(mark, end)
