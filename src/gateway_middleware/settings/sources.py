"""Reads the sources of the configuration: the environment, which wins, and the TOML file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from gateway_middleware.settings.faults import Faults, nearest, shown_name
from gateway_middleware.settings.files import FilesRead
from gateway_middleware.settings.node import Node

PREFIX = "GATEWAY_"
CONFIG_FILE = "GATEWAY_CONFIG_FILE"
# A Kubernetes Service named "gateway" or "gateway-..." leaves these in every pod of its namespace.
_SERVICE_LINK = re.compile(r"GATEWAY_.*(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)")


def file_key(variable: str) -> str:
    """What a variable is called in the TOML file: `GATEWAY_ROUTES` is `routes`."""
    return variable.removeprefix(PREFIX).lower()


def read_sources(
    environ: Mapping[str, str], known: Iterable[str], faults: Faults, files: FilesRead | None = None
) -> dict[str, Node]:
    """Every known variable that is set and not empty. What the environment sets, the file does not.

    `files` notes all that are looked at, those of secrets too.
    """
    names = list(known)
    start = Node(place="", raw=None, faults=faults, environ=environ, files=files or FilesRead())
    nodes = {name: msgspec.structs.replace(start, place=name, raw=environ[name]) for name in names if environ.get(name)}
    _complain_about_unknown(environ, names, faults)
    file = nodes.pop(CONFIG_FILE, None)
    return (_read_file(file, names) | nodes) if file else nodes


def _complain_about_unknown(environ: Mapping[str, str], known: list[str], faults: Faults) -> None:
    for name in sorted(environ.keys() - set(known)):
        if name.startswith(PREFIX) and not _is_service_link(name, environ[name]):
            faults.add(shown_name(name), "unknown variable" + _nearest(name, known))


def _nearest(name: str, known: list[str]) -> str:
    """The prefix that all have in common must not make all of them alike."""
    ours = [other.removeprefix(PREFIX) for other in known if other.startswith(PREFIX)]
    return nearest(name.removeprefix(PREFIX), ours, PREFIX)


def _is_service_link(name: str, value: str) -> bool:
    is_port_link = name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    return is_port_link or _SERVICE_LINK.fullmatch(name[:256]) is not None


def _read_file(node: Node, known: list[str]) -> dict[str, Node]:
    node.files.note(node.raw)
    variables = {file_key(name): name for name in known if name != CONFIG_FILE}
    nodes: dict[str, Node] = {}
    for key, raw in _parse_file(node).items():
        place = f"{shown_name(Path(node.raw).name)}:{shown_name(key)}"
        if key in variables:
            nodes[variables[key]] = msgspec.structs.replace(node, place=place, raw=raw)
        else:
            node.faults.add(place, "unknown key" + nearest(key, list(variables)))
    return nodes


def _parse_file(node: Node) -> dict[str, object]:
    parser = _toml_parser()
    try:
        path = Path(node.raw)
        if path.exists() and not path.is_file():  # a pipe would be waited for, /dev/zero read for ever
            node.fault("expected a TOML file, got something else")
            return {}
        read: dict[str, object] = parser.loads(path.read_bytes().decode())
    except parser.TOMLDecodeError as error:
        node.fault(f"expected TOML: {error}")
    except RecursionError:
        node.fault("expected TOML, got one that is too deep")
    except (OSError, ValueError) as error:
        node.fault(f"expected a TOML file that can be read ({type(error).__name__})")
    else:
        return read
    return {}


def _toml_parser() -> Any:
    """Python's own is that of tomli, which is compiled where it is installed: two and a half times as fast."""
    try:
        return import_module("tomli")
    except ImportError:
        return import_module("tomllib")
