"""The frozen values that travel from layer to layer: tenant, surface, deployment, route, request, usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from gateway_middleware.core.client_credential import ClientCredential
from gateway_middleware.core.plan import CallPlan

HeaderList: TypeAlias = "list[tuple[bytes, bytes]]"
"""Raw header pairs, names in lower case."""

Clock: TypeAlias = "Callable[[], float]"
"""Seconds, monotonic unless said otherwise."""


class Dialect(StrEnum):
    """The shape of errors, headers and event streams that a client expects."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    AZURE = "azure"


_STORED = "responses/{id}"
_FREE = frozenset({"messages/count_tokens", "responses/input_tokens", "moderations", _STORED})
_TEXT = frozenset({"chat/completions", "responses", "responses/compact", "completions", "messages"})


_LABELS = {"chat/completions": "chat", _STORED: "stored_responses"}


class Surface(StrEnum):
    """A client-facing API. The value is its path below the version prefix."""

    CHAT = "chat/completions"
    RESPONSES = "responses"
    INPUT_TOKENS = "responses/input_tokens"
    COMPACT = "responses/compact"
    STORED = _STORED
    """What a provider has stored of a response: to be read, cancelled and deleted."""
    EMBEDDINGS = "embeddings"
    COMPLETIONS = "completions"
    MESSAGES = "messages"
    COUNT_TOKENS = "messages/count_tokens"
    MODERATIONS = "moderations"
    IMAGES_GENERATIONS = "images/generations"
    IMAGES_EDITS = "images/edits"
    IMAGES_VARIATIONS = "images/variations"
    AUDIO_SPEECH = "audio/speech"
    AUDIO_TRANSCRIPTIONS = "audio/transcriptions"
    AUDIO_TRANSLATIONS = "audio/translations"

    label: str
    """A short name for logs and metrics: `chat`, `messages`, `images_edits`."""
    uses_tokens: bool
    """Whether a call can cost tokens. Counting tokens and moderation are free at every provider."""
    writes_text: bool
    """Whether the answer is text of a model, whose tokens are output."""
    asks_model: bool
    """Whether a model is asked. What is stored at a provider is looked up without one."""

    def __init__(self, path: str) -> None:
        self.label = _LABELS.get(path) or path.replace("/", "_")
        self.asks_model = path != _STORED
        self.uses_tokens = path not in _FREE
        self.writes_text = path in _TEXT


MODEL_SURFACES = tuple(surface for surface in Surface if surface.asks_model)
"""Those that a client calls with the name of a model."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of one attempt, in seconds.

    `first_byte`: from the request sent to the head of a stream, and the longest silence until its first content;
    `first_content`: from the request sent to that content, for a stream that says by pings or comments that it is
    alive; `answer`: from the request sent to the head of an answer that is not streamed, which a provider begins only
    when all of it is ready; `idle`: the longest silence in a stream; `content_idle`: how long a stream may bring pings
    and comments only, once it has had content; `total`: the whole attempt; `write_stall`: how
    long a client may leave its answer unread; `heartbeat`: the silence in a stream after which the gateway sends a ping
    of its own.
    """

    connect: float = 5.0
    first_byte: float = 60.0
    first_content: float = 600.0
    answer: float = 600.0
    idle: float = 60.0
    content_idle: float = 300.0
    total: float = 1800.0
    write_stall: float = 60.0
    heartbeat: float = 15.0


Requirements: TypeAlias = "tuple[tuple[str, tuple[str, ...]], ...]"
"""Labels that a provider must have, each with the values that will do."""


class LimitOverrides(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in place of a tenant's own, in the notation of the configuration; None: its own."""

    requests: str | None = None
    tokens: str | None = None
    concurrency: int | None = None
    spend: str | None = None


class PolicyTerms(msgspec.Struct, frozen=True, kw_only=True):
    """On what terms a policy allows the calls of a tenant.

    `generation` is the same for the same terms and another one for others: what is worked out from them may be kept by
    it. `models` are shell patterns, which narrow those of the tenant. `labels` are for log and usage events.
    """

    generation: str
    limits: LimitOverrides = LimitOverrides()
    models: tuple[str, ...] = ("*",)
    labels: tuple[tuple[str, str], ...] = ()


class Tenant(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Who pays. `models` are shell patterns over the names a client may ask for.

    `key_models` narrow that for the key of the call.
    `require`: labels of the only providers that its calls may reach.
    `terms` are those of the policy-adapter, where there is one and it has set any.
    """

    name: str
    key_id: str | None = None
    models: tuple[str, ...] = ("*",)
    key_models: tuple[str, ...] = ("*",)
    require: Requirements = ()
    terms: PolicyTerms | None = None


class Attribution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client says that a call belongs to. `traceparent` is that of W3C Trace Context."""

    tags: tuple[tuple[str, str], ...] = ()
    session: str | None = None
    end_user: str | None = None
    traceparent: str | None = None


class Payer(StrEnum):
    """Whose credential a provider is asked with, and so who gets its bill."""

    GATEWAY = "gateway"
    TENANT = "tenant"
    CLIENT = "client"
    """The caller's own, which came with the call."""


def account_of(provider: str, tenant: str) -> str:
    """The name of a tenant's own account at a provider. No provider has an `@` in its name."""
    return f"{provider}@{tenant}"


def key_account_of(provider: str, key: str) -> str:
    """The name of one of a provider's several keys. No provider has a `#` in its name."""
    return f"{provider}#{key}"


def provider_of(account: str) -> str:
    """The provider of an account, by its name."""
    return account.partition("@")[0].partition("#")[0]


def client_account_of(provider: str) -> str:
    """The name of all accounts at a provider whose credentials come with the calls. No tenant has such a name."""
    return f"{provider}@(client)"


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One callable upstream: a provider and the provider's own name of a model."""

    provider: str
    model: str
    priority: int = 0
    weight: int = 1
    timeouts: Timeouts | None = None
    speak: Surface | None = None
    """The surface of the provider that translated calls go to; None: as the model has it."""
    max_output: int | None = None
    """The longest output of the model, in tokens, where the operator says it; None: as is known of the model's name."""
    key: str = ""
    """`provider/model`, as written in `GATEWAY_ROUTES`: made from the two, never given."""
    account: str = ""
    """Whose credential calls carry: the provider's own, by its name; `provider@tenant`, where the tenant has one."""
    payer: Payer = Payer.GATEWAY
    """Whose account that is."""
    key_name: str | None = None
    """Which of the provider's several keys; None: it has one."""
    credential: str = ""
    """A name for the credential itself: the account, unless each call of the account may bring another one."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "key", f"{self.provider}/{self.model}")
        if not self.account:
            msgspec.structs.force_setattr(self, "account", self.provider)
        if not self.credential:
            msgspec.structs.force_setattr(self, "credential", self.account)

    @property
    def place(self) -> str:
        """Where its answers are stored: `provider/model`, or `provider#key/model` by one of the provider's keys."""
        return self.key if self.key_name is None else f"{key_account_of(self.provider, self.key_name)}/{self.model}"


def parts_of_place(place: str) -> tuple[str, str | None, str]:
    """The provider, the name of one of its several keys, and the model of a place where something is stored."""
    account, _, model = place.partition("/")
    provider, _, key = account.partition("#")
    return provider, key or None, model


class Translate(StrEnum):
    """What is done for a client whose dialect a deployment does not speak.

    ALLOW: the call is translated, what is lost is listed in `x-gateway-dropped`. STRICT: a call that would lose
    anything is refused. OFF: only deployments that speak the client's dialect are asked.
    """

    ALLOW = "allow"
    STRICT = "strict"
    OFF = "off"


class Balance(StrEnum):
    """In which order the deployments of equal priority are asked.

    ORDER: as written. WEIGHT: by chance, in proportion to their weights. LATENCY: the quickest to its first content.
    AFFINITY: the same one for the same tenant and beginning of the prompt (or session, ...: `Affinity`), so that the
    provider's cache stays warm.
    """

    ORDER = "order"
    WEIGHT = "weight"
    LATENCY = "latency"
    AFFINITY = "affinity"


class Affinity(msgspec.Struct, frozen=True, kw_only=True):
    """What makes calls want the same deployment, beside their tenant.

    `by`: `prompt` (its beginning, or `prompt_cache_key`), `session` (of a coding agent, or `x-gateway-session`),
    `conversation` (OpenAI's), `header` (the one that `header` names, in lower case), or `tenant` alone. A call that has
    not what is asked for goes by its prompt.
    """

    by: str = "prompt"
    header: str = ""


class Retirement(msgspec.Struct, frozen=True, kw_only=True):
    """That a route is to end: times in seconds since the epoch, and the name to call in its place.

    `headers` (made of the rest) tell it to clients: `Deprecation` (RFC 9745), `Sunset` (RFC 8594),
    `x-gateway-successor`.
    """

    sunset: float | None = None
    """When it ends, as far as that is known."""
    deprecated: float | None = None
    """Since when, or from when on, it should not be used any more; None: from its end on."""
    successor: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __post_init__(self) -> None:
        headers = []
        since = self.sunset if self.deprecated is None else self.deprecated
        if since is not None:
            headers.append((b"deprecation", b"@%d" % since))
        if self.sunset is not None:
            from email.utils import formatdate  # 37 ms, for whoever has such a route

            headers.append((b"sunset", formatdate(self.sunset, usegmt=True).encode()))
        if self.successor is not None:
            headers.append((b"x-gateway-successor", self.successor.encode()))
        msgspec.structs.force_setattr(self, "headers", tuple(headers))


class BudgetStep(msgspec.Struct, frozen=True, kw_only=True):
    """The cheaper route that a call goes on with when `percent` of a limit on spend are used."""

    route: Route
    percent: int = 100


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A model name and the deployments behind it, best first: the lowest priority, then as `balance` says.

    `max_attempts` None: the gateway's own. `on_context_window` and `on_content_policy` are asked instead of the rest
    when a provider refuses the prompt as too long, or for what it says. `hedge_after`: seconds without content after
    which the next deployment is asked as well; 0: after the p95 of this route; None: never. `translate` None: the
    gateway's own. `is_configured`: it is
    written in `GATEWAY_ROUTES`. `retirement` None: it stays. `affinity` is for routes that balance by it.
    `takes_client_credential`: one of its providers is asked with a credential that comes with the call.
    """

    name: str
    deployments: tuple[Deployment, ...]
    balance: Balance = Balance.ORDER
    affinity: Affinity = Affinity()
    max_attempts: int | None = None
    on_context_window: tuple[Deployment, ...] = ()
    on_content_policy: tuple[Deployment, ...] = ()
    hedge_after: float | None = None
    translate: Translate | None = None
    is_configured: bool = True
    retirement: Retirement | None = None
    on_budget: BudgetStep | None = None
    """Where this tenant's calls step down to, if anywhere."""
    takes_client_credential: bool = False

    @property
    def everything(self) -> tuple[Deployment, ...]:
        """All deployments that a call may come to."""
        return self.deployments + self.on_context_window + self.on_content_policy

    @property
    def is_single(self) -> bool:
        """Whether a call comes to one deployment whatever happens."""
        return len(self.deployments) == 1 and not (self.on_context_window or self.on_content_policy)

    @property
    def has_alternatives(self) -> bool:
        """Whether a failure may find another deployment."""
        return len(self.deployments) > 1 or bool(self.on_context_window or self.on_content_policy)


class StoredCall(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with a stored response. `path` follows its id (`/cancel`); `query` is ready to be sent."""

    method: str
    response_id: str
    path: str = ""
    query: str = ""


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A client's request after intake: its top level decoded, every value below still raw bytes.

    `fields` keeps the order of the client; it is empty for a multipart body. `output_cap` is the largest output cap
    that was asked for, in tokens, and `choices` how many outputs are asked for in all. `model` is the name as the
    client asked for it.
    """

    surface: Surface
    dialect: Dialect
    model: str
    route: Route
    body: bytes
    fields: Mapping[str, msgspec.Raw]
    content_type: bytes = b"application/json"
    is_stream: bool = False
    wants_stream_usage: bool = False
    output_cap: int | None = None
    choices: int = 1
    is_strict: bool = False
    """A field that would be lost in translation is an error."""
    shows_cost: bool = False
    """The client wants its stream to say what it has cost, and so how much it has used."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Client headers that may go upstream: `anthropic-version`, `anthropic-beta`, `openai-beta`, `traceparent`."""
    client_credential: ClientCredential | None = None
    """The caller's own at a provider, for deployments whose payer is the client and for no others."""
    tenant: str = ""
    """The name of the tenant who asks."""
    omits: frozenset[str] = frozenset()
    """What this request goes without because its provider has just refused it: names of `Omissions`."""
    plan: CallPlan = msgspec.field(default_factory=CallPlan)
    """What this call has in common with others of its kind. A request of another route or surface has another plan."""
    stored: StoredCall | None = None
    """Set where no model is asked. `model` is then that of the deployment which holds the response."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a call used, in tokens. None means not reported, which is not 0.

    `input_tokens` includes cached and cache-write tokens, `output_tokens` includes reasoning: the inclusive convention
    of OpenTelemetry GenAI, whatever the provider's own convention is.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """Those of the cache-write tokens that are kept for an hour; the others are kept for minutes."""
    reasoning_tokens: int | None = None


class Outcome(StrEnum):
    """How an attempt, or a call, ended."""

    SUCCESS = "success"
    REFUSED = "refused"
    CLIENT_ERROR = "client_error"
    CLIENT_DISCONNECT = "client_disconnect"
    SHUTDOWN = "shutdown"
    """The gateway left, and the call did not end in time."""
    ABANDONED = "abandoned"
    """Another attempt of the same call was quicker."""
    CONNECT_ERROR = "connect_error"
    TIMEOUT = "timeout"
    THROTTLED = "throttled"
    PROVIDER_AUTH = "provider_auth"
    SERVER_ERROR = "server_error"
    PROTOCOL_ERROR = "protocol_error"
    STREAM_ERROR = "stream_error"
    GATEWAY_ERROR = "gateway_error"
