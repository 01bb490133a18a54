"""One conversation with Redis, by redis-py. What goes wrong once ends it: the next one begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from gateway_middleware.breaker.peers.lua import DROP, HOLD

_PORT = 6379
_SENTINEL_PORT = 26379
_CLOSE_SECONDS = 1.0
_OPTIONS: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": None}
"""Deadlines are those of the caller."""


class LinkError(Exception):
    """Redis did not do what was asked. `is_refused`: it has answered, and will not do it another time either."""

    def __init__(self, reason: str, *, is_refused: bool = False) -> None:
        super().__init__(reason)
        self.is_refused = is_refused


class Link:
    """A connection for scripts and one for messages. Everything but `messages` takes at most `deadline` seconds."""

    def __init__(self, client: Any, scouts: Sequence[Any], *, deadline: float) -> None:
        self._client = client
        self._scouts = scouts
        self._deadline = deadline
        self._subscription: Any = None
        self.is_broken = False

    async def open(self, channel: str, *, within: float) -> None:
        """Connect and subscribe. Raises `LinkError`."""
        await self._bounded(self._open(channel), within)

    async def _open(self, channel: str) -> None:
        await self._client.initialize()
        # redis-py before 8 knows no messages of a cluster: the news are asked for then.
        if hasattr(self._client, "pubsub"):
            self._subscription = self._client.pubsub(ignore_subscribe_messages=True)
            await self._subscription.subscribe(channel)

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """Run a script and return its answer. Raises `LinkError`."""
        asked = self._client.execute_command("EVAL", script, len(keys), *keys, *arguments)
        return await self._bounded(asked, self._deadline)

    async def lease(self, key: str, owner: str, seconds: float) -> float:
        """Hold a lease for `seconds`, or with 0 drop it; returns for how many it is somebody else's, or 0."""
        if not seconds:
            await self.run(DROP, (key,), (owner,))
            return 0.0
        others: int = await self.run(HOLD, (key,), (owner, max(round(seconds * 1000), 1)))
        return others / 1000

    async def _bounded(self, asked: Any, seconds: float) -> Any:
        from redis.exceptions import RedisError, ResponseError

        try:
            async with asyncio.timeout(seconds):
                return await asked
        except ResponseError as error:
            self.is_broken = True
            raise LinkError(f"Redis refused ({str(error)[:80]})", is_refused=True) from None
        except TimeoutError:
            self.is_broken = True
            raise LinkError("no answer within the deadline") from None
        except (RedisError, OSError) as error:
            self.is_broken = True
            raise LinkError(f"Redis cannot be reached ({type(error).__name__})") from error

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """What is said on the channel. Raises `LinkError` when the connection ends."""
        from redis.exceptions import RedisError

        if self._subscription is None:
            await asyncio.get_running_loop().create_future()
        try:
            while True:
                message = await self._subscription.get_message(timeout=None)
                if message is not None and message["type"] == "message":
                    yield message["data"]
        except (RedisError, OSError, RuntimeError) as error:
            self.is_broken = True
            raise LinkError(f"the connection to Redis has ended ({type(error).__name__})") from error

    async def aclose(self) -> None:
        """Close all connections. Waits for nobody else, so the bound is a net: redis-py loses what is cut short."""
        ends = [self._client, *self._scouts] if self._subscription is None else [
            self._subscription, self._client, *self._scouts]  # fmt: skip
        for end in ends:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await end.aclose()
            except Exception:  # noqa: BLE001, S110 - it is given up in any case
                pass


class Redis:
    """Makes links to a storage URI of `limits`. Raises `ValueError` for another one, and without redis-py."""

    def __init__(self, uri: str, *, deadline: float) -> None:
        scheme, _, rest = uri.partition("://")
        if scheme not in {"redis", "rediss", "redis+unix", "unix", "redis+cluster", "redis+sentinel"}:
            raise ValueError(f"{scheme}:// is no storage URI of Redis")
        _locations(urlsplit(f"redis://{rest}").netloc or "unix", _PORT)
        try:
            import redis.asyncio as redis_py
        except ImportError:
            raise ValueError(f"{scheme}:// needs redis-py: pip install 'gateway-middleware[redis]'") from None
        self._redis_py: Any = redis_py
        self._scheme, self._rest = scheme, rest
        self._deadline = deadline

    def link(self) -> Link:
        """A new link, not yet open."""
        client, scouts = self._client()
        return Link(client, scouts, deadline=self._deadline)

    def _client(self) -> tuple[Any, Sequence[Any]]:
        parts = urlsplit(f"redis://{self._rest}")
        if self._scheme == "redis+cluster":
            from redis.asyncio.cluster import ClusterNode

            nodes = [ClusterNode(host, port) for host, port in _locations(parts.netloc, _PORT)]
            return self._redis_py.RedisCluster(startup_nodes=nodes, **self._once(), **_login(parts)), ()
        if self._scheme == "redis+sentinel":
            options = {**_OPTIONS, **self._once(), **_login(parts)}
            places = _locations(parts.netloc, _SENTINEL_PORT)
            sentinel = self._redis_py.Sentinel(places, sentinel_kwargs=options, **options)
            return sentinel.master_for(parts.path.strip("/") or "mymaster"), sentinel.sentinels
        scheme = "unix" if self._scheme.endswith("unix") else self._scheme
        options = {**_OPTIONS, **self._once(), "single_connection_client": True, "protocol": 2}
        return self._redis_py.Redis.from_url(f"{scheme}://{self._rest}", **options), ()

    def _once(self) -> dict[str, Any]:
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        return {"retry": Retry(NoBackoff(), 0)}


def _login(parts: SplitResult) -> dict[str, Any]:
    return {name: unquote(said) for name, said in (("username", parts.username), ("password", parts.password)) if said}


def _locations(netloc: str, port: int) -> list[tuple[str, int]]:
    """`host:port,host:port`. Raises `ValueError` where a host is missing."""
    places = [urlsplit(f"//{place.strip()}") for place in netloc.rpartition("@")[2].split(",")]
    if not all(place.hostname for place in places):
        raise ValueError("a host is missing in the storage URI")
    return [(place.hostname or "", place.port or port) for place in places]
