"""How tenants and keys are shown to operators: never a key, never a digest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:

    class Written(Protocol):
        """A tenant that was made at run time."""

        @property
        def created(self) -> float: ...
        @property
        def limits(self) -> dict[str, Any]: ...
        @property
        def per_key(self) -> dict[str, Any]: ...
        @property
        def on_budget(self) -> Step | None: ...

    class Step(Protocol):
        """A cheaper route, and from how much of a budget on."""

        @property
        def route(self) -> str: ...
        @property
        def percent(self) -> int: ...

    class Made(Protocol):
        """A key that was made at run time."""

        @property
        def key_id(self) -> str: ...
        @property
        def tenant(self) -> str: ...
        @property
        def name(self) -> str | None: ...
        @property
        def created(self) -> float: ...
        @property
        def expires(self) -> float | None: ...
        @property
        def models(self) -> tuple[str, ...]: ...
        @property
        def limits(self) -> dict[str, Any]: ...

    class Ending(Protocol):
        """A secret of a key."""

        @property
        def ends(self) -> float | None: ...

    class Listed(Protocol):
        """A key of the configuration."""

        @property
        def name(self) -> str | None: ...
        @property
        def expires(self) -> float | None: ...


def tenant_row(
    name: str, models: Sequence[str], keys: int, *, source: str, made: Written | None = None
) -> dict[str, Any]:
    """One tenant; limits of those that are configured stand in the configuration."""
    row: dict[str, Any] = {"name": name, "source": source, "models": list(models), "keys": keys}
    if made is not None:
        row |= {"created": _moment(made.created), "limits": made.limits, "per_key": made.per_key}
        row["on_budget"] = step_row(made.on_budget)
    return row


def step_row(step: Step | None) -> dict[str, Any] | None:
    """As it is written in the configuration."""
    return None if step is None else {"route": step.route, "percent": step.percent}


def key_row(key: Made, secrets: Sequence[Ending], now: float) -> dict[str, Any]:
    """One key that was made at run time. `old_until`: until when the secrets before the newest still work."""
    ends = [s.ends for s in secrets[:-1] if s.ends is not None and s.ends > now]
    return {
        "key_id": key.key_id,
        "tenant": key.tenant,
        "name": key.name,
        "source": "stored",
        "created": _moment(key.created),
        "expires": _moment(key.expires),
        "is_expired": key.expires is not None and key.expires <= now,
        "old_until": _moment(max(ends, default=None)),
        "models": list(key.models),
        "limits": key.limits,
    }


def configured_key_row(tenant: str, key: Listed) -> dict[str, Any]:
    """One key of the configuration, which is changed there."""
    return {"key_id": None, "tenant": tenant, "name": key.name, "source": "configuration",
            "expires": _moment(key.expires)}  # fmt: skip


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
