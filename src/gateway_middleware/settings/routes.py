"""Reads `GATEWAY_ROUTES`: model names and the deployments behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway_middleware.core.domain import Affinity, Balance, Surface, Timeouts, Translate
from gateway_middleware.core.model_names import RULE, is_model_name
from gateway_middleware.settings import scalars
from gateway_middleware.settings.faults import nearest, shown_name
from gateway_middleware.settings.limits import read_limits
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.on_budget import read_on_budget
from gateway_middleware.settings.providers import BUILT_IN
from gateway_middleware.settings.retirement import read_retirement
from gateway_middleware.settings.tree import DeploymentSettings, ProviderSettings, RouteSettings

_PROVIDERS = Mapping[str, ProviderSettings | None]
_OPTIONS = ("to", "timeouts", "max_attempts", "balance", "on_context_window", "on_content_policy", "hedge",
            "limits", "translate", "sunset", "deprecated", "successor", "affinity",
            "on_budget")  # fmt: skip
_SPOKEN = {"chat": Surface.CHAT, "responses": Surface.RESPONSES}
_KINDS = ("prompt", "session", "conversation", "tenant")
_AFFINITIES = f"expected one of {', '.join(_KINDS)}, or header:NAME, the name of a header that is no credential"
_HEADER = re.compile(r"[A-Za-z0-9-]{1,128}")
_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "x-gateway-key", "cookie"})
_WHOLE = 'expected "provider/model", an object with "to", or a list of them that is not empty'


def read_routes(node: Node | None, providers: _PROVIDERS) -> tuple[RouteSettings, ...]:
    """Every route. `providers` holds each declared name, None where the provider is faulty."""
    entries = node.structured().entries() if node else {}
    return tuple(_read_route(name, entry, providers) for name, entry in entries.items())


def _read_route(name: str, node: Node, providers: _PROVIDERS) -> RouteSettings:
    if not is_model_name(name):
        node.faults.add(node.place, f"expected a model name of {RULE}")
    targets, options = _split(node)
    over = options.get("timeouts")
    if over is not None:
        scalars.timeouts(over, Timeouts())  # also where no target is left that it could apply to
    read = [_read_target(target, providers, over) for target in targets]
    deployments = [deployment for deployment in read if deployment is not None]
    _complain_about_repeats(node, deployments)
    return RouteSettings(
        name=name,
        deployments=tuple(sorted(deployments, key=lambda d: d.priority)),
        balance=_balance(options, targets),
        affinity=_affinity(options["affinity"]) if "affinity" in options else Affinity(),
        max_attempts=scalars.integer(options["max_attempts"], 1, 10) if "max_attempts" in options else None,
        on_context_window=_read_list(options.get("on_context_window"), providers, over),
        on_content_policy=_read_list(options.get("on_content_policy"), providers, over),
        hedge_after=_hedge(options.get("hedge")),
        translate=Translate(scalars.choice(options["translate"], list(Translate))) if "translate" in options else None,
        retirement=read_retirement(name, options),
        limits=read_limits(options.get("limits")),
        on_budget=read_on_budget(options),
    )


def _balance(options: Mapping[str, Node], targets: list[Node]) -> Balance:
    """As it says; else whoever names an affinity or a weight wants it to be one."""
    if "balance" in options:
        balance = Balance(scalars.choice(options["balance"], list(Balance)))
        if "affinity" in options and balance is not Balance.AFFINITY:
            options["balance"].fault("expected affinity, for there is an `affinity`")
        return balance
    if "affinity" in options:
        return Balance.AFFINITY
    names_weight = any(isinstance(target.raw, dict) and "weight" in target.raw for target in targets)
    return Balance.WEIGHT if names_weight else Balance.ORDER


def _affinity(node: Node) -> Affinity:
    """`{"by": "session"}`; a header is `{"by": "header:x-chat-id"}`."""
    by = node.members(("by",)).get("by")
    if by is None:
        node.missing("by", _AFFINITIES)
        return Affinity()
    kind, _, name = by.raw.partition(":") if isinstance(by.raw, str) else ("", "", "")
    if kind == "header" and _HEADER.fullmatch(name) and name.lower() not in _CREDENTIALS:
        return Affinity(by=kind, header=name.lower())
    if by.raw not in _KINDS:
        by.fault(_AFFINITIES)
        return Affinity()
    return Affinity(by=kind)


def _hedge(node: Node | None) -> float | None:
    """Seconds; `true` waits for the route's own p95."""
    if node is None or node.raw in (True, False, "true", "false"):
        return 0.0 if node is not None and scalars.boolean(node) else None
    return scalars.seconds(node)


def _read_list(node: Node | None, providers: _PROVIDERS, over: Node | None) -> tuple[DeploymentSettings, ...]:
    if node is None:
        return ()
    read = [_read_target(target, providers, over) for target in node.items(_WHOLE)]
    return tuple(deployment for deployment in read if deployment is not None)


def _split(node: Node) -> tuple[list[Node], dict[str, Node]]:
    """The targets of a route and its options."""
    if not isinstance(node.raw, dict):
        return node.items(_WHOLE), {}
    members = node.members(_OPTIONS)
    if "to" not in members:
        node.missing("to", _WHOLE)
        return [], members
    return members.pop("to").items(_WHOLE), members


def _complain_about_repeats(node: Node, deployments: list[DeploymentSettings]) -> None:
    keys = [d.deployment.key for d in deployments]
    for key in dict.fromkeys(keys):
        if keys.count(key) > 1:
            node.faults.add(
                node.place, f"deployment {shown_name(key)} stands there {keys.count(key)} times; expected once"
            )


def _read_target(node: Node, providers: _PROVIDERS, over: Node | None) -> DeploymentSettings | None:
    if isinstance(node.raw, str):
        members = {"to": node}
    elif isinstance(node.raw, dict):
        members = node.members(("to", "weight", "priority", "timeouts", "speak", "max_output"))
    else:
        node.fault('expected "provider/model" or an object with "to"')
        return None
    if "to" not in members:
        node.missing("to", 'expected "provider/model"')
        return None
    provider, model = _read_deployment(members["to"], providers)
    timeouts = [layer for layer in (over, members.get("timeouts")) if layer is not None]
    return DeploymentSettings(
        provider=provider,
        model=model,
        weight=scalars.integer(members["weight"], 1, 1000) if "weight" in members else 1,
        priority=scalars.integer(members["priority"], 0, 1000) if "priority" in members else 0,
        timeouts=_lay_over(providers.get(provider), timeouts) if timeouts else None,
        speak=_SPOKEN[scalars.choice(members["speak"], list(_SPOKEN))] if "speak" in members else None,
        max_output=scalars.integer(members["max_output"], 1, 10_000_000) if "max_output" in members else None,
    )


def _lay_over(provider: ProviderSettings | None, layers: list[Node]) -> Timeouts:
    timeouts = provider.timeouts if provider else Timeouts()
    for layer in layers:
        timeouts = scalars.timeouts(layer, timeouts)
    return timeouts


def _read_deployment(node: Node, providers: _PROVIDERS) -> tuple[str, str]:
    if not isinstance(node.raw, str):
        node.fault('expected "provider/model"')
        return "", ""
    provider, slash, model = node.raw.partition("/")
    if not slash or not is_model_name(model):
        node.fault(f'expected "provider/model", the model of {RULE}')
    elif provider not in providers:
        node.fault(_unknown(provider, list(providers)))
    return provider, model


def _unknown(provider: str, known: list[str]) -> str:
    if provider in BUILT_IN:
        return f"provider {provider!r} is not configured: set {BUILT_IN[provider].api_key}"
    names = ", ".join(shown_name(name) for name in known) or "(none)"
    return f"expected a configured provider before the slash, one of {names}" + nearest(provider, known)
