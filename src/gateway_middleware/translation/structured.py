"""Structured output for models that lack it: a tool that the model must call, and whose call is the answer."""

from __future__ import annotations

from gateway_middleware.translation.vocabulary import OutputFormat, Tool

ANSWER_TOOL = "json_answer"
JSON_INSTRUCTION = "Answer with one JSON object and nothing else: no prose, no code fence."


def answer_tool(output: OutputFormat) -> Tool:
    """The tool in the place of an output format with a schema."""
    return Tool(
        name=ANSWER_TOOL,
        description=output.description or "Gives the final answer in the form that was asked for.",
        schema=output.schema,
    )
