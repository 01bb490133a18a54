"""Structured output for models that lack it: a tool that the model must call, and whose call is the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.translation.vocabulary import OutputFormat, Tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.translation.fields import Fields

ANSWER_TOOL = "json_answer"
JSON_INSTRUCTION = "Answer with one JSON object and nothing else: no prose, no code fence."


def answer_tool(output: OutputFormat) -> Tool:
    """The tool in the place of an output format with a schema."""
    return Tool(
        name=ANSWER_TOOL,
        description=output.description or "Gives the final answer in the form that was asked for.",
        schema=output.schema,
    )


def read_format(fields: Fields, described_in: Callable[[Fields], Fields]) -> OutputFormat | None:
    """The form of an answer as OpenAI asks for it; `described_in` gives the object that describes a schema."""
    kind = fields.text("type")
    if kind == "json_object":
        return OutputFormat()
    if kind != "json_schema":
        if kind not in {None, "text"}:
            fields.refuse("type", "must be text, json_object or json_schema")
        return None
    schema = described_in(fields)
    return OutputFormat(
        name=schema.text("name") or "output",
        description=schema.text("description"),
        schema=schema.object("schema"),
        is_strict=schema.flag("strict"),
    )
