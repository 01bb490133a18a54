"""What goes upstream: address, headers, body."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway_middleware._version import __version__
from gateway_middleware.core.domain import MODEL_SURFACES, HeaderList, ModelRequest, StoredCall, Surface, Timeouts
from gateway_middleware.core.errors import (
    InvalidRequestError,
    UnknownModelError,
    UpstreamProtocolError,
    UpstreamStatusError,
)
from gateway_middleware.core.model_names import DEFAULT_MODELS
from gateway_middleware.core.provider_api import Auth, Origin, Provider, ProviderConfig, UpstreamRequest, UpstreamTarget
from gateway_middleware.core.secret import Secret
from gateway_middleware.providers import KINDS
from provider_calls import ANTHROPIC, AZURE, KEY, OPENAI, deployment, model_request, provider_of, tried_without

FORM = b"multipart/form-data; boundary=b1"
DATED = "2024-10-21"


def azure(base_url: str = "https://res.openai.azure.com", api_version: str | None = DATED) -> Provider:
    return provider_of("azure_openai", base_url, name="azure", api_version=api_version)


def prepared(
    provider: Provider, surface: Surface, body: bytes, *, model: str = "gpt-x", **others: Any
) -> UpstreamRequest:
    return provider.prepare(model_request(surface, body, **others), deployment(model))


def path(provider: Provider, surface: Surface = Surface.CHAT, model: str = "gpt-x") -> str:
    return prepared(provider, surface, b'{"model":"m"}', model=model).target.path


@pytest.mark.parametrize(
    ("base_url", "authority", "target"),
    [
        ("https://api.openai.com/v1", "api.openai.com", "/v1/chat/completions"),
        ("https://api.openai.com/v1/", "api.openai.com", "/v1/chat/completions"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "/chat/completions"),
        ("http://[::1]:8000/a/b", "[::1]:8000", "/a/b/chat/completions"),
        ("https://host:443/api/v3", "host", "/api/v3/chat/completions"),
        ("https://b\u00fccher.example/v1", "xn--bcher-kva.example", "/v1/chat/completions"),
        ("https://host/a b", "host", "/a%20b/chat/completions"),
    ],
)
def test_openai_addresses(base_url: str, authority: str, target: str) -> None:
    provider = provider_of("openai", base_url)
    upstream = prepared(provider, Surface.CHAT, b'{"model":"m"}')

    assert upstream.target.path == target
    assert upstream.target.origin.authority == authority
    assert upstream.target.head.startswith(f"POST {target} HTTP/1.1\r\nhost: {authority}\r\n".encode())


@pytest.mark.parametrize(
    "base_url", ["https://api.anthropic.com", "https://api.anthropic.com/v1", "https://api.anthropic.com/v1/"]
)
def test_anthropic_addresses(base_url: str) -> None:
    provider = provider_of("anthropic", base_url)

    assert path(provider, Surface.MESSAGES) == "/v1/messages"
    assert path(provider, Surface.COUNT_TOKENS) == "/v1/messages/count_tokens"


@pytest.mark.parametrize("tail", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
@pytest.mark.parametrize(
    ("api_version", "surface", "target"),
    [
        (None, Surface.CHAT, "/openai/v1/chat/completions"),
        ("v1", Surface.RESPONSES, "/openai/v1/responses"),
        ("preview", Surface.EMBEDDINGS, "/openai/v1/embeddings?api-version=preview"),
        ("latest", Surface.CHAT, "/openai/v1/chat/completions?api-version=preview"),
        (DATED, Surface.CHAT, f"/openai/deployments/gpt-x/chat/completions?api-version={DATED}"),
        (DATED, Surface.AUDIO_SPEECH, f"/openai/deployments/gpt-x/audio/speech?api-version={DATED}"),
        ("2025-04-01-preview", Surface.RESPONSES, "/openai/responses?api-version=2025-04-01-preview"),
    ],
)
def test_azure_addresses(tail: str, api_version: str | None, surface: Surface, target: str) -> None:
    assert path(azure(f"https://res.openai.azure.com{tail}", api_version), surface) == target


@pytest.mark.parametrize(
    ("provider", "query", "target"),
    [
        (OPENAI, "", "/v1/responses/resp_1/cancel"),
        (OPENAI, "limit=1", "/v1/responses/resp_1/cancel?limit=1"),
        (AZURE, "limit=1", "/openai/v1/responses/resp_1/cancel?limit=1"),
        (azure(api_version="preview"), "limit=1", "/openai/v1/responses/resp_1/cancel?api-version=preview&limit=1"),
        (azure(api_version=DATED), "", f"/openai/responses/resp_1/cancel?api-version={DATED}"),
    ],
)
def test_addresses_of_what_is_stored(provider: Provider, query: str, target: str) -> None:
    call = StoredCall(method="POST", response_id="resp_1", path="/cancel", query=query)
    request = model_request(Surface.STORED, stored=call, headers=((b"traceparent", b"00-1"),))
    upstream = provider.prepare(request, deployment())

    assert (upstream.target.method, upstream.target.path, upstream.body) == ("POST", target, b"")
    assert upstream.headers == request.headers
    assert b"content-type" not in dict(upstream.target.headers)


def test_the_id_of_what_is_stored_is_one_segment() -> None:
    call = StoredCall(method="GET", response_id="../x?y#z")
    upstream = OPENAI.prepare(model_request(Surface.STORED, stored=call, is_stream=True), deployment())

    assert upstream.target.path == "/v1/responses/..%2Fx%3Fy%23z"
    assert dict(upstream.target.headers)[b"accept"] == b"text/event-stream"


def test_azure_keeps_a_path_before_its_own() -> None:
    assert path(azure("https://apim.example/team/openai", None)) == "/team/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("model", "segment"),
    [
        ("a/b", "a%2Fb"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("x?api-version=1#f", "x%3Fapi-version%3D1%23f"),
        ("a b%2F", "a%20b%252F"),
        ("\u00fc", "%C3%BC"),
        ("...", "..."),
    ],
)
def test_a_model_name_is_one_segment(model: str, segment: str) -> None:
    assert path(azure(), model=model) == f"/openai/deployments/{segment}/chat/completions?api-version={DATED}"


@pytest.mark.parametrize("model", ["", ".", "..", "a\r\nx: y", "a\x00", "\x7f", "a\ud800"])
@pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC, AZURE, azure()])
def test_a_model_name_that_cannot_be_one_is_unknown(model: str, provider: Provider) -> None:
    with pytest.raises(UnknownModelError):
        path(provider, Surface.MESSAGES if provider is ANTHROPIC else Surface.CHAT, model)


@given(st.text(min_size=1, max_size=20))
def test_no_model_name_leaves_its_segment(model: str) -> None:
    assume(model not in {".", ".."} and not any(c < " " or c == "\x7f" for c in model))
    before, found, after = "/openai/deployments/", path(azure(), model=model), f"/chat/completions?api-version={DATED}"
    segment = found[len(before) : -len(after)]

    assert found == before + segment + after
    assert unquote(segment) == model
    assert set(segment) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%")


def headers_of(upstream: UpstreamRequest) -> dict[bytes, bytes]:
    found = dict([*upstream.target.headers, *upstream.headers])
    assert len(found) == len(upstream.target.headers) + len(upstream.headers)
    return found


SAME = {b"accept-encoding": b"identity", b"user-agent": f"model-gateway/{__version__}".encode()}


def test_openai_headers_are_these_and_no_others() -> None:
    provider = provider_of("openai", "https://h/v1", organization="org-1", project="proj_1")
    upstream = prepared(provider, Surface.CHAT, b'{"model":"m"}', headers=((b"openai-beta", b"x=v1"),))

    assert headers_of(upstream) == {
        **SAME,
        b"content-type": b"application/json",
        b"accept": b"application/json",
        b"authorization": b"Bearer " + KEY.encode(),
        b"openai-organization": b"org-1",
        b"openai-project": b"proj_1",
        b"openai-beta": b"x=v1",
    }


def test_azure_headers_are_these_and_no_others() -> None:
    upstream = prepared(AZURE, Surface.CHAT, b'{"model":"m"}', is_stream=True)

    assert headers_of(upstream) == {
        **SAME,
        b"content-type": b"application/json",
        b"accept": b"text/event-stream",
        b"api-key": KEY.encode(),
    }


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ((), {b"anthropic-version": b"2023-06-01"}),
        (((b"anthropic-version", b"2099-01-01"),), {b"anthropic-version": b"2099-01-01"}),
        (((b"anthropic-beta", b"a,b"),), {b"anthropic-version": b"2023-06-01", b"anthropic-beta": b"a,b"}),
    ],
)
def test_anthropic_headers_are_these_and_no_others(
    sent: tuple[tuple[bytes, bytes], ...], expected: dict[bytes, bytes]
) -> None:
    upstream = prepared(ANTHROPIC, Surface.MESSAGES, b'{"model":"m"}', headers=sent)

    assert headers_of(upstream) == {
        **SAME,
        b"content-type": b"application/json",
        b"accept": b"application/json",
        b"x-api-key": KEY.encode(),
        **expected,
    }


def test_speech_accepts_anything() -> None:
    assert headers_of(prepared(OPENAI, Surface.AUDIO_SPEECH, b'{"model":"m"}'))[b"accept"] == b"*/*"


def test_the_constant_head_holds_the_constant_headers() -> None:
    target = prepared(OPENAI, Surface.CHAT, b'{"model":"m"}').target
    assert target.head.split(b"\r\n")[2:-1] == [name + b": " + value for name, value in target.headers]


@pytest.mark.parametrize(
    ("body", "model", "sent"),
    [
        (b'{ "model" : "gpt-x" , "x": 1.0}', "gpt-x", b'{ "model" : "gpt-x" , "x": 1.0}'),
        (b'{"a":1,"model":"fast","z":[1.50, "\\u00e9"]}', "gpt-x", b'{"a":1,"model":"gpt-x","z":[1.50, "\\u00e9"]}'),
        (b'{"model":"fast","unknown":{"k":  [1e2]}}', 'q"x', b'{"model":"q\\"x","unknown":{"k":  [1e2]}}'),
        (b'{"messages":[]}', "gpt-x", b'{"messages":[],"model":"gpt-x"}'),
    ],
)
def test_only_the_model_is_replaced(body: bytes, model: str, sent: bytes) -> None:
    for provider, surface in ((OPENAI, Surface.CHAT), (AZURE, Surface.CHAT), (ANTHROPIC, Surface.MESSAGES)):
        assert prepared(provider, surface, body, model=model).body == sent


def test_a_body_without_members_is_left_to_the_provider() -> None:
    assert prepared(OPENAI, Surface.CHAT, b"{ }").body == b"{ }"


def test_a_dated_azure_body_needs_no_model_but_keeps_the_upstreams() -> None:
    assert prepared(azure(), Surface.CHAT, b'{"x": 1}').body == b'{"x": 1}'
    assert prepared(azure(), Surface.CHAT, b'{"model":"fast"}').body == b'{"model":"gpt-x"}'
    assert prepared(azure(), Surface.RESPONSES, b'{"x": 1}').body == b'{"x":1,"model":"gpt-x"}'


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"gpt-x"}', {"model": "gpt-x", "stream_options": {"include_usage": True}}),
        (b'{"model":"fast","stream_options":null}', {"model": "gpt-x", "stream_options": {"include_usage": True}}),
        (
            b'{"model":"gpt-x","stream_options":{"include_obfuscation":false,"include_usage":false}}',
            {"model": "gpt-x", "stream_options": {"include_obfuscation": False, "include_usage": True}},
        ),
        (b'{"model":"gpt-x","stream_options":"odd"}', {"model": "gpt-x", "stream_options": "odd"}),
    ],
)
def test_stream_usage_is_asked_for(body: bytes, sent: dict[str, Any]) -> None:
    for provider in (OPENAI, AZURE, azure()):
        for surface in (Surface.CHAT, Surface.COMPLETIONS):
            assert json.loads(prepared(provider, surface, body, is_stream=True).body) == sent


@pytest.mark.parametrize(
    ("provider", "surface", "body", "others"),
    [
        (OPENAI, Surface.CHAT, b'{"model": "gpt-x"}', {}),
        (OPENAI, Surface.CHAT, b'{"model": "gpt-x"}', {"is_stream": True, "wants_stream_usage": True}),
        (OPENAI, Surface.RESPONSES, b'{"model": "gpt-x"}', {"is_stream": True}),
        (ANTHROPIC, Surface.MESSAGES, b'{"model": "gpt-x"}', {"is_stream": True}),
        (azure(api_version="2024-06-01"), Surface.CHAT, b'{"model": "gpt-x"}', {"is_stream": True}),
        (azure(), Surface.CHAT, b'{"model": "gpt-x", "data_sources": []}', {"is_stream": True}),
    ],
)
def test_stream_usage_is_not_asked_for(
    provider: Provider, surface: Surface, body: bytes, others: dict[str, Any]
) -> None:
    assert prepared(provider, surface, body, **others).body == body


def test_a_form_goes_upstream_with_its_boundary_and_the_model() -> None:
    form = b'--b1\r\nContent-Disposition: form-data; name="model"\r\n\r\n%s\r\n--b1--\r\n'
    upstream = prepared(OPENAI, Surface.AUDIO_TRANSCRIPTIONS, form % b"fast", content_type=FORM)

    assert upstream.body == form % b"gpt-x"
    assert headers_of(upstream)[b"content-type"] == FORM


def test_a_form_that_names_no_model_gets_one_unless_the_path_does() -> None:
    form = b'--b1\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b1--\r\n'
    part = b'--b1\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-x\r\n'

    assert prepared(AZURE, Surface.AUDIO_TRANSCRIPTIONS, form, content_type=FORM).body == part + form
    assert prepared(azure(), Surface.AUDIO_TRANSCRIPTIONS, form, content_type=FORM).body == form
    with pytest.raises(InvalidRequestError):
        prepared(AZURE, Surface.IMAGES_EDITS, b"no form", content_type=FORM)


def test_targets_are_made_once_and_the_cache_is_bounded() -> None:
    provider = provider_of("openai", "https://h/v1")
    first = prepared(provider, Surface.CHAT, b'{"model":"m"}').target

    assert prepared(provider, Surface.CHAT, b'{"model":"m"}').target is first
    assert prepared(provider, Surface.CHAT, b'{"model":"m"}', is_stream=True).target is not first
    for number in range(3000):
        prepared(provider, Surface.CHAT, b'{"model":"m"}', model=f"m{number}")
    targets = provider._targets._targets  # type: ignore[attr-defined]  # noqa: SLF001  # memory in use shows nowhere else
    assert len(targets) <= 1024
    assert prepared(provider, Surface.CHAT, b'{"model":"m"}').target == first


@pytest.mark.parametrize(
    ("provider", "surfaces"),
    [
        (OPENAI, set(MODEL_SURFACES) - {Surface.MESSAGES, Surface.COUNT_TOKENS}),
        (ANTHROPIC, {Surface.MESSAGES, Surface.COUNT_TOKENS}),
        (AZURE, set(MODEL_SURFACES) - {Surface.MESSAGES, Surface.COUNT_TOKENS, Surface.MODERATIONS}),
    ],
)
def test_surfaces(provider: Provider, surfaces: set[Surface]) -> None:
    assert {s for s in Surface if provider.supports(s)} == surfaces


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("reads_on", [True, False])
def test_every_kind_keeps_its_configuration(kind: str, reads_on: bool) -> None:
    timeouts = Timeouts(connect=1.0)
    made = provider_of(kind, "https://h", name="n", timeouts=timeouts, reads_on_disconnect=reads_on)

    assert (made.kind, made.name, made.timeouts, made.secrets) == (kind, "n", timeouts, (KEY,))
    assert made.reads_on_disconnect is reads_on


def test_a_configuration_does_not_print_its_credential() -> None:
    config = ProviderConfig(name="n", kind="openai", base_url="https://h", api_key=Secret(KEY))

    assert KEY not in repr(config)


@pytest.mark.parametrize(
    ("headers", "is_stream"),
    [
        ([(b"content-type", b"text/event-stream")], True),
        ([(b"date", b"x"), (b"content-type", b"text/event-stream; charset=utf-8")], True),
        ([(b"content-type", b"application/json")], False),
        ([(b"x-content-type", b"text/event-stream")], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC, AZURE])
def test_event_streams_are_known_by_their_media_type(provider: Provider, headers: HeaderList, is_stream: bool) -> None:
    assert provider.is_stream(headers) is is_stream


def test_the_version_is_passed_on() -> None:
    dated = azure("https://h")
    older = provider_of("anthropic", "https://h", api_version="2023-01-01")

    assert path(dated).startswith("/openai/deployments/gpt-x/")
    assert (b"anthropic-version", b"2023-01-01") in prepared(older, Surface.MESSAGES, b'{"model":"m"}').headers


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "sk-secret\nx: y"},
        {"api_key": " sk-secret"},
        {"api_key": "sk-secret\u00fc"},
        {"api_key": ""},
        {"base_url": "ftp://sk-secret/"},
        {"base_url": "https://"},
        {"base_url": "https://user:sk-secret@h/"},
        {"base_url": "https://h/?key=sk-secret"},
        {"base_url": "https://h/#sk-secret"},
        {"base_url": "https://h:99999/"},
    ],
)
@pytest.mark.parametrize("kind", list(KINDS))
def test_what_cannot_be_sent_is_refused_without_repeating_it(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|port|Port") as refused:
        provider_of(kind, **{"base_url": "https://h", **options})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("version", ["", "2024", "2024-10-21&x=1", "v2", "2024-10-21\r\n"])
def test_an_odd_azure_version_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="an Azure API version must be"):
        azure(api_version=version)


def test_a_header_that_would_split_a_request_is_refused() -> None:
    origin = Origin(host="h", port=443, is_tls=True)
    with pytest.raises(ValueError, match="control character"):
        UpstreamTarget.build(origin, "/v1", ((b"x-key", b"a\r\nx-other: b"),))


@pytest.mark.parametrize("body", [b'{"input":"x"}', b'{"input":"x","model":null}'])
def test_a_model_that_is_left_to_the_provider_stays_so(body: bytes) -> None:
    default = DEFAULT_MODELS[Surface.MODERATIONS]

    assert prepared(OPENAI, Surface.MODERATIONS, body, model=default).body == body
    assert json.loads(prepared(OPENAI, Surface.MODERATIONS, body, model="mine").body)["model"] == "mine"
    assert json.loads(prepared(OPENAI, Surface.CHAT, body, model=default).body)["model"] == default


def test_a_form_that_leaves_the_model_to_the_provider_stays_so() -> None:
    form = b'--b1\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na cat\r\n--b1--\r\n'

    for model, is_named in ((DEFAULT_MODELS[Surface.IMAGES_EDITS], False), ("gpt-image-1", True)):
        upstream = prepared(OPENAI, Surface.IMAGES_EDITS, form, model=model, content_type=FORM)
        assert (b'name="model"' in upstream.body) is is_named


def refused(status: int, body: bytes) -> UpstreamStatusError:
    return UpstreamStatusError("no", upstream_status=status, upstream_headers=[], body=body)


@pytest.mark.parametrize("kind", ["openai", "azure_openai"])
def test_a_refusal_of_stream_options_is_learnt_for_the_deployment(kind: str) -> None:
    provider, streamed = provider_of(kind, "https://h"), model_request(is_stream=True)
    refusal = refused(400, b"[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options')}]")
    assert b"stream_options" in provider.prepare(streamed, deployment("a")).body

    assert tried_without(provider, streamed, deployment("a"), refusal)
    assert b"stream_options" not in provider.prepare(streamed, deployment("a")).body
    assert b"stream_options" in provider.prepare(streamed, deployment("b")).body


@pytest.mark.parametrize(
    ("request_of", "error"),
    [
        (model_request(is_stream=True), refused(400, b"model is missing")),
        (model_request(is_stream=True), refused(500, b"stream_options")),
        (model_request(is_stream=True, wants_stream_usage=True), refused(400, b"stream_options")),
        (model_request(), refused(400, b"stream_options")),
        (model_request(Surface.RESPONSES, is_stream=True), refused(400, b"stream_options")),
    ],
)
def test_what_the_gateway_did_not_add_is_nothing_to_learn_from(
    request_of: ModelRequest, error: UpstreamStatusError
) -> None:
    assert not tried_without(provider_of("openai", "https://h"), request_of, deployment(), error)
    assert not tried_without(ANTHROPIC, request_of, deployment(), error)


@pytest.mark.parametrize("kind", ["openai", "azure_openai"])
def test_stream_options_can_be_switched_off(kind: str) -> None:
    provider = provider_of(kind, "https://h", stream_options=False)
    assert b"stream_options" not in provider.prepare(model_request(is_stream=True), deployment()).body


@pytest.mark.parametrize(
    ("provider", "surface"),
    [("openai", Surface.CHAT), ("openai", Surface.RESPONSES), ("openai", Surface.IMAGES_GENERATIONS),
     ("azure_openai", Surface.CHAT), ("anthropic", Surface.MESSAGES)],
)  # fmt: skip
def test_an_event_may_have_as_many_bytes_as_are_configured(provider: str, surface: Surface) -> None:
    made = provider_of(provider, "https://h", max_event_bytes=100)
    request = model_request(surface, is_stream=True)
    made.reader(request, is_event_stream=True).feed(b"data: " + b"x" * 90)

    with pytest.raises(UpstreamProtocolError, match="more than 100 bytes"):
        made.reader(request, is_event_stream=True).feed(b"data: " + b"x" * 100)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        (Auth.BEARER, [(b"authorization", b"Bearer " + KEY.encode())]),
        (Auth.X_API_KEY, [(b"x-api-key", KEY.encode())]),
        (Auth.API_KEY, [(b"api-key", KEY.encode())]),
        (Auth.NONE, []),
    ],
)
def test_any_kind_sends_its_credential_in_any_form(kind: str, auth: Auth, sent: HeaderList) -> None:
    provider = provider_of(kind, "https://host", auth=auth)
    surface = Surface.CHAT if provider.supports(Surface.CHAT) else Surface.MESSAGES

    headers = prepared(provider, surface, b'{"model":"m"}').target.headers

    assert [header for header in headers if header[0] in {b"authorization", b"x-api-key", b"api-key"}] == sent


def test_fixed_headers_go_with_every_call_and_hide_what_was_a_secret() -> None:
    fixed = (("x-title", Secret("Our app")), ("cf-access-token", Secret("hush-hush", source="env:CF")))
    provider = provider_of("anthropic", "https://host", headers=fixed)

    target = prepared(provider, Surface.MESSAGES, b'{"model":"m"}').target

    assert (b"x-title", b"Our app") in target.headers
    assert b"cf-access-token: hush-hush\r\n" in target.head
    assert "hush-hush" in provider.secrets
    assert "Our app" not in provider.secrets
