"""The table of all variables, from which the configuration is read and the README's table is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway_middleware.core.domain import Translate
from gateway_middleware.settings import identity, scalars
from gateway_middleware.settings.groups import read_groups
from gateway_middleware.settings.guards import read_guards
from gateway_middleware.settings.models import read_models
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.prices import read_prices


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """One variable.

    `field` is the name in `Settings`, None where several variables make one field. `default` is for the table, where
    the value in `Settings` would not explain itself.
    """

    name: str
    meaning: str
    field: str | None = None
    read: Callable[[Node], Any] | None = None
    default: str | None = None


def _secret_of_16(node: Node) -> Any:
    return node.secret(at_least=16)


def _port(node: Node) -> int:
    if isinstance(node.raw, str) and node.raw.startswith("tcp://"):
        node.fault(
            "expected an integer from 0 to 65535; a Kubernetes Service named gateway sets this: "
            "enableServiceLinks: false in the pod stops it"
        )
        return 0
    return scalars.integer(node, 0, 65535)


def _concurrency(node: Node) -> int:
    return scalars.integer(node, 1, 1_000_000)


VARIABLES: tuple[Variable, ...] = (
    Variable(name="OPENAI_API_KEY", meaning="Switches on the provider `openai`."),
    Variable(name="OPENAI_BASE_URL", default="`https://api.openai.com/v1`", meaning="Where `openai` is."),
    Variable(name="ANTHROPIC_API_KEY", meaning="Switches on the provider `anthropic`."),
    Variable(name="ANTHROPIC_BASE_URL", default="`https://api.anthropic.com`", meaning="Where `anthropic` is."),
    Variable(name="AZURE_OPENAI_API_KEY", meaning="Switches on the provider `azure`, with `AZURE_OPENAI_ENDPOINT`."),
    Variable(
        name="AZURE_OPENAI_ENDPOINT",
        meaning="Where `azure` is: `https://NAME.openai.azure.com`. Without a key its calls carry tokens of Entra ID "
        "(docs/providers.md).",
    ),
    Variable(
        name="AZURE_TENANT_ID",
        meaning="Of Entra ID, for Azure providers without a key; with `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET` or "
        "`AZURE_FEDERATED_TOKEN_FILE`. Without these: the managed identity of the machine.",
    ),
    Variable(name="AZURE_CLIENT_ID", meaning="The application, or the managed identity where there are several."),
    Variable(name="AZURE_CLIENT_SECRET", meaning="Its secret."),
    Variable(name="AZURE_FEDERATED_TOKEN_FILE", meaning="The token of its workload identity."),
    Variable(name="AZURE_AUTHORITY_HOST", default="`https://login.microsoftonline.com`", meaning="Where Entra ID is."),
    Variable(name="IDENTITY_ENDPOINT", meaning="Set by App Service and its like, for managed identities."),
    Variable(name="IDENTITY_HEADER", meaning="The same."),
    Variable(name="OPENAI_API_VERSION", default="v1 API", meaning="The API version of `azure`."),
    Variable(
        name="GATEWAY_PROVIDERS",
        default="`{}`",
        meaning='Further providers: `{"azure-eu": {"kind": "azure_openai", "base_url": "...", "api_key": '
        '"env:AZURE_EU_KEY"}}`. `api_key` may be a list of several (docs/providers.md). `kind` is `openai`, '
        "`anthropic` or `azure_openai`; also `api_version`, `timeouts` "
        "(`connect`, `first_byte`, `first_content`, `answer`, `idle`, `content_idle`, `total`, `write_stall`, "
        "`heartbeat`, in seconds), `insecure` (plain http), `organization`, `project`, "
        "`on_disconnect` (`cancel`, `drain`), `stream_options` (`false`: it does not take them), "
        "`ca_file` (authorities besides the public ones), `proxy` "
        '(`"http://host:port"`, or `{"url": ..., "credentials": "env:NAME"}`), `stateless`, '
        "`auth` (`bearer`, `x-api-key`, `api-key`, `sigv4`, `none`), `headers`, `labels`, `entra`, `aws` "
        "(docs/providers.md), "
        "`surfaces` (those that it really has: `chat`, `responses`, ...), `breaker` (docs/circuit-breaking.md). An "
        "entry named as a built-in provider replaces it.",
    ),
    Variable(
        name="GATEWAY_ROUTES",
        field="routes",
        default="`{}`",
        meaning='Model names and where they lead: `{"fast": ["openai/gpt-5-mini", {"to": "azure-eu/gpt5mini", '
        '"weight": 3}]}`. A target may have `weight`, `priority` (lowest first), `timeouts`, `speak` (`chat`, '
        "`responses`) and `max_output` (tokens; both: docs/translation.md); a route may be an object with `to`, "
        "`timeouts`, `max_attempts`, `balance` (`order`, `weight`, `latency`, `affinity`), `hedge`, "
        "`on_context_window`, `on_content_policy`, `limits`, `on_budget`, `translate`, `affinity` "
        "(docs/circuit-breaking.md), `sunset`, `deprecated` and `successor` (docs/models.md). Without a route, "
        "`provider/model` and plain model names resolve by provider.",
    ),
    Variable(
        name="GATEWAY_TENANTS",
        field="tenants",
        default="`{}`",
        meaning='`{"acme": {"keys": ["sha256:..."], "models": ["*"]}}`; a key is listed as its digest, see '
        "`model-gateway keys new`, or as an object with `digest`, `name` and `expires` "
        "(docs/tenants.md). Also `requests`, `tokens`, `concurrency` and `spend`, `per_key`, "
        "`per_model`, `per_end_user`, `shadow`, `on_outage`, `on_unpriced`, `on_budget` (a cheaper route), `priority` "
        "(docs/rate-limits.md), `on_policy_outage` (docs/policy.md), `require` (labels of the only providers that its "
        "calls may reach, "
        "docs/providers.md), `credentials` (its own keys of providers, "
        '`{"openai": "env:ACME_OPENAI_KEY"}`, or `client` for one whose credential callers bring, docs/tenants.md).',
    ),
    Variable(
        name="GATEWAY_GROUPS",
        field="groups",
        read=read_groups,
        default="`{}`",
        meaning='Limits that tenants have together: `{"research": {"tenants": ["acme", "beta"], "spend": '
        '"1000/month"}}`; also `requests`, `tokens`, `concurrency`, `shadow`, `on_outage`, `on_budget`. A tenant is '
        "in one group at most (docs/rate-limits.md).",
    ),
    Variable(
        name="GATEWAY_END_USER_HEADER",
        field="end_user_header",
        read=identity.header_name,
        default="what the body says",
        meaning="The header in which whoever stands in front names a tenant's end user, whatever the body says. It "
        "must be removed from what clients send.",
    ),
    Variable(
        name="GATEWAY_OPEN",
        field="is_open",
        read=scalars.boolean,
        meaning="`true`: no tenants are needed, every caller is let in.",
    ),
    Variable(
        name="GATEWAY_KEY_SECRET",
        field="key_secret",
        read=_secret_of_16,
        meaning="The secret of `hmac-sha256:` digests in `GATEWAY_TENANTS`, at least 16 characters.",
    ),
    Variable(
        name="GATEWAY_TENANT_HEADER",
        field="tenant_header",
        read=identity.header_name,
        default="off",
        meaning="The header in which an api-gateway in front names the tenant (`X-Tenant-ID`), believed from "
        "`GATEWAY_TRUSTED_PROXIES` with a proof that they know `GATEWAY_TENANT_HEADER_SECRET` (docs/tenants.md).",
    ),
    Variable(
        name="GATEWAY_TRUSTED_PROXIES",
        field="trusted_proxies",
        read=identity.proxies,
        default="none",
        meaning="Who may name the tenant: addresses and networks of the peers themselves, `unix:` for Unix sockets "
        "(`unix:/path` for one), by commas.",
    ),
    Variable(
        name="GATEWAY_TENANT_HEADER_SECRET",
        field="tenant_header_secret",
        read=_secret_of_16,
        meaning="What they sign with, at least 16 characters.",
    ),
    Variable(
        name="GATEWAY_JWT_ISSUER",
        field="jwt_issuer",
        read=identity.claim_value,
        default="off",
        meaning="Tenants by JSON Web Token (extra `jwt`): its `iss`. Needs `GATEWAY_JWT_AUDIENCE`.",
    ),
    Variable(name="GATEWAY_JWT_AUDIENCE", field="jwt_audience", read=identity.claim_value, meaning="Its `aud`."),
    Variable(
        name="GATEWAY_JWT_JWKS_URL",
        field="jwt_jwks_url",
        read=identity.https_url,
        default="as the issuer's `/.well-known/openid-configuration` says",
        meaning="Where the issuer's public keys are.",
    ),
    Variable(
        name="GATEWAY_JWT_TENANT_CLAIM",
        field="jwt_tenant_claim",
        read=identity.claim_name,
        meaning="The claim that holds the tenant's name.",
    ),
    Variable(
        name="GATEWAY_JWT_ALGORITHMS",
        field="jwt_algorithms",
        read=identity.algorithms,
        default="`RS256`",
        meaning="How tokens are signed: algorithms of one family, by commas: `RS256`, `PS256`, `ES256`, `EdDSA`, ...",
    ),
    Variable(
        name="GATEWAY_POLICY_ADAPTER_URL",
        field="policy_adapter_url",
        read=scalars.url,
        default="off: whoever is known may call",
        meaning="Who is asked whether a tenant may call: the data API of Open Policy Agent, such as "
        "`http://policy-adapter/v1/data/gateway/authorize` (docs/policy.md).",
    ),
    Variable(
        name="GATEWAY_POLICY_ADAPTER_TOKEN",
        field="policy_adapter_token",
        read=Node.secret,
        meaning="Its bearer token.",
    ),
    Variable(
        name="GATEWAY_POLICY_TIMEOUT_SECONDS",
        field="policy_timeout_seconds",
        read=scalars.seconds,
        meaning="How long it may take to answer.",
    ),
    Variable(
        name="GATEWAY_POLICY_ALLOWED_SECONDS",
        field="policy_allowed_seconds",
        read=scalars.seconds,
        meaning="For how long a yes is kept.",
    ),
    Variable(
        name="GATEWAY_POLICY_DENIED_SECONDS",
        field="policy_denied_seconds",
        read=scalars.seconds,
        meaning="For how long a no is kept.",
    ),
    Variable(
        name="GATEWAY_POLICY_STALE_SECONDS",
        field="policy_stale_seconds",
        read=scalars.seconds,
        meaning="For how long a yes is used while the policy-adapter does not answer.",
    ),
    Variable(
        name="GATEWAY_POLICY_ON_OUTAGE",
        field="policy_on_outage",
        read=lambda node: scalars.choice(node, ["refuse", "allow"]),
        meaning="What becomes of all other calls then: 503, or (`allow`) they pass unchecked. A tenant may have its "
        "own `on_policy_outage`.",
    ),
    Variable(
        name="GATEWAY_CONFIG_FILE",
        meaning="A TOML file with any of these, named in lower case and without `GATEWAY_`; the environment wins.",
    ),
    Variable(
        name="GATEWAY_WATCH_SECONDS",
        field="watch_seconds",
        read=scalars.pause,
        meaning="How often that file, and each that holds a secret or certificates, is looked at: a change is taken "
        "without a restart, as by a reload (docs/fleet.md). 0: only when asked.",
    ),
    Variable(name="GATEWAY_HOST", field="host", read=scalars.host, meaning="Where `serve` listens."),
    Variable(
        name="PORT",
        field="port",
        read=_port,
        default="none",
        meaning="The same as `GATEWAY_PORT`, as platforms set it; where both are given, `GATEWAY_PORT` counts.",
    ),
    Variable(name="GATEWAY_PORT", field="port", read=_port, meaning="Where `serve` listens; 0 takes a free port."),
    Variable(
        name="GATEWAY_WORKERS",
        field="workers",
        read=lambda node: scalars.integer(node, 1, 256),
        meaning="Processes of `serve`.",
    ),
    Variable(
        name="GATEWAY_MAX_BODY_BYTES",
        field="max_body_bytes",
        read=lambda node: scalars.integer(node, 1, 1 << 30),
        meaning="The largest request body.",
    ),
    Variable(
        name="GATEWAY_MAX_ANSWER_BYTES",
        field="max_answer_bytes",
        read=lambda node: scalars.integer(node, 1, 1 << 30),
        meaning="The largest answer that is not streamed.",
    ),
    Variable(
        name="GATEWAY_MAX_EVENT_BYTES",
        field="max_event_bytes",
        read=lambda node: scalars.integer(node, 1, 1 << 30),
        meaning="The largest single event of a stream: images and documents travel inside of one.",
    ),
    Variable(
        name="GATEWAY_HEAD_SECONDS",
        field="head_seconds",
        read=scalars.seconds,
        meaning="Until the head of a request must be whole, from its first byte on (of the first one: from the "
        "connection on). This and the next seven bound what `serve` lets clients do (docs/serving.md).",
    ),
    Variable(
        name="GATEWAY_BODY_SECONDS",
        field="body_seconds",
        read=scalars.seconds,
        meaning="Over which a request body that is waited for must bring 1 KiB a second.",
    ),
    Variable(
        name="GATEWAY_IDLE_SECONDS",
        field="idle_seconds",
        read=scalars.seconds,
        meaning="After which a connection without a request is closed: longer than the ingress in front keeps it.",
    ),
    Variable(
        name="GATEWAY_MAX_HEAD_BYTES",
        field="max_head_bytes",
        read=lambda node: scalars.integer(node, 1024, 1 << 20),
        meaning="Of request line and headers; more is answered 431.",
    ),
    Variable(
        name="GATEWAY_MAX_HEADERS",
        field="max_headers",
        read=lambda node: scalars.integer(node, 1, 10_000),
        meaning="Of a request; more are answered 431.",
    ),
    Variable(
        name="GATEWAY_MAX_CONNECTIONS",
        field="max_connections",
        read=lambda node: scalars.integer(node, 1, 1_000_000),
        meaning="Of a process; more are answered 503 and closed.",
    ),
    Variable(
        name="GATEWAY_MAX_BODIES_BYTES",
        field="max_bodies_bytes",
        read=lambda node: scalars.integer(node, 1024, 1 << 40),
        meaning="Of all requests under way in a process; more is answered 503.",
    ),
    Variable(
        name="GATEWAY_MAX_TENANT_BODIES_BYTES",
        field="max_tenant_bodies_bytes",
        read=lambda node: scalars.integer(node, 1024, 1 << 40),
        meaning="Of the bodies of one tenant's requests under way in a process; more is answered 429.",
    ),
    Variable(
        name="GATEWAY_HALF_CLOSE",
        field="half_close",
        read=lambda node: scalars.choice(node, ["leave", "allow"]),
        meaning="What the end of input from a client means: it has left, or (`allow`) it still waits for its answer.",
    ),
    Variable(
        name="GATEWAY_DRAIN_SECONDS",
        field="drain_seconds",
        read=scalars.seconds,
        meaning="How long calls may take to end when the gateway is stopped.",
    ),
    Variable(
        name="GATEWAY_DRAIN_LAG_SECONDS",
        field="drain_lag_seconds",
        read=scalars.pause,
        meaning="How long the port stays open after readiness has flipped, so that a balancer has time to see it.",
    ),
    Variable(
        name="GATEWAY_METRICS_DIRECTORY",
        field="metrics_directory",
        read=scalars.path,
        default="made by `serve`",
        meaning="Where the worker processes of one server leave their metrics, so that a scrape of any adds them up.",
    ),
    Variable(
        name="GATEWAY_FLEET_DIRECTORY",
        field="fleet_directory",
        read=scalars.path,
        default="`<journal>.fleet`",
        meaning="Where the processes of one server tell each other of reloads, revoked keys, commands to breakers and "
        "owners of stored responses (docs/fleet.md): on a local disk. Without a journal `serve` makes one for its "
        "workers.",
    ),
    Variable(
        name="GATEWAY_GUARDS",
        field="guards",
        read=read_guards,
        default="`{}`",
        meaning='Services that look at prompts and answers, asked in this order: `{"pii": {"url": "https://..."}}`; '
        "also `token`, `stages` (`request`, `answer`, `stream`), `deadline` (seconds), `on_failure` (`refuse`, "
        "`pass`), `shadow`, `window` and `overlap` (characters of a stream); see docs/guards.md.",
    ),
    Variable(
        name="GATEWAY_TRACING",
        field="tracing",
        read=lambda node: scalars.choice(node, ["off", "on", "content"]),
        meaning="OpenTelemetry spans of calls and attempts (extra `otel`); `content` puts prompts into them.",
    ),
    Variable(
        name="GATEWAY_LOG_FORMAT",
        field="log_format",
        read=lambda node: scalars.choice(node, ["json", "human"]),
        default="by terminal",
        meaning="How lines of the log are written: `json`, one object a line, or `human`, for a terminal.",
    ),
    Variable(
        name="GATEWAY_LOG_PROBES",
        field="log_probes",
        read=scalars.boolean,
        meaning="Whether probes and scrapes that were answered well (`/healthz`, `/livez`, `/readyz`, `/v1/health`, "
        "`/metrics`) have a line in the access log.",
    ),
    Variable(
        name="GATEWAY_METRICS_TOKEN",
        field="metrics_token",
        read=Node.secret,
        default="none: open",
        meaning="The bearer token of `/metrics`.",
    ),
    Variable(
        name="GATEWAY_ADMIN_TOKEN",
        field="admin_token",
        read=_secret_of_16,
        default="none: admin disabled",
        meaning="The bearer token of operators, for `/v1/admin/*`; at least 16 characters.",
    ),
    Variable(
        name="GATEWAY_CONSOLE",
        field="console",
        read=lambda node: scalars.choice(node, ["on", "off"]),
        meaning="`off` removes the operators' page at `/console`. The page has no data; that takes "
        "`GATEWAY_ADMIN_TOKEN`.",
    ),
    Variable(
        name="GATEWAY_DEFAULT_REQUESTS",
        field="default_requests",
        read=scalars.limit,
        meaning="Requests of a tenant that names none: `600/minute`, `10/second;1000/hour`.",
    ),
    Variable(
        name="GATEWAY_DEFAULT_TOKENS",
        field="default_tokens",
        read=scalars.limit,
        meaning="Tokens of a tenant that names none, input and output together: `200000/minute`.",
    ),
    Variable(
        name="GATEWAY_DEFAULT_CONCURRENCY",
        field="default_concurrency",
        read=_concurrency,
        meaning="Calls at a time of a tenant that names none.",
    ),
    Variable(
        name="GATEWAY_DEFAULT_SPEND",
        field="default_spend",
        read=scalars.spend,
        meaning="Dollars of a tenant that names none: `100/month`; days and months are those of the calendar, in UTC.",
    ),
    Variable(
        name="GATEWAY_PRICES",
        field="prices",
        read=read_prices,
        default="`{}`",
        meaning="Prices of deployments that differ from the list of the extra `prices`, in dollars per million tokens: "
        '`{"openai/gpt-5": {"input": 1.25, "output": 10, "cached_input": 0.125}}`; also `cache_write`, '
        "`cache_write_1h`, `reasoning`, `tiers`, `version`.",
    ),
    Variable(
        name="GATEWAY_MODELS",
        field="models",
        read=read_models,
        default="`{}`",
        meaning="What you know better of models than the gateway, by `provider/model`, by model or by route: "
        '`{"azure/gpt5mini": {"like": "gpt-5-mini"}, "my-model": {"context_window": 128000, "max_output_tokens": '
        "8192}}`; also `display_name`, `thinking`, `sampling`, `structured_output`, `reasoning`, "
        "`parallel_tool_calls`, `efforts` (docs/models.md).",
    ),
    Variable(
        name="GATEWAY_QUEUE_SECONDS",
        field="queue_seconds",
        read=scalars.seconds,
        default="off",
        meaning="How long a call may wait for a slot or a refill, fairly between tenants, before it is refused.",
    ),
    Variable(
        name="GATEWAY_STORAGE_URI",
        field="storage_uri",
        read=scalars.storage_uri,
        default="`memory://`",
        meaning="`redis://...` shares limits, cooldowns, probes and operators' commands between replicas (cluster and "
        "sentinel need the extra `redis`).",
    ),
    Variable(
        name="GATEWAY_REPLICAS",
        field="replicas",
        read=lambda node: scalars.integer(node, 1, 10_000),
        default="as many as Redis has counted last",
        meaning="At least so many replicas share the limits: by it they are divided while Redis cannot be reached.",
    ),
    Variable(
        name="GATEWAY_JOURNAL",
        field="journal",
        read=scalars.path,
        meaning="The SQLite file in which calls are recorded before a provider is asked; `off`: nothing is metered.",
    ),
    Variable(
        name="GATEWAY_KEEPER",
        field="keeper",
        read=lambda node: scalars.choice(node, ["auto", "process", "thread"]),
        meaning="Who folds the journal and delivers usage events: one `process` for all workers of a host, or a "
        "`thread` of each; `auto` is a process under `serve`, elsewhere a thread. Where no `serve` starts the process: "
        "`python -m gateway_middleware keep`.",
    ),
    Variable(
        name="GATEWAY_MAX_ATTEMPTS",
        field="max_attempts",
        read=lambda node: scalars.integer(node, 1, 10),
        meaning="Upstream tries per call, over all deployments of its route.",
    ),
    Variable(
        name="GATEWAY_TRANSLATION",
        field="translation",
        read=lambda node: Translate(scalars.choice(node, list(Translate))),
        meaning="For clients whose dialect a deployment does not speak: `allow` translates and lists what was lost in "
        "`x-gateway-dropped`; `strict` refuses what would lose anything; `off`. A route may have its own `translate`.",
    ),
    Variable(
        name="GATEWAY_BREAKER",
        field="breaker",
        read=lambda node: scalars.choice(node, ["on", "off", "shadow"]),
        meaning="Circuit breakers and cooldowns: `on`; `shadow` reports what they would refuse; `off`.",
    ),
    Variable(
        name="GATEWAY_USAGE_METERING_URL",
        field="usage_metering_url",
        read=scalars.url,
        default="off: events stay in the journal for 32 days",
        meaning="Where usage events go, as batches of CloudEvents 1.0.",
    ),
    Variable(
        name="GATEWAY_USAGE_METERING_TOKEN", field="usage_metering_token", read=Node.secret, meaning="Its bearer token."
    ),
    Variable(
        name="GATEWAY_BUDGET_EVENTS",
        field="budget_events",
        read=scalars.boolean,
        meaning="Tell `usage-metering` too when 50, 80 and 100 % of a limit on spend are used, as CloudEvents of type "
        "`gateway.llm.budget.v1` (docs/metering.md).",
    ),
    Variable(
        name="GATEWAY_AUDIT_EVENTS",
        field="audit_events",
        read=scalars.boolean,
        meaning="Tell `usage-metering` too of each change of keys and tenants at run time, and of each reload, as "
        "CloudEvents of type `gateway.llm.audit.v1` (docs/metering.md). `false`: a line in the log only.",
    ),
    Variable(
        name="GATEWAY_USAGE_INDEX_SECONDS",
        field="usage_index_seconds",
        read=scalars.pause,
        meaning="For how long every replica knows from Redis (`GATEWAY_STORAGE_URI`) what a call has used, for "
        "`GET /v1/usage/{request_id}`. 0: only the server that took the call (docs/metering.md).",
    ),
    Variable(
        name="GATEWAY_EVENT_SOURCE",
        field="event_source",
        read=scalars.uri_reference,
        meaning="The `source` of CloudEvents: the same on all replicas of a gateway, another one for another gateway.",
    ),
    Variable(
        name="GATEWAY_EVENT_TYPE",
        field="event_type",
        read=scalars.uri_reference,
        meaning="The `type` of usage events: what `usage-metering` knows them by.",
    ),
    Variable(
        name="GATEWAY_EVENT_SCHEMA",
        field="event_schema",
        read=scalars.url,
        default="none",
        meaning="The `dataschema` of usage events: where you keep what `model-gateway event-schema` prints.",
    ),
)
