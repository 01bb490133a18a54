"""What many tenants have in common is made once."""

from __future__ import annotations

import json

from gateway_middleware import Settings
from gateway_middleware.composition.quotas import make_quotas
from gateway_middleware.tenancy.keys import TenantKey, digest

LIMITS = {"requests": "600/minute", "tokens": "1000/minute", "spend": "5/day", "concurrency": 3}


def settings(**tenants: dict[str, object]) -> Settings:
    entries = {
        name: {"keys": [digest(f"a-key-of-{name}-0123456789".encode())], **more} for name, more in tenants.items()
    }
    return Settings.from_env({"OPENAI_API_KEY": "sk-not-a-real-key", "GATEWAY_TENANTS": json.dumps(entries)})


def test_equal_limits_are_one_quota() -> None:
    quotas = make_quotas(settings(one=LIMITS, two=LIMITS, three=LIMITS | {"concurrency": 4}, four={})).tenants
    assert quotas["one"] is quotas["two"]
    assert [limit.amount for limit in quotas["three"].limits] != [limit.amount for limit in quotas["one"].limits]
    assert quotas["four"].limits == ()


def test_each_option_that_a_quota_depends_on_makes_another_one() -> None:
    others: dict[str, dict[str, object]] = {
        "key": {"per_key": {"requests": "1/minute"}},
        "model": {"per_model": {"gpt-*": {"requests": "1/minute"}}},
        "user": {"per_end_user": {"requests": "1/minute"}},
        "priority": {"priority": 5},
        "unpriced": {"on_unpriced": "allow"},
    }
    quotas = make_quotas(settings(**{name: LIMITS | more for name, more in others.items()}, plain=LIMITS)).tenants
    assert len({id(quota) for quota in quotas.values()}) == len(quotas)
    assert quotas["priority"].priority == 5
    assert quotas["unpriced"].allows_unpriced


def test_the_tenants_that_rooms_know_are_made_once() -> None:
    read = settings(acme=LIMITS)
    ((tenant, keys),) = read.listed
    assert (tenant.name, tenant.models) == ("acme", ("*",))
    assert keys == (TenantKey(digest(b"a-key-of-acme-0123456789")),)
    assert read.listed is read.listed
