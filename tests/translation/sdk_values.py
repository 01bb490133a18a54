"""Values of the SDKs' own parameter types, drawn by Hypothesis: whatever a client may send."""

from __future__ import annotations

import collections.abc
import functools
import types
import typing
from typing import Any, Literal, Union

import typing_extensions
from hypothesis import strategies as st

_TEXT = st.sampled_from(["alpha", "beta", "gamma"])
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: _TEXT,
    int: st.integers(1, 9),
    float: st.sampled_from([0.25, 0.5, 0.75]),
    bool: st.booleans(),
    object: st.just("any"),
    Any: st.just("any"),
    type(None): st.none(),
}
_LISTS = (list, collections.abc.Iterable, collections.abc.Sequence)
_MAX_DEPTH = 6


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


@st.composite
def values(draw: st.DrawFn, kind: Any, depth: int = 0) -> Any:
    """A value of an annotation, deep ones without what is optional."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _PLAIN:
        return draw(_PLAIN[kind])
    if origin in (typing_extensions.Required, typing_extensions.NotRequired, typing_extensions.Annotated):
        return draw(values(arguments[0], depth))
    if origin is Literal:
        return draw(st.sampled_from(arguments))
    if origin in (Union, types.UnionType):
        return draw(values(draw(st.sampled_from(arguments)), depth))
    if origin in (dict, collections.abc.Mapping):
        return {"key": draw(values(arguments[1], depth + 1))}
    if origin in _LISTS or getattr(origin, "__name__", "") == "SequenceNotStr":
        return [draw(values(arguments[0], depth + 1))]
    if typing_extensions.is_typeddict(kind):
        return draw(objects(kind, depth))
    return draw(_TEXT)


@st.composite
def objects(draw: st.DrawFn, kind: Any, depth: int = 0) -> dict[str, Any]:
    """An object with all members that are required and some of the others."""
    members = {}
    for name, hint in _hints(kind).items():
        is_required = typing.get_origin(hint) is typing_extensions.Required
        if is_required or (depth < _MAX_DEPTH and draw(st.integers(0, 3)) == 0):
            members[name] = draw(values(hint, depth + 1))
    return members
