"""What `serve` tries before it begins, in a process that ends with it: the server itself stays small."""

from __future__ import annotations

import gc
import os
import traceback
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.commands.compose import compose
from gateway_middleware.core.errors import SettingsError

if TYPE_CHECKING:
    from gateway_middleware.settings import Settings


class Findings(msgspec.Struct, frozen=True):
    """What came of it: complaints, for which nothing may begin, and warnings about prices."""

    complaints: list[str] = []
    warnings: list[str] = []


def try_out(settings: Settings) -> list[str]:
    """Put the whole gateway together once in a forked process; returns what it warns of.

    Raises `SettingsError` as `compose` does, and `SystemExit` where the trial failed otherwise: it has told why.
    """
    gc.freeze()  # of what is read now nothing goes, and a collector would copy every page for each process
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _try_and_end(settings, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not told:
        raise SystemExit(1)
    findings = msgspec.json.decode(told, type=Findings)
    if findings.complaints:
        raise SettingsError(findings.complaints)
    return findings.warnings


def _try_and_end(settings: Settings, writer: int) -> None:
    """In the child: nothing of the parent's is to be run here."""
    status = 1
    gc.disable()
    try:
        findings = _findings(settings)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(msgspec.json.encode(findings))
        status = 0
    except BaseException:  # noqa: BLE001  # whatever it is, it ends the trial, and is told
        traceback.print_exc()
    finally:
        os._exit(status)


def _findings(settings: Settings) -> Findings:
    from gateway_middleware.composition.pricing import price_warnings

    try:
        compose(settings)
    except SettingsError as error:
        return Findings(complaints=list(error.complaints))
    return Findings(warnings=price_warnings(settings))
