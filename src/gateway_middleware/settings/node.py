"""A configuration value together with its place (variable, file, member), so that complaints can name it.

A reader that meets a fault notes it and goes on with a stand-in, so that one reading finds every fault. Nobody sees the
stand-ins: `Settings.from_env` raises when there was a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from gateway_middleware.core.secret import Secret
from gateway_middleware.settings.faults import Faults, nearest, shown_name
from gateway_middleware.settings.files import FilesRead

_PRINTABLE = re.compile(r"[\x21-\x7e]{1,4096}")
_REFERENCE = re.compile(r"env:[A-Z_][A-Z0-9_]*|file:[\x20-\x7e]+")
_MAX_SECRET_FILE = 65536
_MAX_SUFFIXES = 256


class _Unresolved(Exception):  # noqa: N818
    """A reference leads nowhere; the text says why."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """`raw` is text from the environment, or what TOML or JSON made of it.

    All nodes of one reading share `files`, which notes every file that is looked at.
    """

    place: str
    raw: Any
    faults: Faults
    environ: Mapping[str, str]
    files: FilesRead = msgspec.field(default_factory=FilesRead)
    is_hidden: bool = False

    def fault(self, expectation: str) -> None:
        """Complain about this value."""
        if self.is_hidden and isinstance(self.raw, str) and _REFERENCE.fullmatch(self.raw):
            self.faults.add(f"{self.place}={self.raw}", expectation)
        elif self.is_hidden:
            self.faults.add_hidden(self.place, expectation)
        else:
            self.faults.add_value(self.place, self.raw, expectation)

    def missing(self, name: str, expectation: str) -> None:
        """Complain about a member that is not there."""
        self.faults.add(f"{self.place}.{name}", f"missing: {expectation}")

    def hidden(self) -> Node:
        """The same value, never to be shown."""
        return msgspec.structs.replace(self, is_hidden=True)

    def _child(self, suffix: str, raw: object) -> Node:
        return Node(
            place=self.place + suffix,
            raw=raw,
            faults=self.faults,
            environ=self.environ,
            files=self.files,
            is_hidden=self.is_hidden,
        )

    def structured(self) -> Node:
        """The value as an object: text is read as JSON, whose repeated names are faults."""
        if isinstance(self.raw, str):
            return msgspec.structs.replace(self, raw=self._json(self.raw))
        return self

    def _json(self, text: str) -> object:
        try:
            return _decode(text)
        except RecursionError:
            self.faults.add_hidden(self.place, "expected a JSON object, got one that is too deep")
        except ValueError as error:
            self.faults.add_hidden(self.place, f"expected a JSON object: {error}")
        return {}

    def entries(self) -> dict[str, Node]:
        """The members of an object, whatever their names."""
        if not isinstance(self.raw, dict):
            self.fault("expected an object")
            return {}
        return {str(name): self._child(_suffix(str(name)), raw) for name, raw in self.raw.items()}

    def members(self, known: Iterable[str]) -> dict[str, Node]:
        """The members of an object whose names are `known`; others are faults."""
        members = self.entries()
        names = list(known)
        for name in [name for name in members if name not in names]:
            near = nearest(name, names) or f"; expected one of {', '.join(names)}"
            self.faults.add(members.pop(name).place, f"unknown name{near}")
        return members

    def items(self, expectation: str) -> list[Node]:
        """The items of a list, or the value itself as the only one where it is text."""
        if isinstance(self.raw, list) and self.raw:
            return [self._child(f"[{i}]", raw) for i, raw in enumerate(self.raw)]
        if isinstance(self.raw, str):
            return [self]
        self.fault(expectation)
        return []

    def reference(self) -> tuple[str, str] | None:
        """Text, after `env:NAME` and `file:/path` are followed, and where it came from. None after a fault."""
        if not isinstance(self.raw, str):
            self.fault("expected text, env:NAME or file:/path")
            return None
        if not self.raw.startswith(("env:", "file:")):
            return self.raw, self.place
        try:
            return self._follow(self.raw), self.raw
        except _Unresolved as error:
            self.hidden().fault(str(error))
            return None

    def _follow(self, reference: str) -> str:
        kind, _, target = reference.partition(":")
        if kind == "file":
            self.files.note(target)
        text = (self.environ.get(target, "") if kind == "env" else _read_file(target)).rstrip("\r\n")
        if not text:
            raise _Unresolved("this variable is not set" if kind == "env" else "this file is empty")
        return text

    def secret(self, *, at_least: int = 1) -> Secret:
        """A credential: printable ASCII without spaces."""
        hidden = self.hidden()
        reference = hidden.reference()
        if reference is None:
            return Secret("", source=self.place)
        value, source = reference
        self.faults.hide(value)
        if not _PRINTABLE.fullmatch(value):
            hidden.fault("expected printable ASCII without spaces or line ends")
        elif len(value) < at_least:
            hidden.fault(f"expected at least {at_least} characters")
        return Secret(value, source=source)


@lru_cache(_MAX_SUFFIXES)
def _suffix(name: str) -> str:
    """Objects of one kind have the same names in them."""
    return f".{shown_name(name)}"


def _read_file(path: str) -> str:
    try:
        if not Path(path).is_file():
            raise _Unresolved("expected a file that can be read")
        with Path(path).open("rb") as file:
            content = file.read(_MAX_SECRET_FILE + 1)
        if len(content) > _MAX_SECRET_FILE:
            raise _Unresolved(f"expected a file of at most {_MAX_SECRET_FILE} bytes")
        return content.decode()
    except (OSError, ValueError) as error:
        raise _Unresolved(f"expected a file that can be read ({type(error).__name__})") from None


def _decode(text: str) -> object:
    """JSON that says where it is wrong and refuses what the standard leaves open: a name twice, NaN."""
    import json

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the name {shown_name(twice)} stands twice")
        return members

    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is not a number")

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
