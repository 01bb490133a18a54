"""Readers of single values (integers, seconds, URLs, ...). A bad value is a noted fault and a stand-in is returned."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address

import msgspec

from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.secret import Secret
from gateway_middleware.redis.uri import parse_uri
from gateway_middleware.settings.node import Node

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?"
_PLAIN_HOST = re.compile(_HOST)
_URI_REFERENCE = re.compile(r"[A-Za-z0-9._~:/?#@!$&()*+,;=%-]{1,256}")
_URL = re.compile(
    rf"(https?)://({_HOST}|\[[0-9A-Fa-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?((?:/[A-Za-z0-9._~%!$&'()*+,;=:-]*)*)"
)
_SPEND = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})? ?(/|per) ?([1-9][0-9]{0,3} ?)?(second|minute|hour|day|month|year)s?")
_REDIS = "redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster://"
_MAX_LENGTH = 2048
_A_DAY = 86400.0
_MAX_LIMITS = 1024
"""A hundred thousand tenants have few different limits."""


def text(node: Node, pattern: re.Pattern[str], expectation: str) -> str:
    """Text that matches the whole pattern."""
    if isinstance(node.raw, str) and len(node.raw) <= _MAX_LENGTH and pattern.fullmatch(node.raw):
        return node.raw
    node.fault(expectation)
    return ""


def integer(node: Node, low: int, high: int) -> int:
    raw = node.raw
    if isinstance(raw, str) and _INTEGER.fullmatch(raw):
        raw = int(raw)
    if type(raw) is int and low <= raw <= high:
        return raw
    node.fault(f"expected an integer from {low} to {high}")
    return low


def seconds(node: Node) -> float:
    raw = node.raw
    if isinstance(raw, str) and _NUMBER.fullmatch(raw):
        raw = float(raw)
    if type(raw) in {int, float} and math.isfinite(raw) and 0 < raw <= _A_DAY:
        return float(raw)
    node.fault("expected seconds: a number above 0, at most 86400")
    return 1.0


def pause(node: Node) -> float:
    """Seconds that may be 0."""
    return 0.0 if node.raw in {0, "0"} else seconds(node)


def ratio(node: Node) -> float:
    """A share above 0, at most 1."""
    raw = node.raw
    if isinstance(raw, str) and _NUMBER.fullmatch(raw):
        raw = float(raw)
    if type(raw) in {int, float} and 0 < raw <= 1:
        return float(raw)
    node.fault("expected a number above 0, at most 1")
    return 1.0


def boolean(node: Node) -> bool:
    value = node.raw if isinstance(node.raw, bool) else _BOOLEANS.get(str(node.raw).lower())
    if value is None:
        node.fault("expected true or false")
        return True  # the permissive stand-in: no second complaint follows from it
    return value


def choice(node: Node, names: Sequence[str]) -> str:
    if isinstance(node.raw, str) and node.raw in names:
        return node.raw
    node.fault(f"expected one of {', '.join(names)}")
    return names[0]


def path(node: Node) -> str:
    if isinstance(node.raw, str) and node.raw.isprintable() and len(node.raw) <= _MAX_LENGTH:
        return node.raw
    node.fault("expected the path of a file")
    return ""


def host(node: Node) -> str:
    if isinstance(node.raw, str) and (_PLAIN_HOST.fullmatch(node.raw) or _is_address(node.raw)):
        return node.raw
    node.fault("expected a host name or an IP address to listen on")
    return ""


def uri_reference(node: Node) -> str:
    """What may stand for a thing in a CloudEvent: an address, a path, a name in reverse order of domains."""
    return text(node, _URI_REFERENCE, "expected a URI reference such as /model-gateway/eu, at most 256 characters")


def url(node: Node) -> str:
    """An http or https URL without user, query and fragment; a slash at its end is dropped."""
    parts = _URL.fullmatch(node.raw) if isinstance(node.raw, str) and len(node.raw) <= _MAX_LENGTH else None
    if parts and _is_host(parts[2]) and _is_port(parts[3]) and _is_plain_path(parts[4]):
        return parts[0].rstrip("/")
    # Whatever stands before "@" or after "?" may be a credential.
    at_fault = node.hidden() if any(c in str(node.raw) for c in "@?#") else node
    at_fault.fault("expected http(s)://host[:port][/path], without user, query or fragment")
    return ""


def _is_host(name: str) -> bool:
    return _is_address(name[1:-1]) if name.startswith("[") else True


def _is_port(port: str | None) -> bool:
    return port is None or 0 < int(port) <= 65535


def _is_plain_path(path: str) -> bool:
    return "//" not in path and ".." not in path


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether a host name or IP address (without brackets) is this machine by definition."""
    return address.lower() == "localhost" or (_is_address(address) and ip_address(address).is_loopback)


def host_of(address: str) -> str:
    """The host of a URL that `url` has accepted, without brackets."""
    parts = _URL.fullmatch(address)
    return parts[2].strip("[]") if parts else ""


def port_of(address: str) -> int:
    """The port of a URL that `url` has accepted."""
    parts = _URL.fullmatch(address)
    default = 443 if address.startswith("https:") else 80
    return int(parts[3]) if parts and parts[3] else default


def limit(node: Node) -> str:
    """One or several rates in the notation of `limits`: `600/minute`, `10/second;1000/hour`."""
    if isinstance(node.raw, str) and len(node.raw) <= 256 and _is_limit(node.raw):
        return node.raw
    node.fault("expected a limit such as 600/minute or 10/second;1000/hour")
    return ""


@lru_cache(_MAX_LIMITS)
def _is_limit(text: str) -> bool:
    from limits import parse_many

    try:
        return bool(parse_many(text))
    except ValueError:
        return False


def spend(node: Node) -> str:
    return text(node, _SPEND, "expected an amount per period such as 100/month or 2.50/day")


def storage_uri(node: Node) -> Secret:
    """May hold a password, so it is never shown."""
    secret = node.secret()
    reason = _redis_fault(secret.reveal()) if secret.reveal() not in {"", "memory://"} else ""
    if reason:
        node.hidden().fault(f"expected memory:// or {_REDIS} ({reason})")
    return secret


def _redis_fault(uri: str) -> str:
    """Why a text is no URI of Redis; empty where it is one."""
    try:
        parse_uri(uri)
    except ValueError as error:
        return str(error)
    return "a host is missing" if uri.endswith("://") else ""


def timeouts(node: Node, start: Timeouts) -> Timeouts:
    """`start` with the deadlines that are named here."""
    members = node.members(Timeouts.__struct_fields__)
    return msgspec.structs.replace(start, **{name: seconds(member) for name, member in members.items()})
