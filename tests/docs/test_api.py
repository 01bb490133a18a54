"""docs/api.md against the package: every public name, its true signature, an example that runs."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import gateway_middleware

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SECTIONS: dict[str, tuple[str, ...]] = {
    name: tuple(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for name, text in re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", API, re.DOTALL | re.MULTILINE)
}
Parameter: TypeAlias = "tuple[str, str, bool]"
"""Name, kind, and whether it may be left out."""
KINDS: dict[Any, str] = {
    inspect.Parameter.POSITIONAL_ONLY: "positional-only",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.KEYWORD_ONLY: "keyword-only",
}


def documented(function: ast.FunctionDef) -> list[Parameter]:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    first_default = len(positional) - len(given.defaults)
    rows = [
        (arg.arg, "positional-only" if arg in given.posonlyargs else "positional", number >= first_default)
        for number, arg in enumerate(positional)
    ]
    rows += [
        (arg.arg, "keyword-only", default is not None)
        for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return [row for row in rows if row[0] not in {"self", "cls"}]


def actual(function: Callable[..., Any]) -> list[Parameter]:
    parameters = inspect.signature(function).parameters.values()
    rows = [(p.name, KINDS[p.kind], p.default is not inspect.Parameter.empty) for p in parameters]
    return [row for row in rows if row[0] not in {"self", "cls"}]


def test_every_public_name_is_documented_in_the_order_of_all() -> None:
    assert list(SECTIONS) == gateway_middleware.__all__


@pytest.mark.parametrize("name", SECTIONS)
def test_the_signature_is_true(name: str) -> None:
    (statement,) = ast.parse(SECTIONS[name][0]).body
    value = getattr(gateway_middleware, name)
    if isinstance(statement, ast.FunctionDef):
        assert (statement.name, documented(statement)) == (name, actual(value))
    elif isinstance(statement, ast.ClassDef):
        assert statement.name == name
        check_class(statement, value)
    else:
        assert isinstance(statement, ast.AnnAssign), "a function, a class or an annotated name"
        assert ast.unparse(statement) == f"{name}: {type(value).__name__}"


def check_class(statement: ast.ClassDef, value: Any) -> None:
    fields = [ast.unparse(item.target) for item in statement.body if isinstance(item, ast.AnnAssign)]
    assert not fields or fields == list(value.__struct_fields__)
    for method in statement.body:
        if isinstance(method, ast.FunctionDef):
            is_constructor = method.name == "__init__"
            assert documented(method) == actual(value if is_constructor else getattr(value, method.name)), method.name


@pytest.mark.parametrize("name", SECTIONS)
def test_the_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, example = SECTIONS[name]
    assert name in example
    exec(compile(example, f"docs/api.md, {name}", "exec"), {"__name__": name})  # noqa: S102
