"""What every store does, in a directory and in Redis."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from clock import Clock
from fleet_stores import MakeStore, directory_stores, redis_stores
from gateway_middleware.fleet import store as port
from gateway_middleware.fleet import tables
from gateway_middleware.fleet.directory import FILE, DirectoryStore
from gateway_middleware.fleet.entries import Entry, Owned, Owner, Process, id_digest
from gateway_middleware.fleet.redis import redis_fleet_store
from gateway_middleware.fleet.store import PAGE, FleetStore, StoreAwayError
from redis_process import RedisProcess

pytestmark = pytest.mark.anyio
ME = Process(id="p1", host="h", pid=1, started=1.0, version="0", config_hash="abc")
ALICE, BOB = Owner("alice", "openai/a"), Owner("bob", "openai/b")


def entry(key: str = "k", version: int = 1, *, body: bytes = b"{}", seconds: float | None = None) -> Entry:
    return Entry(kind="x", key=key, body=body, origin="o", version=version, seconds=seconds)


@pytest.fixture(params=["directory", "redis", "cluster"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    made: list[FleetStore] = []
    way = (
        directory_stores(tmp_path)
        if request.param == "directory"
        else redis_stores(request.getfixturevalue(f"shared_{request.param}").uri)
    )

    def make_one() -> FleetStore:
        made.append(way())
        return made[-1]

    yield make_one
    for store in made:
        await store.aclose()


async def test_another_process_reads_what_is_appended(make: MakeStore) -> None:
    one, other = make(), make()
    await one.append([entry("a", body=b'{"n": 1}'), entry("b c/\u00e4\"'", 2)])
    news = await other.news(0, ME)
    assert [(e.key, e.body, e.version, e.origin, e.seconds) for e in news.entries] == [
        ("a", b'{"n": 1}', 1, "o", None),
        ("b c/\u00e4\"'", b"{}", 2, "o", None),
    ]
    again = await other.news(news.position, ME)
    assert (list(again.entries), again.position, again.epoch) == ([], news.position, news.epoch)


async def test_only_what_is_newer_replaces_and_moves_to_the_end(make: MakeStore) -> None:
    one, other = make(), make()
    await one.append([entry("a", 5), entry("b", 5)])
    read = (await other.news(0, ME)).position
    await one.append([entry("a", 4, body=b"1"), entry("b", 5, body=b"2")])
    assert not (await other.news(read, ME)).entries
    await one.append([entry("a", 6, body=b"3")])
    assert [(e.key, e.body) for e in (await other.news(read, ME)).entries] == [("a", b"3")]
    assert [e.key for e in (await other.news(0, ME)).entries] == ["b", "a"]


async def test_what_has_ended_is_not_read_and_leaves_room_for_what_is_older(make: MakeStore) -> None:
    one, other = make(), make()
    await one.append([entry("a", 9, seconds=0.001), entry("b", 1, seconds=60.0)])
    while any(e.key == "a" for e in (await other.news(0, ME)).entries):
        pass
    (left,) = (await other.news(0, ME)).entries
    assert left.key == "b"
    assert 50 < (left.seconds or 0) <= 60
    await one.append([entry("a", 3)])
    assert {e.key for e in (await other.news(0, ME)).entries} == {"a", "b"}


async def test_much_is_read_page_by_page(make: MakeStore) -> None:
    one, other = make(), make()
    await one.append([entry(str(n), n + 1) for n in range(PAGE + 5)])
    first = await other.news(0, ME)
    second = await other.news(first.position, ME)
    assert (len(first.entries), first.has_more) == (PAGE, True)
    assert (len(second.entries), second.has_more) == (5, False)


async def test_processes_are_known_until_they_leave(make: MakeStore) -> None:
    one, other = make(), make()
    them = Process(id="p2", host="h2", pid=2, started=2.0, version="0", config_hash="def", machine="m")
    await one.news(0, ME)
    news = await other.news(0, them)
    assert sorted((p.id, p.config_hash, p.machine) for p in news.processes) == [("p1", "abc", ""), ("p2", "def", "m")]
    assert all(0 <= p.silent < 5 for p in news.processes)
    await one.leave(ME)
    assert [p.id for p in (await other.news(news.position, them)).processes] == ["p2"]


async def test_owners_are_known_to_every_process(make: MakeStore) -> None:
    one, other = make(), make()
    a, b, c = (id_digest(name) for name in "abc")
    await one.remember([Owned(a, ALICE), Owned(b, BOB)])
    assert dict(await other.owners([a, b, c])) == {a: ALICE, b: BOB}
    await other.remember([Owned(a, BOB)])
    assert dict(await one.owners([a])) == {a: BOB}


async def test_owners_are_bounded_in_number(make: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # The bound is a constant of the port: a million would take the test minutes.
    for module in ("gateway_middleware.fleet.tables", "gateway_middleware.fleet.redis"):
        monkeypatch.setattr(f"{module}.MAX_OWNED", 50)
    store = make()
    digests = [id_digest(str(n)) for n in range(200)]
    for digest in digests:
        await store.remember([Owned(digest, ALICE)])
    known = await store.owners(digests)
    assert 50 <= len(known) <= 51
    assert digests[-1] in known


# A directory.


async def test_owners_in_a_directory_end_after_thirty_days(tmp_path: Path) -> None:
    clock = Clock()
    store = DirectoryStore(tmp_path, wall=clock.wall)
    await store.remember([Owned(id_digest("a"), ALICE)])
    clock.advance(port.OWNED_SECONDS - 1)
    assert await store.owners([id_digest("a")])
    clock.advance(2)
    assert not await store.owners([id_digest("a")])
    await store.remember([Owned(id_digest("b"), ALICE)])
    await store.aclose()
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute("SELECT COUNT(*) FROM owned").fetchone() == (1,)
    connection.close()


async def test_a_silent_process_is_gone_and_one_with_a_clock_that_was_set_back_is_not(tmp_path: Path) -> None:
    clock = Clock()
    one, other = DirectoryStore(tmp_path, wall=clock.wall), DirectoryStore(tmp_path, wall=clock.wall)
    them = Process(id="p2", host="h", pid=2, started=2.0, version="0", config_hash="def")
    await one.news(0, ME)
    clock.advance(port.SILENT_SECONDS + 1)
    assert [p.id for p in (await other.news(0, them)).processes] == ["p2"]
    clock.advance(-86400)
    assert [p.id for p in (await other.news(0, them)).processes] == ["p2"]
    for store in (one, other):
        await store.aclose()


async def test_a_directory_that_is_taken_away_is_made_anew(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "f")
    await store.append([entry()])
    before = await store.news(0, ME)
    for file in (tmp_path / "f").iterdir():
        file.unlink()
    after = await store.news(0, ME)
    assert before.epoch != after.epoch
    assert not after.entries
    await store.aclose()


async def test_a_directory_that_cannot_be_is_away_and_may_come_back(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a file")
    store = DirectoryStore(tmp_path / "f")
    with pytest.raises(StoreAwayError):
        await store.news(0, ME)
    (tmp_path / "f").unlink()
    await store.append([entry()])
    (tmp_path / "f" / FILE).write_bytes(b"this is no database " * 500)
    for suffix in ("-wal", "-shm"):
        (tmp_path / "f" / f"{FILE}{suffix}").unlink()
    other = DirectoryStore(tmp_path / "f")
    with pytest.raises(StoreAwayError, match=r"fleet\.db"):
        await other.owners([b"x"])
    for each in (store, other):
        await each.aclose()


WRITER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from gateway_middleware.fleet.directory import DirectoryStore
    from gateway_middleware.fleet.entries import Entry, Owned, Owner, id_digest
    from gateway_middleware.fleet.store import StoreAwayError

    async def write(store, name, n):
        body, key = str(n).encode(), f"{name}-{n}"
        await store.append([Entry(kind="x", key=key, body=body, origin=name, version=n + 1)])
        await store.remember([Owned(id_digest(key), Owner(name, "d"))])

    async def main(name):
        store = DirectoryStore(Path(sys.argv[1]))
        for n in range(int(sys.argv[3])):
            while True:
                try:
                    await write(store, name, n)
                    break
                except StoreAwayError:  # the others hold it: as every caller does, it comes again
                    pass
            print(n, flush=True)
        await store.aclose()

    asyncio.run(main(sys.argv[2]))
""")


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(count)], stdout=subprocess.PIPE, text=True
    )


async def test_eight_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    processes = [writer(tmp_path, f"w{n}", 15) for n in range(8)]
    assert [process.communicate(timeout=60)[0].count("\n") for process in processes] == [15] * 8
    store = DirectoryStore(tmp_path)
    keys = [f"w{w}-{n}" for w in range(8) for n in range(15)]
    assert sorted(e.key for e in (await store.news(0, ME)).entries) == sorted(keys)
    assert len(await store.owners([id_digest(key) for key in keys])) == 120
    await store.aclose()


async def test_what_was_stored_outlives_a_writer_that_is_killed(tmp_path: Path) -> None:
    with writer(tmp_path, "w", 100_000) as process:
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
    store = DirectoryStore(tmp_path)
    known = {e.key for e in (await store.news(0, ME)).entries}
    assert {f"w-{n}" for n in done} <= known
    assert len(await store.owners([id_digest(f"w-{n}") for n in done])) == 20
    await store.append([entry("after")])
    await store.aclose()


# Redis.


async def test_a_redis_that_is_away_is_so_at_once(own_redis: RedisProcess) -> None:
    store = redis_fleet_store(own_redis.uri)
    own_redis.kill()
    for attempt in (store.append([entry()]), store.news(0, ME), store.owners([b"x"]), store.leave(ME)):
        with pytest.raises(StoreAwayError):
            await attempt
    await store.aclose()


async def test_a_flush_is_another_epoch(own_redis: RedisProcess) -> None:
    one, other = redis_fleet_store(own_redis.uri, deadline=1.0), redis_fleet_store(own_redis.uri, deadline=1.0)
    await one.append([entry()])
    before = await one.news(0, ME)
    assert (await other.news(0, ME)).epoch == before.epoch
    own_redis.command("FLUSHALL")
    await other.append([entry("after")])
    assert (await one.news(before.position, ME)).epoch != before.epoch
    assert [e.key for e in (await one.news(0, ME)).entries] == ["after"]
    for store in (one, other):
        await store.aclose()


async def test_what_is_no_entry_is_not_taken_for_one(own_redis: RedisProcess) -> None:
    store = redis_fleet_store(own_redis.uri, deadline=1.0, prefix="g:")
    own_redis.command("HSET", "g:{fleet}:processes", "x", "no process")
    own_redis.command("ZADD", "g:{fleet}:seen", "99999999999999", "x")
    with pytest.raises(StoreAwayError, match="no entry of a fleet"):
        await store.news(0, ME)
    await store.aclose()


def test_tables_hold_what_they_did(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    tables.create(connection)
    epoch = tables.epoch(connection)
    tables.create(connection)
    assert tables.epoch(connection) == epoch
    connection.close()


def age(folder: Path) -> None:
    """As if the files of the directory had been written an hour ago."""
    for path in (folder / "fleet").iterdir():
        before = path.stat().st_mtime - 3600
        os.utime(path, (before, before))


async def still_store(folder: Path, wall: Callable[[], float]) -> DirectoryStore:
    """A way to a directory in which nothing happens."""
    store = DirectoryStore(folder / "fleet", wall=wall)
    position = (await store.news(0, ME)).position
    assert not store.is_still(ME)  # written just now: the next write might bear the same time
    await store.news(position, ME)
    age(folder)
    await store.news(position, ME)
    assert store.is_still(ME)
    return store


async def test_a_directory_is_still_until_another_process_writes(tmp_path: Path) -> None:
    store, other = await still_store(tmp_path, Clock().wall), DirectoryStore(tmp_path / "fleet")
    await other.append([entry("a")])
    assert not store.is_still(ME)
    news = await store.news(0, ME)
    assert ([e.key for e in news.entries], store.is_still(ME)) == (["a"], False)
    for each in (store, other):
        await each.aclose()


async def test_a_directory_is_not_still_where_presence_is_to_be_noted(tmp_path: Path) -> None:
    clock = Clock()
    store = await still_store(tmp_path, clock.wall)
    assert not store.is_still(msgspec.structs.replace(ME, config_hash="another"))
    clock.advance(1.9)
    assert store.is_still(ME)
    clock.advance(0.2)
    assert not store.is_still(ME)
    await store.aclose()


async def test_a_directory_is_not_still_while_somebody_is_about_to_commit(tmp_path: Path) -> None:
    """The files may be written long before what is in them can be seen."""
    store = await still_store(tmp_path, Clock().wall)
    writer = sqlite3.connect(tmp_path / "fleet" / FILE, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    age(tmp_path)
    position = (await store.news(0, ME)).position
    await store.news(position, ME)
    assert not store.is_still(ME)
    writer.execute("ROLLBACK")
    await store.news(position, ME)
    assert store.is_still(ME)
    writer.close()
    await store.aclose()


async def test_a_directory_that_was_removed_is_not_still(tmp_path: Path) -> None:
    store = await still_store(tmp_path, Clock().wall)
    shutil.rmtree(tmp_path / "fleet")
    assert not store.is_still(ME)
    await store.aclose()
    assert not store.is_still(ME)
