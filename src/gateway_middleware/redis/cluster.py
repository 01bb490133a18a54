"""Redis Cluster and Sentinel, by redis-py (the extra `redis`), which knows how to find the right node."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, ClassVar

from gateway_middleware.redis.caller import (
    DEADLINE,
    Late,
    PendingReply,
    RedisError,
    RedisReplyError,
    RedisTimeoutError,
    Script,
)
from gateway_middleware.redis.resp import ErrorReply, Reply
from gateway_middleware.redis.uri import RedisUri

_SOCKET_SECONDS = 2.0
_GRACE_SECONDS = 0.002
"""After a stall of the event loop its timers may run before it has read what is there already."""


def redis_py_caller(target: RedisUri, *, deadline: float = DEADLINE) -> RedisPyCaller:
    """A caller for `redis+cluster` and `redis+sentinel`. Raises `ValueError` where redis-py is absent."""
    try:
        import redis.asyncio as redis_py
    except ImportError:
        raise ValueError(f"{target.scheme}:// needs redis-py: pip install 'gateway-middleware[redis]'") from None
    login: dict[str, Any] = {"username": target.username, "password": target.password}
    timeouts: dict[str, Any] = {"socket_timeout": _SOCKET_SECONDS, "socket_connect_timeout": _SOCKET_SECONDS}
    client: Any
    sentinels: Sequence[Any] = ()
    if target.is_cluster:
        from redis.asyncio.cluster import ClusterNode

        nodes = [ClusterNode(host, port) for host, port in target.hosts]
        client = redis_py.RedisCluster(startup_nodes=nodes, **login, **timeouts)
    else:
        make: Any = redis_py.Sentinel
        sentinel = make(list(target.hosts), sentinel_kwargs={**login, **timeouts}, **login, **timeouts)
        client, sentinels = sentinel.master_for(target.service), sentinel.sentinels
    return RedisPyCaller(client, deadline=deadline, sentinels=sentinels)


class RedisPyCaller:
    """A client of redis-py as a `RedisCaller`. A command is never cancelled: its connection would have to be closed.

    The first command goes alone: a client that has found the nodes of a cluster disconnects those that other commands
    have found meanwhile (redis-py 8.1). `sentinels` are further clients that are closed with it.
    """

    keeps_order: ClassVar[bool] = False  # each command takes a connection of the pool

    def __init__(self, client: Any, *, deadline: float = DEADLINE, sentinels: Sequence[Any] = ()) -> None:
        self._client = client
        self._sentinels = sentinels
        self._deadline = deadline
        self._running: set[asyncio.Task[Reply]] = set()
        self._is_closed = False
        self._is_known = False
        """Whether the client has found whom to ask."""
        self._first = asyncio.Lock()

    def call(self, command: Sequence[bytes], late: Late | None = None) -> asyncio.Future[Reply]:
        """Send a command."""
        return self._start(self._execute(command), late)

    def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes] = (), late: Late | None = None
    ) -> asyncio.Future[Reply]:
        """Run a script by its SHA-1, or by its source."""
        return self._start(self._execute_script(script, script.by_name(keys, arguments)), late)

    def _start(self, execution: Coroutine[Any, Any, Reply], late: Late | None) -> asyncio.Future[Reply]:
        loop = asyncio.get_running_loop()
        pending = PendingReply(loop.create_future(), late)
        if self._is_closed:
            execution.close()
            pending.fail(RedisError("the connection to Redis is closed"))
            return pending.future
        timer = loop.call_later(self._deadline, self._wait_a_moment, pending)
        task = loop.create_task(execution)
        self._running.add(task)
        task.add_done_callback(lambda done: self._done(done, pending, timer))
        return pending.future

    def _wait_a_moment(self, pending: PendingReply) -> None:
        error = RedisTimeoutError("no answer from Redis within the deadline")
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, pending.fail, error)

    def _done(self, task: asyncio.Task[Reply], pending: PendingReply, timer: asyncio.TimerHandle) -> None:
        self._running.discard(task)
        timer.cancel()
        error = RedisError("the connection to Redis is closed") if task.cancelled() else task.exception()
        if error is None:
            pending.resolve(task.result())
        else:
            known = error if isinstance(error, RedisError) else RedisError(f"redis-py failed ({type(error).__name__})")
            pending.fail(known)

    async def _execute_script(self, script: Script, by_name: Sequence[bytes]) -> Reply:
        try:
            return await self._execute(by_name)
        except RedisReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self._execute(script.by_source(by_name))

    async def _execute(self, command: Sequence[bytes]) -> Reply:
        return await (self._executed(command) if self._is_known else self._execute_first(command))

    async def _execute_first(self, command: Sequence[bytes]) -> Reply:
        """Alone, unless there has been a first one meanwhile; what has waited too long is not sent any more."""
        now = asyncio.get_running_loop().time
        until = now() + self._deadline
        async with self._first:
            if now() > until:
                raise RedisTimeoutError("no answer from Redis within the deadline")
            if not self._is_known:
                reply = await self._executed(command)
                self._is_known = True
                return reply
        return await self._executed(command)

    async def _executed(self, command: Sequence[bytes]) -> Reply:
        from redis.exceptions import NoScriptError, ResponseError
        from redis.exceptions import RedisError as RedisPyError

        try:
            reply: Reply = await self._client.execute_command(command[0].decode(), *command[1:])
        except NoScriptError:
            raise RedisReplyError(ErrorReply("NOSCRIPT No matching script")) from None
        except ResponseError as error:
            raise RedisReplyError(ErrorReply(str(error))) from None
        except (RedisPyError, OSError, TimeoutError) as error:
            raise RedisError(f"Redis cannot be reached ({type(error).__name__})") from error
        return reply

    async def aclose(self) -> None:
        """Close every connection when what was sent is answered, or the deadline is over."""
        self._is_closed = True
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._deadline)
            for task in late:  # it might open what is closed now
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for client in (self._client, *self._sentinels):
            await client.aclose()
