"""The other processes of the fleet: the workers of this server, and replicas."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway_middleware.composition.part import Fixed
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.fleet.directory import DirectoryStore
from gateway_middleware.fleet.member import FleetMember
from gateway_middleware.fleet.owners import StoredOwners

if TYPE_CHECKING:
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.fleet.entries import Process
    from gateway_middleware.fleet.store import FleetStore
    from gateway_middleware.settings import Settings

_log = logging.getLogger("gateway_middleware")
_ALONE = (
    "Model Gateway: worker processes without GATEWAY_JOURNAL and without GATEWAY_FLEET_DIRECTORY know nothing of each "
    "other: reloads, revocations, commands to breakers and stored responses reach one of them only. HINT: set one."
)


class Fleet(FleetMember, Fixed):
    """This process's part in the fleet; without `stores` it is alone, and everything told is told to nobody.

    `owners` knows who owns what is stored at providers.
    """

    def __init__(self, stores: Sequence[FleetStore], config: LiveConfig, clocks: Clocks, *, workers: int = 1) -> None:
        super().__init__(stores, config_hash=lambda: config.config_hash, clock=clocks.monotonic, wall=clocks.wall)
        self.owners = StoredOwners(stores, clock=clocks.monotonic)
        self._workers = workers

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Hear what the others said before this process serves, then stay in touch."""
        if self.is_alone and (self._workers > 1 or multiprocessing.parent_process() is not None):
            _log.warning(_ALONE)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(super().lifespan())
            await stack.enter_async_context(self.owners.lifespan())
            yield

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to tell."""
        return not self.links

    @property
    def name(self) -> str:
        """Of this process, for the logs of others."""
        return f"{self.process.host}/{self.process.pid}"

    def place_of(self, path: str) -> str:
        """A name for a local file that no process elsewhere has for another one."""
        return f"{self.process.machine or self.process.host} {Path(path).resolve()}"

    def health(self) -> dict[str, Any]:
        """The part of `/v1/health`: who lives, and whether all have the same configuration."""
        processes = [self.process, *self.others()]
        config_hash = self.process.config_hash
        rows = [{**row_of(p), "standing": standing(p.config_hash, config_hash)} for p in processes]
        return {
            "stores": {link.store.name: "away" if link.is_away else "ok" for link in self.links},
            "config": overall(rows),
            "processes": rows,
        }


def row_of(process: Process) -> dict[str, Any]:
    """What is shown of a process."""
    return {
        "host": process.host,
        "pid": process.pid,
        "started": datetime.fromtimestamp(process.started, UTC),
        "version": process.version,
        "config_hash": process.config_hash,
        "silent_seconds": round(process.silent, 1),
    }


def standing(config_hash: str, own: str) -> str:
    """`same` or `differs`."""
    return "same" if config_hash == own else "differs"


def overall(rows: Sequence[dict[str, Any]]) -> str:
    """`same` where every process is known to have the same configuration."""
    return "same" if all(row["standing"] == "same" for row in rows) else "differs"


def build_fleet(settings: Settings, config: LiveConfig, clocks: Clocks) -> Fleet:
    """The fleet as configured. Raises `SettingsError`."""
    stores: list[FleetStore] = []
    if settings.fleet_path is not None:
        stores.append(DirectoryStore(Path(settings.fleet_path), wall=clocks.wall))
    uri = settings.storage_uri.reveal()
    if not uri.startswith("memory:"):
        from gateway_middleware.fleet.redis import redis_fleet_store

        try:
            stores.append(redis_fleet_store(uri))
        except ValueError as error:
            raise SettingsError([f"GATEWAY_STORAGE_URI: {error}"]) from None
    return Fleet(stores, config, clocks, workers=settings.workers)
