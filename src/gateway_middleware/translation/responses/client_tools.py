"""What a Responses client calls its tools, which have one plain name each at everybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

SEARCH = "tool_search"
"""The type of a tool that looks for further tools, and its name elsewhere; here it has none."""


class ClientTools(msgspec.Struct, frozen=True):
    """`namespaces` has namespace and name of each tool in one, by its plain name. `has_search`: there is a search."""

    namespaces: dict[str, tuple[str, str]]
    has_search: bool

    def prefix(self, name: str, *, is_free_form: bool) -> str:
        """How the ids of calls of a tool begin."""
        if self.is_search(name):
            return "tsc"
        return "ctc" if is_free_form else "fc"

    def is_search(self, name: str) -> bool:
        """Whether a tool, by its plain name, is the search."""
        return self.has_search and name == SEARCH


def qualified(namespace: str | None, name: str) -> str:
    """The plain name for a tool of a namespace."""
    return name if namespace is None else f"{namespace}__{name}"


def client_tools(request: dict[str, Any]) -> ClientTools:
    """Those of a request that has been read, so that its forms are right."""
    entries = list(_entries(request))
    namespaces = {
        qualified(entry["name"], tool["name"]): (entry["name"], tool["name"])
        for entry in entries
        if entry.get("type") == "namespace"
        for tool in entry.get("tools") or ()
    }
    return ClientTools(namespaces, any(entry.get("type") == SEARCH for entry in entries))


def offers_tools(kind: str | None, execution: object) -> bool:
    """Whether an item offers tools of the client in the course of a conversation."""
    return kind == "additional_tools" or (kind == "tool_search_output" and execution == "client")


def _entries(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from request.get("tools") or ()
    items = request.get("input")
    for item in items if isinstance(items, list) else ():
        if offers_tools(item.get("type"), item.get("execution")):
            yield from item.get("tools") or ()
