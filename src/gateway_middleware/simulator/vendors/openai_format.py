"""The vendors that speak OpenAI's format. Where each fact is from stands in docs/recipes.md."""

from __future__ import annotations

from gateway_middleware.simulator.refusals import Refusal
from gateway_middleware.simulator.vendors.vendor import Document, Vendor

_BEARER = (b"authorization",)
_CHAT = "chat/completions"
_SIGNATURE = "c2lnbmVkIGJ5IGdlbWluaQ=="
_THOUGHT = "The user greets me."


def _first(document: Document) -> Document:
    """The message or delta of the first choice; an object of no effect where there is none."""
    choices = document.get("choices") or [{}]
    found: Document = choices[0].get("message") or choices[0].get("delta") or {}
    return found


def _without(document: Document, *names: str) -> Document:
    return {name: value for name, value in document.items() if name not in names}


def _asks_for(body: Document, kind: str) -> bool:
    form = body.get("response_format")
    return isinstance(form, dict) and form.get("type") == kind


def _has_free_form(body: Document) -> bool:
    """Whether a tool is none of the functions that everybody has."""
    return any(tool.get("type") != "function" for tool in body.get("tools", ()))


def _vllm(document: Document) -> Document:
    for choice in document.get("choices", ()):
        choice["stop_reason"] = None
    return _without(document, "system_fingerprint") | {"kv_transfer_params": None}


def _vllm_error(document: Document, status: int) -> Document:
    kinds = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError"}
    message = document["error"]["message"]
    kind = kinds.get(status, "InternalServerError")
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


VLLM = Vendor(
    name="vllm",
    base="/v1",
    kinds=frozenset({_CHAT, "completions", "embeddings", "responses"}),
    credentials=_BEARER,
    whole=_vllm,
    chunk=_vllm,
    error=_vllm_error,
    omits=("x-ratelimit-", "openai-"),
)


def _ollama(document: Document) -> Document:
    usage = document.get("usage")
    if isinstance(usage, dict):
        document["usage"] = _without(usage, "prompt_tokens_details", "completion_tokens_details")
    if _first(document).get("content"):
        _first(document)["reasoning"] = _THOUGHT
    return document | {"system_fingerprint": "fp_ollama"}


def _ollama_error(document: Document, status: int) -> Document:
    kinds = {400: "invalid_request_error", 404: "not_found_error"}
    return {"error": document["error"] | {"type": kinds.get(status, "api_error"), "param": None, "code": None}}


OLLAMA = Vendor(
    name="ollama",
    base="/v1",
    kinds=frozenset({_CHAT, "completions", "embeddings", "responses"}),
    credentials=(),
    whole=_ollama,
    chunk=_ollama,
    error=_ollama_error,
    joins_calls=True,
    omits=("x-ratelimit-", "openai-", "x-request-id"),
)


def _groq_refuses(body: Document) -> Refusal | None:
    names: list[str] = [name for name in ("logprobs", "logit_bias", "top_logprobs") if name in body]
    names += ["messages[].name"] if any("name" in turn for turn in body.get("messages", ())) else []
    names += ["n"] if body.get("n") not in (None, 1) else []
    return Refusal(status=400, message=f"property '{names[0]}' is unsupported", param=names[0]) if names else None


def _groq(document: Document) -> Document:
    usage = None if document.get("choices") else document.get("usage")
    return document | {"x_groq": {"id": "req_simulated"} | ({"usage": usage} if usage else {})}


GROQ = Vendor(
    name="groq",
    base="/openai/v1",
    kinds=frozenset({_CHAT, "responses", "audio/transcriptions", "audio/translations"}),
    credentials=_BEARER,
    refuses=_groq_refuses,
    whole=_groq,
    chunk=_groq,
    omits=("openai-",),
)

_MISTRAL_FIELDS = frozenset({
    "model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "response_format",
    "tools", "tool_choice", "parallel_tool_calls", "presence_penalty", "frequency_penalty", "n", "prediction",
    "prompt_mode", "safe_prompt", "metadata", "min_tokens", "repetition_penalty", "top_k", "logprobs", "top_logprobs",
    "prompt_logprobs", "top_prompt_logprobs", "reasoning_effort", "guardrails",
})  # fmt: skip


def _mistral_refuses(body: Document) -> Refusal | None:
    if _has_free_form(body):
        return Refusal(status=422, message="Input should be 'function'", param="tools")
    foreign = sorted(body.keys() - _MISTRAL_FIELDS)
    return Refusal(status=422, message="Extra inputs are not permitted", param=foreign[0]) if foreign else None


def _mistral_error(document: Document, status: int) -> Document:
    error = document["error"]
    if status == 422:
        fault = {"type": "extra_forbidden", "loc": ["body", error.get("param")], "msg": error["message"]}
        return {"object": "error", "message": {"detail": [fault]}, "type": "invalid_request_error", "code": None}
    return {"object": "error", "message": error["message"], "type": error.get("type"), "param": None, "code": "1000"}


MISTRAL = Vendor(
    name="mistral",
    base="/v1",
    kinds=frozenset({_CHAT, "embeddings"}),
    credentials=_BEARER,
    refuses=_mistral_refuses,
    error=_mistral_error,
    has_usage_unasked=True,
    joins_usage=True,
    omits=("openai-",),
)


def _deepseek_refuses(body: Document) -> Refusal | None:
    if _asks_for(body, "json_schema"):
        return Refusal(status=400, message="This response_format type is unavailable now")
    return None


def _deepseek(document: Document) -> Document:
    message = _first(document)
    if message.get("content"):
        message["reasoning_content"] = _THOUGHT
    usage = document.get("usage")
    if isinstance(usage, dict):
        hit = usage["prompt_tokens_details"]["cached_tokens"]
        counts = {"prompt_cache_hit_tokens": hit, "prompt_cache_miss_tokens": usage["prompt_tokens"] - hit}
        document["usage"] = _without(usage, "prompt_tokens_details") | counts
    return document


DEEPSEEK = Vendor(
    name="deepseek",
    base="",
    kinds=frozenset({_CHAT}),
    credentials=_BEARER,
    refuses=_deepseek_refuses,
    whole=_deepseek,
    chunk=_deepseek,
    before_whole=b"\n\n\n",
    before_stream=b": keep-alive\n\n: keep-alive\n\n",
    omits=("x-ratelimit-", "openai-"),
)


def _openrouter(document: Document) -> Document:
    for choice in document.get("choices", ()):
        choice["native_finish_reason"] = choice.get("finish_reason")
    if isinstance(document.get("usage"), dict):
        document["usage"]["cost"] = 0.00014
    return document | {"id": f"gen-{document['id']}", "provider": "Simulated"}


def _openrouter_error(document: Document, status: int) -> Document:
    return {"error": {"code": status, "message": document["error"]["message"], "metadata": {"provider_name": "Any"}}}


OPENROUTER = Vendor(
    name="openrouter",
    base="/api/v1",
    kinds=frozenset({_CHAT, "completions", "responses", "embeddings"}),
    credentials=_BEARER,
    whole=_openrouter,
    chunk=_openrouter,
    error=_openrouter_error,
    before_stream=b": OPENROUTER PROCESSING\n\n",
    has_usage_unasked=True,
    omits=("x-ratelimit-", "openai-"),
)


def _gemini_refuses(body: Document) -> Refusal | None:
    foreign = [name for name in ("frequency_penalty", "logit_bias", "top_k") if name in body]
    if foreign:
        message = f'Invalid JSON payload received. Unknown name "{foreign[0]}": Cannot find field.'
        return Refusal(status=400, message=message)
    if _has_free_form(body):
        return Refusal(status=400, message='Invalid JSON payload received. Unknown name "custom": Cannot find field.')
    if any(_lacks_signature(turn) for turn in body.get("messages", ())):
        return Refusal(status=400, message="Function call in the content block is missing a `thought_signature`.")
    return None


def _lacks_signature(turn: Document) -> bool:
    """Gemini 3 wants one on the first call of each step."""
    calls = turn.get("tool_calls")
    google = (calls[0].get("extra_content") or {}).get("google", {}) if calls else {"thought_signature": _SIGNATURE}
    return google.get("thought_signature") not in {_SIGNATURE, "skip_thought_signature_validator"}


def _gemini(document: Document) -> Document:
    for at, call in enumerate(_first(document).get("tool_calls", ())):
        index = call.pop("index", at)
        if index == 0:  # of parallel calls only the first one is signed
            call["extra_content"] = {"google": {"thought_signature": _SIGNATURE}}
    return _without(document, "service_tier", "system_fingerprint")


def _gemini_chunk(document: Document) -> Document:
    for choice in document.get("choices", ()):
        if choice.get("finish_reason") == "tool_calls":
            choice["finish_reason"] = "stop"
    return _gemini(document)


def _gemini_error(document: Document, status: int) -> list[Document]:
    states = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
    message = document["error"]["message"]
    return [{"error": {"code": status, "message": message, "status": states.get(status, "INTERNAL")}}]


GEMINI = Vendor(
    name="gemini",
    base="/v1beta/openai",
    kinds=frozenset({_CHAT, "embeddings"}),
    credentials=_BEARER,
    refuses=_gemini_refuses,
    whole=_gemini,
    chunk=_gemini_chunk,
    error=_gemini_error,
    joins_calls=True,
    omits=("x-ratelimit-", "openai-", "x-request-id"),
)
