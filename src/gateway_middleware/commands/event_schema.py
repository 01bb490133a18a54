"""`event-schema`: the JSON Schema of what a usage event says, for `dataschema` and for whoever reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway_middleware.metering.delivery.cloudevents import schema

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(_: argparse.Namespace) -> int:
    """Print it."""
    print(json.dumps(schema(), indent=2))
    return 0
