"""From model names to deployments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Deployment, Dialect, Payer, Route, Surface, Tenant
from gateway_middleware.core.errors import InvalidRequestError, PermissionDeniedError, UnknownModelError
from gateway_middleware.intake.routing import RouteTable, is_within
from provider_calls import ANTHROPIC, AZURE, OPENAI, PROVIDERS, provider_of

ALL = Tenant(name="acme")


def route(name: str, *keys: str) -> Route:
    found = [key.partition("/") for key in keys]
    return Route(name=name, deployments=tuple(Deployment(provider=p, model=m) for p, _, m in found))


TABLE = RouteTable(
    {r.name: r for r in (route("fast", "openai/gpt-5-mini", "azure/mini"), route("both", "anthropic/c", "openai/g"))},
    PROVIDERS,
)


def keys(model: str, surface: Surface = Surface.CHAT, dialect: Dialect = Dialect.OPENAI) -> list[str]:
    return [d.key for d in TABLE.resolve(model, surface=surface, dialect=dialect, tenant=ALL).deployments]


@pytest.mark.parametrize(
    ("model", "surface", "dialect", "expected"),
    [
        ("fast", Surface.CHAT, Dialect.OPENAI, ["openai/gpt-5-mini", "azure/mini"]),
        ("both", Surface.CHAT, Dialect.OPENAI, ["openai/g"]),
        ("both", Surface.MESSAGES, Dialect.ANTHROPIC, ["anthropic/c"]),
        ("azure/a/b", Surface.CHAT, Dialect.OPENAI, ["azure/a/b"]),
        ("gpt-4o", Surface.CHAT, Dialect.OPENAI, ["openai/gpt-4o"]),
        ("gpt-4o", Surface.CHAT, Dialect.AZURE, ["azure/gpt-4o"]),
        ("claude-x", Surface.MESSAGES, Dialect.ANTHROPIC, ["anthropic/claude-x"]),
        ("org/model", Surface.CHAT, Dialect.OPENAI, ["openai/org/model"]),
    ],
)
def test_names(model: str, surface: Surface, dialect: Dialect, expected: list[str]) -> None:
    assert keys(model, surface, dialect) == expected
    assert keys(model, surface, dialect) == expected, "a remembered answer is the same"


@pytest.mark.parametrize(
    ("model", "surface"),
    [
        ("fast", Surface.MESSAGES),
        ("anthropic/c", Surface.CHAT),
        ("claude-x", Surface.CHAT),
        ("openai/g", Surface.MESSAGES),
    ],
)
def test_a_model_that_is_elsewhere_says_where(model: str, surface: Surface) -> None:
    with pytest.raises(InvalidRequestError, match=r"not available on .*; it is on ") as caught:
        keys(model, surface)

    assert caught.value.param == "model"


def test_a_model_that_is_not_allowed_looks_like_one_that_is_not_there() -> None:
    limited = Tenant(name="small", models=("fast", "openai/*"))
    only_messages = RouteTable({}, {"anthropic": ANTHROPIC})

    with pytest.raises(UnknownModelError) as refused:
        TABLE.resolve("both", surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=limited)
    with pytest.raises(UnknownModelError) as absent:
        only_messages.resolve("both", surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=ALL)

    assert refused.value.message == absent.value.message
    found = TABLE.resolve("openai/x", surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=limited)
    assert [d.key for d in found.deployments] == ["openai/x"]


def test_what_a_tenant_sees() -> None:
    limited = Tenant(name="small", models=("f*",))

    assert [r.name for r in TABLE.visible(ALL, Dialect.OPENAI)] == ["fast", "both"]
    assert [r.name for r in TABLE.visible(limited, Dialect.OPENAI)] == ["fast"]
    assert TABLE.find("both", limited, Dialect.OPENAI) is None


def test_names_that_a_tenant_is_given_are_listed_where_they_lead_somewhere() -> None:
    named = Tenant(name="small", models=("gpt-4o", "fast", "antropic/x", "claude-*", "azure/mini"))

    listed = [(r.name, r.deployments[0].key) for r in TABLE.visible(named, Dialect.AZURE)]
    assert listed == [("fast", "openai/gpt-5-mini"), ("gpt-4o", "azure/gpt-4o"), ("azure/mini", "azure/mini")]


@given(
    st.sampled_from(["fast", "both", "gpt-4o", "claude-x", "openai/x", "nobody/any", "antropic/c", "opnai/x", "/"]),
    st.sampled_from(list(Dialect)),
    st.sampled_from([ALL, Tenant(name="s", models=("f*", "gpt-4o")), Tenant(name="n", models=("claude-x",))]),
)
def test_what_is_found_is_what_may_be_called(model: str, dialect: Dialect, tenant: Tenant) -> None:
    def leads(surface: Surface) -> bool:
        try:
            TABLE.resolve(model, surface=surface, dialect=dialect, tenant=tenant)
        except (UnknownModelError, InvalidRequestError):
            return False
        return True

    assert (TABLE.find(model, tenant, dialect) is not None) is any(map(leads, Surface))


def test_claude_where_only_anthropic_is_says_where_it_is() -> None:
    table = RouteTable({}, {"anthropic": ANTHROPIC})

    with pytest.raises(InvalidRequestError, match="it is on messages") as caught:
        table.resolve("claude-x", surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=ALL)

    assert (caught.value.param, caught.value.error_code) == ("model", "unsupported_surface")


@pytest.mark.parametrize(("dialect", "key"), [(Dialect.OPENAI, "openai/claude-x"), (Dialect.AZURE, "azure/claude-x")])
def test_claude_goes_where_other_names_go_where_anthropic_is_not_configured(dialect: Dialect, key: str) -> None:
    table = RouteTable({}, {"azure": AZURE, "openai": OPENAI})

    found = table.resolve("claude-x", surface=Surface.CHAT, dialect=dialect, tenant=ALL)

    assert [d.key for d in found.deployments] == [key]


def test_a_name_in_use_outlives_names_that_clients_make_up() -> None:
    table = RouteTable({}, PROVIDERS)

    def ask(model: str) -> Route:
        return table.resolve(model, surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=ALL)

    kept = ask("gpt-4o")
    for n in range(3000):
        ask(f"made-up-{n}")
        assert ask("gpt-4o") is kept


def test_names_that_clients_make_up_do_not_pile_up() -> None:
    for n in range(3000):
        keys(f"openai/m{n}")

    assert len(TABLE._resolved) == 1024  # noqa: SLF001  # memory in use shows nowhere else


def test_a_hundred_and_fifty_routes_over_a_dozen_providers() -> None:
    kinds = ("openai", "anthropic", "azure_openai")
    entries = {f"p{i}": provider_of(kinds[i % 3], "https://h", name=f"p{i}") for i in range(12)}
    table = RouteTable({f"r{i}": route(f"r{i}", f"p{i % 12}/m{i}") for i in range(150)}, entries)

    for i in range(150):
        surface = Surface.MESSAGES if i % 3 == 1 else Surface.CHAT
        found = table.resolve(f"r{i}", surface=surface, dialect=Dialect.OPENAI, tenant=ALL)
        assert found.deployments[0].key == f"p{i % 12}/m{i}"


def test_a_route_is_found_by_its_name_on_whatever_surface() -> None:
    found = TABLE.find("fast", ALL, Dialect.OPENAI)

    assert found is not None
    assert [d.key for d in found.deployments] == ["openai/gpt-5-mini", "azure/mini"]


def test_what_was_found_out_about_names_does_not_pile_up() -> None:
    limited = Tenant(name="small", models=("ok-*",))
    table = RouteTable({}, {"openai": OPENAI})

    for n in range(1100):
        assert table.find(f"no-{n}", limited, Dialect.OPENAI) is None
    assert table.find("openai/x", limited, Dialect.OPENAI) is None
    assert table.resolve("ok-1", surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=limited).name == "ok-1"
    assert len(table._allowed) < 1024  # noqa: SLF001  the bound is what is tested


@pytest.mark.parametrize(
    ("model", "suggestion"),
    [
        ("opnai/gpt-4o", "openai/gpt-4o"),
        ("open-ai/gpt-4o", "openai/gpt-4o"),
        ("azrue/gpt/4o", "azure/gpt/4o"),
        ("anthropics/claude-x", "anthropic/claude-x"),
        ("OpenAl/gpt-4o", "openai/gpt-4o"),
    ],
)
def test_a_misspelt_provider_is_unknown_with_a_suggestion(model: str, suggestion: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        keys(model)

    assert caught.value.message.endswith(f"Did you mean `{suggestion}`?")
    assert (caught.value.http_status, caught.value.param) == (404, "model")


@pytest.mark.parametrize("model", ["Qwen/Qwen3", "meta-llama/llama-3", "ope/gpt", "~openai/x", "org/gpt-4o", "opnai"])
def test_names_of_models_with_a_slash_are_no_misspelt_providers(model: str) -> None:
    assert keys(model) == [f"openai/{model}"]


def test_publishers_of_models_are_no_misspelt_providers() -> None:
    table = RouteTable({}, {"openai2": OPENAI})

    found = table.resolve("openai/gpt-oss", surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=ALL)
    assert [d.key for d in found.deployments] == ["openai2/openai/gpt-oss"]


def edits(one: str, other: str) -> int:
    """The textbook's table."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row, last = [i], row
        for j, b in enumerate(other, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
    return row[-1]


@given(st.text("ab", max_size=7), st.text("ab", max_size=7), st.integers(0, 3))
def test_edits_are_counted_as_in_the_textbook(one: str, other: str, most: int) -> None:
    assert is_within(most, one, other) == (edits(one, other) <= most)


@pytest.mark.parametrize(
    ("key", "dialect", "expected"),
    [
        ("azure/team/mini", Dialect.OPENAI, "azure/team/mini"),
        (None, Dialect.OPENAI, "openai/responses"),
        (None, Dialect.AZURE, "azure/responses"),
        ("anthropic/claude-x", Dialect.OPENAI, None),
        ("gone/gpt-5", Dialect.OPENAI, None),
    ],
)
def test_the_way_to_what_is_stored(key: str | None, dialect: Dialect, expected: str | None) -> None:
    found = TABLE.holding(key, dialect=dialect, tenant=ALL)
    assert (found and [d.key for d in found.deployments]) == (expected and [expected])


def test_what_is_stored_is_read_where_the_tenant_may_be() -> None:
    table = RouteTable({}, PROVIDERS, labels={"azure": {"region": "eu"}})
    european = Tenant(name="acme", require=(("region", ("eu",)),))
    found = table.holding(None, dialect=Dialect.OPENAI, tenant=european)
    assert found is not None
    assert found.deployments[0].provider == "azure"
    with pytest.raises(PermissionDeniedError):
        table.holding("openai/gpt-5", dialect=Dialect.OPENAI, tenant=european)
    nowhere = Tenant(name="acme", require=(("region", ("us",)),))
    assert table.holding(None, dialect=Dialect.OPENAI, tenant=nowhere) is None


def test_what_is_stored_in_an_account_of_the_tenants_own() -> None:
    table = RouteTable({}, PROVIDERS, accounts={"acme": {"openai": Payer.TENANT}})
    found = table.holding("openai/gpt-5", dialect=Dialect.OPENAI, tenant=ALL)
    assert found is not None
    assert found.deployments[0].account == "openai@acme"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("openai#east/g", ("openai/g", "openai#east", "east")),
        ("openai#gone/g", ("openai/g", "openai", None)),
        ("openai/g", ("openai/g", "openai", None)),
        ("azure#east/team/mini", ("azure/team/mini", "azure", None)),
    ],
)
def test_what_a_key_has_stored_is_asked_for_with_it_while_there_is_such_a_key(
    place: str, expected: tuple[str, str, str | None]
) -> None:
    table = RouteTable({}, PROVIDERS, keys={"openai": {"east", "west"}})
    found = table.holding(place, dialect=Dialect.OPENAI, tenant=ALL)
    assert found is not None
    (deployment,) = found.deployments
    assert (deployment.key, deployment.account, deployment.key_name) == expected
    if deployment.key_name is not None:
        assert deployment.place == place


def test_a_route_is_narrowed_to_the_deployment_and_key_that_hold_something() -> None:
    table = RouteTable({}, PROVIDERS, keys={"openai": {"east"}})
    both = route("both", "azure/mini", "openai/g", "openai/h")
    (deployment,) = table.narrowed(both, "openai#east/g").deployments
    assert (deployment.key, deployment.credential) == ("openai/g", "openai#east")
    assert table.narrowed(both, "openai#east/other") is both
    own = RouteTable({}, PROVIDERS, keys={"openai": {"east"}}, accounts={"acme": {"openai": Payer.TENANT}})
    charged = own.resolve("openai/g", surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=ALL)
    assert own.narrowed(charged, "openai#east/g").deployments[0].account == "openai@acme"
