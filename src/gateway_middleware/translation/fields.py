"""Reading JSON so that nothing is lost unnoticed."""

from __future__ import annotations

from typing import Any, NoReturn

from gateway_middleware.core.errors import TranslationError


class Losses:
    """What of a request the other dialect cannot take, by the client's own names, each once.

    A name is a path into the body, lists without their indices: `messages[].name`. `names` gives the client's name of
    what an encoder only knows by the vocabulary's.
    """

    __slots__ = ("_dropped", "_names")

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._dropped: dict[str, None] = {}

    @property
    def dropped(self) -> tuple[str, ...]:
        return tuple(self._dropped)

    def drop(self, name: str) -> None:
        """Note a loss, by the client's path or the vocabulary's name."""
        self._dropped[self._names.get(name, name)] = None

    def refuse(self, name: str, reason: str) -> NoReturn:
        """Raise `InvalidRequestError` that names the field: `reason` completes "The field `x` ..."."""
        refuse(self._names.get(name, name), reason)


def refuse(path: str, reason: str) -> NoReturn:
    """Raise `TranslationError`: `reason` completes "The field `x` ..."."""
    raise TranslationError(f"The field `{path}` {reason}.", param=path)


class Fields:
    """One JSON object of a request, whose members are taken one by one.

    `close` lists as dropped what nobody took, here and in the objects below that were opened. A member that is null
    counts as absent. Every method raises `InvalidRequestError` that names a member of a wrong
    type.
    """

    __slots__ = ("_children", "_left", "_losses", "_path")

    def __init__(self, value: Any, path: str, losses: Losses) -> None:
        if not isinstance(value, dict):
            refuse(path or "body", "must be an object")
        self._left = {name: member for name, member in value.items() if member is not None}
        self._path = path
        self._losses = losses
        self._children: list[Fields] = []

    def at(self, name: str) -> str:
        """The path of a member."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        return name in self._left

    def any(self, name: str) -> Any:
        """The member, whatever it is."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        value: str | None = self._typed(name, str, "a string")
        return value

    def needed_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            refuse(self.at(name), "is missing")
        return value

    def integer(self, name: str) -> int | None:
        value = self.number(name)
        if value is not None and value != int(value):
            refuse(self.at(name), "must be an integer")
        return None if value is None else int(value)

    def number(self, name: str) -> float | None:
        value = self._left.pop(name, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            refuse(self.at(name), "must be a number")
        return value

    def flag(self, name: str) -> bool | None:
        value: bool | None = self._typed(name, bool, "a boolean")
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        value: dict[str, Any] | None = self._typed(name, dict, "an object")
        return value

    def items(self, name: str) -> list[Any]:
        return self._typed(name, list, "an array") or []

    def texts(self, name: str) -> tuple[str, ...]:
        values = self.items(name)
        if not all(isinstance(value, str) for value in values):
            refuse(self.at(name), "must be an array of strings")
        return tuple(values)

    def nested(self, name: str) -> Fields:
        """The members of a member that is an object; none where it is absent."""
        return self.child(name, self.object(name) or {})

    def child(self, name: str, value: Any) -> Fields:
        """The members of a value that was taken as `name`."""
        child = Fields(value, self.at(name), self._losses)
        self._children.append(child)
        return child

    def children(self, name: str) -> list[Fields]:
        """The objects of a member that is a list."""
        return [self.child(f"{name}[]", value) for value in self.items(name)]

    def list_is_given(self, name: str) -> bool:
        """Whether a member is a list that is not empty."""
        return bool(self._left.get(name)) and isinstance(self._left[name], list)

    def put_back(self, name: str, value: Any) -> None:
        """Undo a take."""
        if value is not None:
            self._left[name] = value

    def lose(self, name: str) -> None:
        """List a member as dropped."""
        self._losses.drop(self.at(name))

    def drop_whole(self, kind: str) -> None:
        """List this whole object, by its kind, as dropped."""
        self._left.clear()
        self._losses.drop(f"{self._path}.{kind}")

    def ignore(self, *names: str) -> None:
        """Take what says nothing to any provider."""
        for name in names:
            self._left.pop(name, None)

    def drop(self, *names: str) -> None:
        """Take members that the vocabulary has no word for, and list them unless they are empty or off."""
        for name in names:
            value = self._left.pop(name, None)
            if value is not None and value is not False and value not in ("", [], {}):
                self._losses.drop(self.at(name))

    def ignore_direct_caller(self) -> None:
        """Take a `caller` that says that the model itself called."""
        if self._left.get("caller") == {"type": "direct"}:
            del self._left["caller"]

    def refuse(self, name: str, reason: str) -> NoReturn:
        refuse(self.at(name), reason)

    def close(self) -> None:
        self.drop(*tuple(self._left))
        for child in self._children:
            child.close()

    def _typed(self, name: str, kind: type[Any], expected: str) -> Any:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, kind):
            refuse(self.at(name), f"must be {expected}")
        return value
