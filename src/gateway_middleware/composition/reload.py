"""Other settings for a running gateway: all parts take them, or none does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import InvalidRequestError, SettingsError

if TYPE_CHECKING:
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.composition.part import Part
    from gateway_middleware.settings import Settings
    from gateway_middleware.settings.files import FileVersion


class Reload:
    """Two phases: every part prepares, then every part commits. `reread` gives the settings of the moment."""

    def __init__(self, config: LiveConfig, parts: Sequence[Part], *, reread: Callable[[], Settings] | None) -> None:
        self._config = config
        self._parts = parts
        self._reread = reread
        self.files: Sequence[FileVersion] = config.settings.files

    @property
    def can_read(self) -> bool:
        """Whether there is a source to read settings from again."""
        return self._reread is not None

    def read(self) -> Settings:
        """The settings of the moment. `files` says which versions were looked at, also where they are refused.

        Raises `SettingsError`, and `InvalidRequestError` where only the host knows the settings.
        """
        if self._reread is None:
            raise InvalidRequestError("This gateway has its settings from its host, which alone can change them.")
        try:
            settings = self._reread()
        except SettingsError as error:
            self.files = error.files
            raise
        self.files = settings.files
        return settings

    def apply(self, settings: Settings | None = None) -> dict[str, Any]:
        """Take other settings while calls are in flight: each call keeps the route it began with.

        Without settings they are read again. Returns the new `config_hash`, what `changed`, and what of that waits
        for a restart (`need_restart`). Raises `SettingsError`, and then nothing has changed.
        """
        new = settings or self.read()
        changed = _differences(self._config.settings, new)
        for commit in [part.prepare(new) for part in self._parts]:
            commit()
        return {
            "config_hash": new.config_hash,
            "changed": sorted(changed),
            "need_restart": sorted(changed - self._taken),
        }

    def in_force(self, new: Settings) -> Settings:
        """What a gateway of the settings of this one goes by once it has taken others: the rest needs a restart."""
        return msgspec.structs.replace(self._config.settings, **{name: getattr(new, name) for name in self._taken})

    @property
    def _taken(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.takes for part in self._parts))


def _differences(before: Settings, after: Settings) -> set[str]:
    names = set(after.__struct_fields__) - {"given", "files"}
    return {name for name in names if getattr(after, name) != getattr(before, name)}
