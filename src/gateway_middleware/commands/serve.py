"""`serve`: the gateway on its own: a supervisor, and uvicorn with our protocol in each of its workers."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import msgspec

from gateway_middleware._version import __version__
from gateway_middleware.commands.compose import add_overrides, check_journal, environment_of
from gateway_middleware.commands.extras import require_serve
from gateway_middleware.commands.summary import switched_off
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.secret import redact
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.python_logging import logging_to
from gateway_middleware.serving.descriptors import needed_for, raise_limit
from gateway_middleware.serving.first_worker import Findings, FirstWorker
from gateway_middleware.serving.http.limits import DoorLimits, HalfClose
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType

    import uvicorn

    from gateway_middleware.core.asgi import ASGIApp
    from gateway_middleware.core.outbox import Outbox
    from gateway_middleware.edge.refused_requests import RefusedRequests
    from gateway_middleware.gateway import Gateway
    from gateway_middleware.serving.keeper_process import KeeperChild, NoKeeper
    from gateway_middleware.serving.server import Patience

_BACKLOG = 2048
_MAX_LINGERED = 16 * 1024 * 1024
"""Bytes of a request that was answered before it was read, which are read and thrown away."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Each stands for an environment variable."""
    add_overrides(parser)


def door_limits(settings: Settings) -> DoorLimits:
    """What clients may send and hold, as the settings say and the descriptors of this process are enough for."""
    return DoorLimits(
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        idle_seconds=settings.idle_seconds,
        linger_bytes=min(settings.max_body_bytes, _MAX_LINGERED) + 64 * 1024,
        max_head_bytes=settings.max_head_bytes,
        max_headers=settings.max_headers,
        max_connections=raise_limit(settings.max_connections),
        max_bodies_bytes=settings.max_bodies_bytes,
        half_close=HalfClose(settings.half_close),
    )


def server_options(
    *, limits: DoorLimits, drain_seconds: float, outbox: Outbox | None = None, refused: RefusedRequests | None = None
) -> dict[str, object]:
    """How uvicorn serves the gateway: our protocol, the fast loop, and nothing that costs without being used.

    They are for one server: the protocol in them counts its connections. With the gateway's own `outbox` answers to
    clients and requests to providers are written together. What the protocol refuses by itself is told to `refused`.
    """
    from gateway_middleware.serving.http.protocol import http_protocol
    from gateway_middleware.serving.refusals import Refusals, refuse_in_dialect

    return {
        "http": http_protocol(
            limits, refuse=refuse_in_dialect if refused is None else Refusals(refused), outbox=outbox
        ),
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "log_config": None,
        "log_level": "warning",
        "timeout_graceful_shutdown": round(drain_seconds) + 5,
    }


def make_server(
    app: ASGIApp, *, host: str, port: int, limits: DoorLimits, drain_seconds: float, outbox: Outbox | None = None
) -> uvicorn.Server:
    """A uvicorn server for one process, without a supervisor and without handlers of signals."""
    import uvicorn

    options = server_options(limits=limits, drain_seconds=drain_seconds, outbox=outbox)
    from gateway_middleware.serving.server import SilentServer

    return SilentServer(uvicorn.Config(app, host=host, port=port, **options))  # type: ignore[arg-type]


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Raises `SettingsError` for a configuration that `check` refuses as well."""
    require_serve("serve")
    _open_standard_descriptors()
    asked_to_leave = _take_signals_of_the_start()
    environment = environment_of(args)
    settings = Settings.from_env(environment)
    raise_limit(settings.max_connections)
    with listening(settings) as listener, _with_directories(settings, environment) as settings:
        return _Server(settings, environment, listener, asked_to_leave).run()


def _open_standard_descriptors() -> None:
    """Where one is closed, the next file or socket would get its number, and the log would be written into that."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    # Python has None in the place of such a stream, and uvicorn asks it what it is.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _take_signals_of_the_start() -> list[int]:
    """Until the supervisor takes them: the end is one at once, and the configuration is being read anyway.

    Those that have come are in what is returned: an exception is lost where Python is in a callback of its own, as it
    is now and then when it imports.
    """
    come: list[int] = []

    def leave(number: int, _: FrameType | None) -> NoReturn:
        come.append(number)
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return come


class _Server:
    """One `serve`: what its supervisor and its workers are made of."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], listener: socket.socket, asked_to_leave: list[int]
    ) -> None:
        self._asked_to_leave = asked_to_leave
        self._settings = settings
        self._environment = environment
        self._listener = listener
        self._gateway: Gateway | None = None  # of the first worker, in its process
        secrets = [provider.api_key.reveal() for provider in settings.providers]
        self._log = AccessLog.to_fd_at_once(1, log_format=settings.log_format, scrub=lambda text: redact(text, secrets))

    def run(self) -> int:
        """Returns the exit status. Raises `SettingsError` where no gateway can be made of the settings."""
        gc.freeze()  # of what is read now nothing goes, and a collector would copy every page for each process
        first = FirstWorker(self._prepare, lambda control: self._work(control, False), tell=self._log.event)
        from gateway_middleware.serving.supervisor import Supervisor  # while the worker imports what it needs

        keeper = self._make_keeper()
        findings = first.findings()
        if findings.complaints:
            raise SettingsError(findings.complaints)
        self._tell_of_start([*self._settings.warnings(), *findings.warnings, *_shortage(self._settings)])
        supervisor = Supervisor(
            self._work,
            size=self._settings.workers,
            tell=self._log.event,
            leave_seconds=self._settings.drain_lag_seconds + self._settings.drain_seconds,
            keeper=keeper,
            first=first,
        )
        if self._asked_to_leave:
            raise SystemExit(0)
        status = supervisor.run()
        self._log.event("stopped", message="Model Gateway has stopped", status=status)
        return status

    def _tell_of_start(self, warnings: list[str]) -> None:
        settings = self._settings
        log = self._log
        log.event(
            "start",
            message=f"Model Gateway {__version__} listens on {url_of(self._listener)}, configuration "
            f"{settings.config_hash}, {settings.workers} worker(s)",
            url=url_of(self._listener),
            version=__version__,
            config_hash=settings.config_hash,
            workers=settings.workers,
        )
        self._tell_what_runs()
        for line in warnings:
            log.event("configuration_warning", level="warning", message=line)

    @property
    def _has_keeper(self) -> bool:
        return self._settings.journal != "off" and self._settings.keeper != "thread"

    def _make_keeper(self) -> KeeperChild | NoKeeper:
        from gateway_middleware.composition.keeper_config import keeper_config
        from gateway_middleware.composition.keeper_prices import forget_prices
        from gateway_middleware.serving.keeper_process import KeeperChild, NoKeeper

        if not self._has_keeper:
            return NoKeeper()
        forget_prices(self._settings.journal)
        config = msgspec.json.encode(keeper_config(self._settings))
        return KeeperChild(config, tell=self._log.event, now=time.monotonic())

    def _tell_what_runs(self) -> None:
        settings = self._settings
        providers = ", ".join(provider.name for provider in settings.providers)
        off = ", ".join(switched_off(settings))
        self._log.event(
            "configured",
            message=f"Providers: {providers}; {len(settings.routes)} route(s), {len(settings.tenants)} tenant(s). "
            f"Off: {off or 'nothing'}",
            providers=providers,
            routes=len(settings.routes),
            tenants=len(settings.tenants),
            off=off,
        )

    def _prepare(self) -> Findings:
        """In the first worker: put together what it is to serve."""
        from gateway_middleware.composition.pricing import price_warnings

        try:
            self._gateway = self._compose(self._settings)
            check_journal(self._settings)
        except SettingsError as error:
            return Findings(complaints=list(error.complaints))
        return Findings(warnings=price_warnings(self._settings))

    def _compose(self, settings: Settings) -> Gateway:
        from gateway_middleware.gateway import Gateway

        gc.disable()  # until the heap is settled: what is made now is kept
        return Gateway(
            settings,
            reread=lambda: Settings.from_env(self._environment),
            keeper="process" if self._has_keeper else "thread",
        )

    def _work(self, control: socket.socket, is_replacement: bool) -> int:  # noqa: FBT001  # the supervisor's protocol
        """In a worker process. One that replaces another takes of the configuration what a reload takes."""
        import uvicorn

        from gateway_middleware.serving.worker import Worker

        settings = self._settings
        gateway = self._gateway or self._compose(settings)
        if is_replacement and (current := self._current()) != settings:
            # As those beside it, which have reloaded: were it of another journal or of more workers than they, nobody
            # would keep what it writes, and its share of limits would be another.
            settings = gateway.reloader.in_force(current)
            gateway = self._compose(settings)
            gateway.reloader.apply(current)
        options = server_options(
            limits=door_limits(settings),
            drain_seconds=settings.drain_seconds,
            outbox=gateway.outbox,
            refused=gateway.stats.refused,
        )
        config = uvicorn.Config(gateway.app, interface="asgi3", **{**options, "lifespan": "off"})  # type: ignore[arg-type]
        worker = Worker(
            gateway,
            config=config,
            listener=self._listener,
            control=control,
            patience=_patience(settings),
            reload=gateway.operations.reload_on_signal,
            tell=self._log.event,
        )
        with logging_to(gateway.log.lines):
            return worker.run()

    def _current(self) -> Settings:
        """The settings of the moment; those of the start where they are unusable."""
        try:
            return Settings.from_env(self._environment)
        except SettingsError as error:
            message = f"The configuration has become unusable, going on with that of the start: {error}"
            self._log.event("configuration_unusable", level="error", message=message)
            return self._settings


def _shortage(settings: Settings) -> list[str]:
    wanted = settings.max_connections
    possible = raise_limit(wanted)
    if possible >= 0.9 * wanted:  # the rest will not be missed
        return []
    needed = f"GATEWAY_MAX_CONNECTIONS: {wanted} take {needed_for(wanted)} file descriptors"
    return [f"{needed}, and the system allows a process fewer (ulimit -Hn): each worker takes {possible}"]


def _patience(settings: Settings) -> Patience:
    from gateway_middleware.serving.server import Patience

    return Patience(lag=settings.drain_lag_seconds, drain=settings.drain_seconds)


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The socket that all workers accept on. Exits with one line where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        fault = f"cannot listen on {settings.host}:{settings.port}: {os.strerror(error.errno or 0)}"
        raise SettingsError([f"GATEWAY_PORT: {fault}; expected a free port (--port), or 0 for any"]) from None
    # asyncio does this only for sockets that it has made itself; accepted ones inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listener:
        yield listener


def url_of(listener: socket.socket) -> str:
    """Where a listener is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _with_directories(settings: Settings, environment: dict[str, str]) -> Iterator[Settings]:
    """The same with places of this server's own, in which its workers add up metrics and tell each other what all know.

    They are written into the environment as well, from which the workers read again.
    """
    missing = {
        "metrics_directory": settings.metrics_directory is None,
        "fleet_directory": settings.fleet_path is None,
    }
    own = {}
    with contextlib.ExitStack() as stack:
        for name, is_missing in missing.items():
            if is_missing and settings.workers > 1:
                own[name] = stack.enter_context(tempfile.TemporaryDirectory(prefix="model-gateway-"))
        environment |= {f"GATEWAY_{name.upper()}": place for name, place in own.items()}
        given = (*settings.given, *(f"GATEWAY_{name.upper()}" for name in own))
        yield msgspec.structs.replace(settings, **own, given=given)
