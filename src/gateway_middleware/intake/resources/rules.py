"""Rules by which a value of a request is self-contained, or names what a provider keeps under its account.

They are allow-lists. What no rule knows may be a number, a boolean, or a short word in lower case (`"auto"`): an
identifier that an account gave out is none of these. Everything else that is not known is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn, TypeAlias

import msgspec

from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.intake.strictness import members_of

MAX_REFERENCES = 1000
"""Stored things that one request may name."""
MAX_OBJECTS = 10_000
"""Objects of one request that are looked at one by one, at some 8 microseconds each."""
NULL = msgspec.Raw(b"null")
_EMPTY = frozenset({b"null", b'""', b"[]", b"{}"})
_MAX_PLAIN = 4096
_PLAIN = re.compile(
    rb'(?:[\s\[\]{},:0-9.eE+-]++|true|false|null|"[a-z]{0,32}"|"[A-Za-z0-9_-]{1,64}"(?=\s*:))*+', re.ASCII
)
"""JSON of numbers, booleans and words. Names of members are not identifiers; texts with escapes do not match."""
_DATED = re.compile(r"_\d{4}_?\d{2}_?\d{2}$")
_SCHEMES = ("http://", "https://", "data:")
_MAX_SHOWN = 64


class _Object(msgspec.Struct):
    """Any JSON object."""


_decode_text = msgspec.json.Decoder(str).decode
_decode_objects = msgspec.json.Decoder(list[_Object]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode

Fields: TypeAlias = Mapping[str, msgspec.Raw]


class Scan:
    """One look at a request: notes what it refers to, and refuses what nobody can answer for.

    `references` are the identifiers that the tenant must own, each with the top-level field that holds it; `approvals`
    those of requests for approval that it answers, `requests` those that it brings along itself.
    """

    __slots__ = ("approvals", "field", "left", "member", "references", "requests")

    def __init__(self) -> None:
        self.field = self.member = ""
        self.references: dict[str, str] = {}
        self.approvals: dict[str, str] = {}
        self.requests: set[str] = set()
        self.left = MAX_OBJECTS

    def refer(self, resource_id: str) -> None:
        """The request goes on only for the owner of this."""
        self.references.setdefault(resource_id, self.field)
        if len(self.references) > MAX_REFERENCES:
            raise InvalidRequestError(
                f"The request refers to more than {MAX_REFERENCES} stored things.", param=self.field
            )

    def close(self) -> None:
        """All of the request has been looked at."""
        for resource_id, field in self.approvals.items():
            if resource_id not in self.requests:
                self.field = field
                self.refer(resource_id)

    def refuse(self, what: str) -> NoReturn:
        """`what` follows "The field `input`"."""
        raise InvalidRequestError(
            f"The field `{self.field}` {what}. Tenants of this gateway share provider accounts, so that a request may "
            "only hold what is complete in itself or known to be the tenant's own. Its operator can give a tenant an "
            "account of its own, or set `stateless` for a provider that keeps nothing.",
            param=self.field,
            code="shared_resource",
        )

    def refuse_member(self) -> NoReturn:
        """Refuse what the member at hand holds."""
        inside = "names" if self.member == self.field else f"holds `{self.member}`, which names"
        self.refuse(f"{inside} a stored resource of a shared provider account, or what is not known to be none")


Rule: TypeAlias = Callable[[msgspec.Raw, Scan], None]


def anything(raw: msgspec.Raw, scan: Scan) -> None:
    """The client's own content, in which no provider looks for resources: texts, schemas, arguments, documents."""


def plain(raw: msgspec.Raw, scan: Scan) -> None:
    """Numbers, booleans and short words, in lists and objects too: the rule for what is not known."""
    view = memoryview(raw)
    if view.nbytes > _MAX_PLAIN or _PLAIN.fullmatch(view) is None:
        scan.refuse_member()


def nothing(raw: msgspec.Raw, scan: Scan) -> None:
    """Only ever an identifier of the account, whose owner nobody knows."""
    if not _is_empty(raw):
        scan.refuse_member()


def _is_empty(raw: msgspec.Raw) -> bool:
    """Whether nothing is there: what a provider may fill in from its store."""
    view = memoryview(raw)
    return view.nbytes <= _MAX_PLAIN and b"".join(bytes(view).split()) in _EMPTY


def reference(raw: msgspec.Raw, scan: Scan) -> None:
    """An identifier whose owner is known, if anybody owns it."""
    scan.refer(text_of(raw, scan))


def approval(raw: msgspec.Raw, scan: Scan) -> None:
    """An identifier of a request for approval: one of this conversation, which the request brings along or goes on."""
    scan.approvals[text_of(raw, scan)] = scan.field


Address: TypeAlias = Annotated[str, msgspec.Meta(pattern="^(?:https?://|data:)")]
"""What `address` takes, as a type, and in lower case."""


def address(raw: msgspec.Raw, scan: Scan) -> None:
    """A URL, or the data itself in a `data:` URL."""
    if not text_of(raw, scan)[:8].lower().startswith(_SCHEMES):
        scan.refuse_member()


def text_of(raw: msgspec.Raw, scan: Scan) -> str:
    """Raises `InvalidRequestError` for what is no text."""
    try:
        return _decode_text(raw)
    except (ValueError, RecursionError):
        raise InvalidRequestError(
            f"In the field `{scan.field}`, `{scan.member}` must be a string.", param=scan.field
        ) from None


def members(raw: msgspec.Raw, scan: Scan) -> Fields:
    """The members of an object. Raises `InvalidRequestError`, also where one stands twice."""
    scan.left -= 1
    if scan.left < 0:
        raise InvalidRequestError(f"The field `{scan.field}` holds too many elements to be checked.", param=scan.field)
    try:
        return members_of(bytes(raw))
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"The field `{scan.field}` holds what cannot be checked.", param=scan.field) from None


class Shaped:
    """A rule for each shape of a value; a shape without one is judged as `plain`."""

    __slots__ = ("_rules",)

    def __init__(self, *, text: Rule = plain, items: Rule = plain, members: Rule = plain) -> None:
        self._rules = {ord('"'): text, ord("["): items, ord("{"): members}

    def __call__(self, raw: msgspec.Raw, scan: Scan) -> None:
        self._rules.get(memoryview(raw)[0], plain)(raw, scan)


class Members:
    """An object whose members have rules; others are judged as `plain`.

    `content`: where an identifier (`id`) stands without any of these, it stands for what the provider has stored under
    it. `asks`: it is a request for approval.
    """

    __slots__ = ("_asks", "_content", "_rules")

    def __init__(self, rules: Mapping[str, Rule], *, content: tuple[str, ...] = (), asks: bool = False) -> None:
        self._rules = rules
        self._content = content
        self._asks = asks

    def __call__(self, raw: msgspec.Raw, scan: Scan) -> None:
        self.check(members(raw, scan), scan)

    def check(self, fields: Fields, scan: Scan) -> None:
        """The same for an object whose members have been read."""
        for name, raw in fields.items():
            rule = self._rules.get(name, plain)
            if rule is not anything and name != "type" and raw != NULL:
                scan.member = name[:_MAX_SHOWN]
                rule(raw, scan)
        if self._content and (resource_id := fields.get("id", NULL)) != NULL:
            self._identify(resource_id, fields, scan)

    def _identify(self, resource_id: msgspec.Raw, fields: Fields, scan: Scan) -> None:
        scan.member = "id"
        if all(_is_empty(fields.get(name, NULL)) for name in self._content):
            scan.refer(text_of(resource_id, scan))
        elif self._asks:
            scan.requests.add(text_of(resource_id, scan))


class Kinds:
    """An object whose `type` says what it is: one of those that are known, with the date of a version or without.

    `untyped` is the rule for an object without a type.
    """

    __slots__ = ("_kinds", "_untyped")

    def __init__(self, kinds: Mapping[str, Rule], *, untyped: Rule | None = None) -> None:
        self._kinds = kinds
        self._untyped = untyped

    def __call__(self, raw: msgspec.Raw, scan: Scan) -> None:
        fields = members(raw, scan)
        kind = fields.get("type", NULL)
        rule = self._untyped if kind == NULL else self._known(kind, scan)
        if rule is None:
            scan.refuse("holds something without a type")
        if isinstance(rule, Members):
            rule.check(fields, scan)
        else:
            rule(raw, scan)

    def _known(self, raw: msgspec.Raw, scan: Scan) -> Rule:
        scan.member = "type"
        kind = text_of(raw, scan)
        rule = self._kinds.get(kind) or self._kinds.get(_DATED.sub("", kind))
        if rule is None:
            shown = kind if kind.isascii() and kind.isprintable() else "?"
            scan.refuse(f"holds something of type `{shown[:_MAX_SHOWN]}`, which is not known to be complete in itself")
        return rule


class Each:
    """A list of objects of one rule."""

    __slots__ = ("_rule",)

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def __call__(self, raw: msgspec.Raw, scan: Scan) -> None:
        try:
            _decode_objects(raw)  # lists of numbers end here: a million raw values would be costly
            items = _decode_items(raw)
        except (ValueError, RecursionError):
            raise InvalidRequestError(
                f"The field `{scan.field}` must hold a list of objects.", param=scan.field
            ) from None
        for item in items:
            self._rule(item, scan)


class Quick:
    """A rule behind types of common values that hold nothing to look at: what fits one of them needs no more.

    Such a type must know every member of its objects and allow no other, so that it is an allow-list as well. A member
    that stands twice is read twice, and has to fit both times.
    """

    __slots__ = ("_decoders", "_rule")

    def __init__(self, *common: Any, rule: Rule) -> None:
        self._decoders = [msgspec.json.Decoder(kind).decode for kind in common]
        self._rule = rule

    def __call__(self, raw: msgspec.Raw, scan: Scan) -> None:
        for decode in self._decoders:
            try:
                decode(raw)
            except (ValueError, RecursionError):
                continue
            return
        self._rule(raw, scan)


def all_of(names: str, rule: Rule = anything) -> dict[str, Rule]:
    """The same rule for each of these names, which blanks separate."""
    return dict.fromkeys(names.split(), rule)
