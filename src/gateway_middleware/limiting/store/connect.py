"""From the storage URIs that `limits` takes to a `RedisStore`.

`redis://`, `rediss://` and `redis+unix://` use the multiplexed client of this room. `redis+cluster://` and
`redis+sentinel://` use redis-py (the extra `redis`), which knows how to find the right node.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from gateway_middleware.limiting.limit import StoreError, StoreTimeoutError
from gateway_middleware.limiting.store.redis import PREFIX, Caller, RedisStore
from gateway_middleware.redis.client import DEADLINE, Address, RespClient
from gateway_middleware.redis.resp import ErrorReply, Reply

_PORT = 6379
_SENTINEL_PORT = 26379
_SOCKET_SECONDS = 2.0


def redis_store(
    uri: str, *, deadline: float = DEADLINE, prefix: str = PREFIX, tls: ssl.SSLContext | None = None
) -> RedisStore:
    """A store for a URI. Nothing is connected yet. Raises `ValueError` for a URI that is none of these."""
    scheme, _, rest = uri.partition("://")
    if scheme in {"redis+cluster", "redis+sentinel"}:
        caller: Caller = _redis_py(scheme, urlsplit(f"redis://{rest}"), deadline)
    else:
        caller = RespClient(parse_address(uri, tls=tls), deadline=deadline)
    return RedisStore(caller, prefix=prefix, splits_by_tag=scheme == "redis+cluster")


def parse_address(uri: str, *, tls: ssl.SSLContext | None = None) -> Address:
    """`redis[s]://[[user]:password@]host[:port][/database]`, or `redis+unix://[[user]:password@]/path[?db=0]`."""
    parts = urlsplit(uri)
    if parts.scheme not in {"redis", "rediss", "redis+unix", "unix"}:
        raise ValueError(f"{parts.scheme}:// is no storage URI of Redis")
    is_socket = parts.scheme.endswith("unix")
    database = parse_qs(parts.query).get("db", [""])[0] or ("" if is_socket else parts.path.strip("/"))
    return Address(
        host=parts.hostname or "localhost",
        port=parts.port or _PORT,
        path=unquote(parts.path) if is_socket else None,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=int(database or 0),
        tls=(tls or ssl.create_default_context()) if parts.scheme == "rediss" else None,
    )


def _redis_py(scheme: str, parts: SplitResult, deadline: float) -> RedisPyCaller:
    try:
        import redis.asyncio as redis_py
    except ImportError:
        raise ValueError(f"{scheme}:// needs redis-py: pip install 'gateway-middleware[redis]'") from None
    login: dict[str, Any] = {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
    }
    timeouts: dict[str, Any] = {"socket_timeout": _SOCKET_SECONDS, "socket_connect_timeout": _SOCKET_SECONDS}
    client: Any
    scouts: Sequence[Any] = ()
    if scheme == "redis+cluster":
        from redis.asyncio.cluster import ClusterNode

        nodes = [ClusterNode(host, port) for host, port in _locations(parts.netloc, _PORT)]
        client = redis_py.RedisCluster(startup_nodes=nodes, **login, **timeouts)
    else:
        service = parts.path.strip("/") or "mymaster"
        make: Any = redis_py.Sentinel
        places = _locations(parts.netloc, _SENTINEL_PORT)
        sentinel = make(places, sentinel_kwargs={**login, **timeouts}, **login, **timeouts)
        client, scouts = sentinel.master_for(service), sentinel.sentinels
    return RedisPyCaller(client, deadline=deadline, scouts=scouts)


def _locations(netloc: str, port: int) -> list[tuple[str, int]]:
    found = []
    for place in netloc.rpartition("@")[2].split(","):
        parts = urlsplit(f"//{place.strip()}")
        if not parts.hostname:
            raise ValueError("a host is missing in the storage URI")
        found.append((parts.hostname, parts.port or port))
    return found


class RedisPyCaller:
    """A client of redis-py as a `Caller`. A command is never cancelled: its connection would have to be closed.

    `scouts` are further clients that are closed with it.
    """

    def __init__(self, client: Any, *, deadline: float = DEADLINE, scouts: Sequence[Any] = ()) -> None:
        self._client = client
        self._scouts = scouts
        self._deadline = deadline
        self._running: set[asyncio.Task[Reply]] = set()

    def call(self, parts: Sequence[bytes], late: Callable[[Reply], None] | None = None) -> Awaitable[Reply]:
        task = asyncio.get_running_loop().create_task(self._execute(parts))
        self._running.add(task)
        task.add_done_callback(self._done)
        return self._wait(task, late)

    def _done(self, task: asyncio.Task[Reply]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()

    async def _execute(self, parts: Sequence[bytes]) -> Reply:
        from redis.exceptions import RedisError, ResponseError

        try:
            reply: Reply = await self._client.execute_command(parts[0].decode(), *parts[1:])
        except ResponseError as error:
            text = str(error)
            is_unknown = type(error).__name__ == "NoScriptError" and not text.startswith("NOSCRIPT")
            return ErrorReply(f"NOSCRIPT {text}" if is_unknown else text)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreError(f"Redis cannot be reached ({type(error).__name__})") from error
        return reply

    async def _wait(self, task: asyncio.Task[Reply], late: Callable[[Reply], None] | None) -> Reply:
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.shield(task)
        except BaseException as error:
            if late is not None:
                task.add_done_callback(lambda done: _hand_over(done, late))
            if isinstance(error, TimeoutError):
                raise StoreTimeoutError("no answer from Redis within the deadline") from None
            raise

    async def aclose(self) -> None:
        for client in (self._client, *self._scouts):
            await client.aclose()


def _hand_over(done: asyncio.Task[Reply], late: Callable[[Reply], None]) -> None:
    if not done.cancelled() and done.exception() is None:
        late(done.result())
