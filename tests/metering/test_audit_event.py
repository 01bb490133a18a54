"""The event that a key or a tenant was changed: its form, and that it waits in the spool through a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clock import Clock
from gateway_middleware.metering.audit_event import AuditEvent, AuditOutcome, cloud_event
from gateway_middleware.metering.journal.housekeeping import Housekeeping, Retention
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.usage_event import sibling_type

MADE = AuditEvent(
    id="audit-1", time=1_800_000_000.25, action="key.created", tenant="acme", client="10.0.0.7", request_id="r1",
    key_id="h4k2m6qa", name="ci", changes={"limits": {"requests": "1/minute"}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("usage_type", "audit_type"),
    [
        ("gateway.llm.usage.v1", "gateway.llm.audit.v1"),
        ("com.example.usage", "com.example.audit"),
        ("usage", "audit"),
        ("com.example.tokens", "com.example.tokens.audit"),
        ("com.usages.v2", "com.usages.v2.audit"),
    ],
)
def test_the_type_is_a_sibling_of_that_of_usage_events(usage_type: str, audit_type: str) -> None:
    assert sibling_type(usage_type, "audit") == audit_type


def test_a_cloud_event_says_who_has_done_what() -> None:
    assert json.loads(cloud_event(MADE, source="/gw")) == {
        "specversion": "1.0", "id": "audit-1", "source": "/gw", "type": "gateway.llm.audit.v1", "subject": "acme",
        "time": "2027-01-15T08:00:00.250000Z", "datacontenttype": "application/json",
        "data": {
            "action": "key.created", "outcome": "unknown", "actor": "admin", "client": "10.0.0.7", "request_id": "r1",
            "tenant": "acme", "key_id": "h4k2m6qa", "name": "ci", "changes": {"limits": {"requests": "1/minute"}},
        },
    }  # fmt: skip


def test_every_process_says_the_same_of_an_expiry() -> None:
    one, other = (
        AuditEvent.of_expiry(tenant="acme", key_id="h4k2m6qa", name=None, expires=1_800_000_000.5) for _ in range(2)
    )
    assert one == other
    assert one.id != AuditEvent.of_expiry(tenant="acme", key_id="h4k2m6qa", name=None, expires=1_800_000_001.5).id


def test_every_process_says_the_same_of_a_deletion_and_another_thing_of_an_expiry() -> None:
    at = 1_800_000_000.5
    one, other = (AuditEvent.of_deletion(tenant="acme", key_id="h4k2m6qa", name=None, deleted=at) for _ in range(2))
    assert one == other
    assert one.id != AuditEvent.of_expiry(tenant="acme", key_id="h4k2m6qa", name=None, expires=at).id


def test_what_is_about_the_configuration_has_a_subject_that_is_no_tenant() -> None:
    reloaded = AuditEvent(id="audit-2", time=1.0, action="configuration.reloaded", actor="file watch")
    told = json.loads(cloud_event(reloaded, source="/gw"))
    assert (told["subject"], told["data"]["tenant"]) == ("gateway/configuration", None)


def settled(outcome: AuditOutcome) -> AuditEvent:
    told = {name: getattr(MADE, name) for name in MADE.__struct_fields__}
    return AuditEvent(**{**told, "outcome": outcome})


def test_a_change_is_told_once_it_is_settled(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "journal.db")
    spool.announce(MADE)
    assert spool.pending(10) == []
    done = settled(AuditOutcome.SUCCESS)
    spool.settle(done)
    spool.settle(done)
    assert spool.pending(10) == [done]
    assert spool.backlog == 1
    spool.delivered([done.id])
    assert spool.measure() == (0, None, 0)
    spool.close()


def test_a_change_that_a_dead_process_left_is_told_a_minute_later_as_unknown(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "journal.db"
    dead = Spool(path, wall=clock.wall)
    dead.announce(MADE)
    dead.close()
    clock.advance(MADE.time - clock.wall())
    spool = Spool(path, wall=clock.wall)
    house = Housekeeping(
        spool, Retention(cap=100, on_full="reject", keeps=None), wall=clock.wall, clock=clock, appraise=None
    )
    house.begin()
    assert (spool.pending(10), house.trouble) == ([], None)
    clock.advance(61)
    house.look()
    assert spool.pending(10) == [MADE]
    spool.settle(settled(AuditOutcome.SUCCESS))  # too late: what was told stays as it was
    assert spool.pending(10) == [MADE]
    spool.close()


def test_expiries_are_told_once_a_host(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "journal.db")
    early, late = (AuditEvent.of_expiry(tenant="a", key_id="k", name=None, expires=at) for at in (10.0, 20.0))
    assert spool.add_since("expiries", [early]) == {early.id}
    spool.delivered([early.id])
    assert spool.add_since("expiries", [early, late]) == {late.id}
    assert spool.add_since("expiries", [early, late]) == frozenset()
    assert spool.pending(10) == [late]
    spool.close()


def test_of_processes_with_the_same_news_one_is_heard(tmp_path: Path) -> None:
    one, other = (Spool(tmp_path / "journal.db") for _ in range(2))
    times = iter(range(10, 1000, 10))

    def tell(spool: Spool, fact: str, *, later: float = 0.0) -> bool:
        at = next(times) + later
        event = AuditEvent(id=f"audit-{at}", time=at, action="configuration.reloaded")
        return spool.add_unless_last("configuration", fact, event, within=100.0)

    assert [tell(one, "a b"), tell(other, "a b"), tell(one, "a b")] == [True, False, False]
    one.delivered(["audit-10"])
    assert not tell(other, "a b")
    assert [tell(other, "b a"), tell(one, "b a"), tell(one, "a b")] == [True, False, True]
    assert tell(other, "a b", later=200.0)  # the same once more, long after
    for spool in (one, other):
        spool.close()


def test_what_is_announced_survives_a_corrupt_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    spool = Spool(path)
    spool.announce(MADE)
    spool.add_since("expiries", [AuditEvent.of_expiry(tenant="a", key_id="k", name=None, expires=10.0)])
    spool.close()
    content = bytearray(path.read_bytes())
    page = 4096 * 2  # the second table's root: the first page, with the schema, stays whole
    content[page : page + 8] = b"\xff" * 8
    path.write_bytes(content)
    again = Spool(path)
    again.check()
    assert again.quarantined == 1
    assert again.release(MADE.time + 1) == 1
    again.close()
