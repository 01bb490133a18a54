"""`keys`: make a tenant's key, or the digest of one that exists, here or at a running gateway."""

from __future__ import annotations

import json
import secrets
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway_middleware.commands import keys_of_gateway
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import key_secret
from gateway_middleware.tenancy.keys import digest, hmac_digest, new_key

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    new = actions.add_parser("new", help="make a key; it is printed once and stored nowhere")
    new.add_argument("--tenant", default="acme", help="whom the key is for (default: acme)")
    hashed = actions.add_parser("hash", help="read a key from standard input, print its digest")
    for action in (new, hashed):
        action.add_argument("--hmac", action="store_true", help="an HMAC digest under GATEWAY_KEY_SECRET")
    keys_of_gateway.add_arguments(actions)


def run(args: argparse.Namespace) -> int:
    """Raises `SettingsError` when `--hmac` finds no secret, or there is no key on standard input."""
    if args.action in keys_of_gateway.ACTIONS:
        return keys_of_gateway.run(args)
    make_digest = _digest_under_secret() if args.hmac else digest
    if args.action == "hash":
        print(make_digest(_read_key()))
    else:
        print("\n".join(describe_new(args.tenant, make_digest)))
    return 0


def describe_new(
    tenant: str,
    make_digest: Callable[[bytes], str],
    token_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> list[str]:
    """A new key in lines: the key, its digest, and a line for the shell that lets it in."""
    key = new_key(token_bytes)
    hashed = make_digest(key.encode())
    tenants = json.dumps({tenant: {"keys": [hashed]}})
    return [f"key     {key}", f"digest  {hashed}", f"export GATEWAY_TENANTS={shlex.quote(tenants)}"]


def _digest_under_secret() -> Callable[[bytes], str]:
    key = key_secret()
    if key is None:
        raise SettingsError(["GATEWAY_KEY_SECRET: not set; expected a secret for --hmac"])
    secret = key.reveal().encode()
    return lambda key: hmac_digest(key, secret)


def _read_key() -> bytes:
    """The first line of standard input. A key on the command line would stand in the process table."""
    key = sys.stdin.buffer.readline(8192).rstrip(b"\r\n")
    if not key:
        raise SettingsError(["standard input: empty; expected a key"])
    return key
