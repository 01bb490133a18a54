"""The tools of a Responses request, wherever they are offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.translation.responses.client_tools import SEARCH, qualified
from gateway_middleware.translation.vocabulary import Tool

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Fields

ONLY_OPENAI = "is only for providers that have Responses themselves"


def read_tools(fields: Fields, *, are_loaded: bool = False) -> list[Tool]:
    """Those of the member `tools`. Raises `InvalidRequestError` for one that runs at the provider.

    `are_loaded`: a search has found them, so that it says nothing that they were to wait for one.
    """
    tools = []
    for entry in fields.children("tools"):
        for tool, kind, namespace in _entries(entry):
            if are_loaded:
                tool.ignore("defer_loading")
            tools.append(_read_tool(tool, kind, namespace))
    return tools


def together(listed: list[Tool], offered: list[Tool]) -> tuple[Tool, ...]:
    """Those that are listed, and those that items offer, perhaps again: the latest of each name, as others take it."""
    latest = {tool.name: tool for tool in offered}
    return (*(tool for tool in listed if tool.name not in latest), *latest.values())


def _entries(fields: Fields) -> list[tuple[Fields, str | None, str | None]]:
    """A tool with its type, or all of a namespace with that, whose description is then lost."""
    kind = fields.text("type")
    if kind != "namespace":
        return [(fields, kind, None)]
    namespace = fields.needed_text("name")
    return [(tool, tool.text("type"), namespace) for tool in fields.children("tools")]


def _read_tool(fields: Fields, kind: str | None, namespace: str | None) -> Tool:
    if kind == SEARCH and namespace is None and fields.text("execution") == "client":
        return Tool(name=SEARCH, description=fields.text("description"), schema=fields.any("parameters"))
    if kind not in {"function", "custom", None}:
        fields.refuse("type", f"is `{kind}`: a tool that runs at the provider {ONLY_OPENAI}")
    return Tool(
        name=qualified(namespace, fields.needed_text("name")),
        description=fields.text("description"),
        schema=fields.any("parameters"),
        is_strict=fields.flag("strict"),
        is_free_form=kind == "custom",
        form=fields.object("format"),
        cache=fields.object("cache_control"),
    )
