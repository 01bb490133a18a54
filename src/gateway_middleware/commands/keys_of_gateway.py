"""`keys create`, `list`, `change`, `rotate`, `revoke`: asked of a running gateway, with the operators' token."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gateway_middleware.core.errors import SettingsError

if TYPE_CHECKING:
    import argparse

TOKEN = "GATEWAY_ADMIN_TOKEN"  # noqa: S105  the name of a variable
ACTIONS = ("create", "list", "change", "rotate", "revoke")
_SECONDS = 15.0
_REFUSED = 400


def add_arguments(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Those of the five actions."""
    create = actions.add_parser("create", help="have a running gateway make a key; it is printed once")
    create.add_argument("--name", help="a label, shown in lists")
    change = actions.add_parser("change", help="give a key of a running gateway other limits, models or another end")
    for action in (create, change):
        action.add_argument("--expires", help="when it ends, such as 2027-01-31T00:00:00Z")
        action.add_argument("--models", nargs="+", metavar="MODEL", help="the only models that it may call")
        action.add_argument("--limit", nargs="+", default=[], metavar="UNIT=LIMIT", help="such as requests=600/minute")
    listing = actions.add_parser("list", help="the keys of a tenant of a running gateway")
    rotate = actions.add_parser("rotate", help="make a new secret of a key; it is printed once")
    rotate.add_argument("--grace", type=float, help="seconds for which the old one works (default: a day)")
    revoke = actions.add_parser("revoke", help="have a running gateway refuse a key from now on")
    for action in (change, rotate, revoke):
        action.add_argument("key_id", help="the part of the key after gw-")
    for action in (create, listing, change, rotate, revoke):
        action.add_argument("--tenant", required=True, help="whose key")
        action.add_argument("--url", required=True, help=f"of the gateway; {TOKEN} is its operators' token")


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer. Raises `SettingsError` without a token, and where the gateway says no."""
    token = os.environ.get(TOKEN, "")
    if not token.isprintable() or not token.isascii() or not token:
        raise SettingsError([f"{TOKEN}: expected the token of the gateway's operators"])
    method, path, body = _request(args)
    url = f"{args.url.rstrip('/')}/v1/admin/tenants/{quote(args.tenant, safe='')}/keys{path}"
    print("\n".join(_lines(args.action, _asked(method, url, body, token))))
    return 0


def _request(args: argparse.Namespace) -> tuple[str, str, dict[str, Any] | None]:
    """Method, path below the tenant's keys, body."""
    if args.action == "list":
        return "GET", "", None
    if args.action == "create":
        return "POST", "", _given(args, name=args.name)
    path = f"/{quote(args.key_id, safe='')}"
    if args.action == "change":
        return "PATCH", path, _given(args)
    if args.action == "rotate":
        return "POST", f"{path}/rotate", {} if args.grace is None else {"grace": args.grace}
    return "DELETE", path, None


def _given(args: argparse.Namespace, **more: str | None) -> dict[str, Any]:
    limits = dict(_limit(text) for text in args.limit)
    given = {**more, "expires": args.expires, "models": args.models, "limits": limits or None}
    return {name: value for name, value in given.items() if value is not None}


def _limit(text: str) -> tuple[str, str | int]:
    unit, _, amount = text.partition("=")
    return unit, int(amount) if unit == "concurrency" and amount.isdigit() else amount


def _asked(method: str, url: str, body: dict[str, Any] | None, token: str) -> dict[str, Any]:
    import httpx  # the other actions of `keys` do without

    headers = {"authorization": f"Bearer {token}"}
    try:
        answer = httpx.request(method, url, json=body, headers=headers, timeout=_SECONDS, trust_env=False)
        document = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SettingsError([f"{url}: {type(error).__name__}: {error}"]) from None
    except ValueError:
        raise SettingsError([f"{url}: HTTP {answer.status_code}, and no JSON: is this the gateway?"]) from None
    if not isinstance(document, dict) or answer.status_code >= _REFUSED:
        raise SettingsError([f"{url}: HTTP {answer.status_code}: {_message(document)}"])
    return document


def _message(document: Any) -> str:
    try:
        return str(document["error"]["message"])
    except (KeyError, TypeError):
        return "an answer that is none of the gateway's"


def _lines(action: str, document: Mapping[str, Any]) -> Iterable[str]:
    if action == "list":
        return [_row(key) for key in document["keys"]] or ["no keys"]
    if action == "revoke":
        return [f"revoked {document['key_id']}"]
    if action == "change":
        return [f"changed {document['key_id']}"]
    if document["stored"] == "memory":
        print("warning: the gateway keeps it in memory only: it is lost when the gateway ends", file=sys.stderr)
    lines = [f"key     {document['key']}", f"key_id  {document['key_id']}"]
    return lines + [f"{name:7} {document[name]}" for name in ("expires",) if document[name]]


def _row(key: Mapping[str, Any]) -> str:
    """Tab-separated: id, name, where it is kept, when it ends."""
    cells = (key["key_id"], key["name"], key["source"], key["expires"])
    return "\t".join("-" if cell is None else str(cell) for cell in cells)
