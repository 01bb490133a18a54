"""SE17: a wrong secret of a known key takes the same work as a key that nobody has, so that no time tells them apart.

The work is shown, not its time: which functions are called one after the other, Python's and C's. Keys are looked up by
their digest, which nobody can steer; what is compared with a secret is compared by `hmac.compare_digest`.
"""

from __future__ import annotations

import gc
import hmac
import sys
from collections.abc import Callable
from typing import Any

import pytest

from asgi_driver import http_scope
from clock import Clock
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.endpoints import Access, Endpoint
from gateway_middleware.core.errors import GatewayError
from gateway_middleware.core.scope import ENDPOINT
from gateway_middleware.tenancy.keys import TenantKey, digest, hmac_digest, new_key, public_id
from gateway_middleware.tenancy.middleware import TenantMiddleware
from gateway_middleware.tenancy.resolvers import ApiKeyResolver, Credential, OpenResolver
from gateway_middleware.tenancy.trusted_header import TenantHeader, TrustedProxies, signature_of

KEY = new_key()


def changed(at: int) -> str:
    """The key with another letter in this place."""
    return KEY[:at] + ("A" if KEY[at] != "A" else "B") + KEY[at + 1 :]


GUESSES = [new_key(), new_key(public=public_id(KEY)), changed(len(KEY) - 1), changed(12)]
"""A key that nobody has; then wrong secrets of a key that is there: another one, two that differ by one letter."""
ACME = Tenant(name="acme")
SECRET = b"a-secret-of-some-length"
TOKEN = "operator-0123456789"
COMPARED = hmac.compare_digest.__qualname__


def work(do: Callable[[], object]) -> list[str]:
    """What is called while `do` runs, in order, and how it is refused."""
    calls: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)
        elif event == "c_call":
            calls.append(argument.__qualname__)

    before = sys.getprofile()
    gc.disable()  # the ends of what other tests have left would be noted, too
    sys.setprofile(note)
    try:
        do()
    except GatewayError as error:
        calls.append(f"{error.http_status} {error.message}")
    except StopIteration:
        pass
    finally:
        sys.setprofile(before)
        gc.enable()
    return [name for name in calls if name != "setprofile"]


class Store:
    """Keys made at run time, of which there are none; it keeps what it was asked for."""

    is_away = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find(self, digest: str, /) -> tuple[TenantKey, Tenant] | None:
        self.asked.append(digest)
        return None


def asking(resolver: ApiKeyResolver, key: str) -> Callable[[], object]:
    credential = Credential(key.encode())
    return lambda: resolver(credential, {})


@pytest.mark.parametrize("listed", [digest(KEY.encode()), hmac_digest(KEY.encode(), SECRET)], ids=["sha256", "hmac"])
@pytest.mark.parametrize("key_secret", [None, SECRET])
def test_se17_a_wrong_secret_is_the_same_work_as_an_unknown_key(listed: str, key_secret: bytes | None) -> None:
    store = Store()
    resolver = ApiKeyResolver([(ACME, [listed])], key_secret=key_secret, store=store)
    work(asking(resolver, KEY))  # from now on it is remembered, as a key in use is
    store.asked.clear()

    unknown, *wrong = [work(asking(resolver, guess)) for guess in GUESSES]

    assert wrong == [unknown] * len(wrong)
    assert unknown[-1].startswith("401 ")
    assert store.asked == [digest(guess.encode()) for guess in GUESSES]


def test_se17_a_key_is_found_by_its_digest_and_compared_in_constant_time() -> None:
    resolver = ApiKeyResolver([(ACME, [digest(KEY.encode())])])
    first = work(asking(resolver, KEY))
    assert first.index("digest") < first.index(COMPARED)
    assert COMPARED not in work(asking(resolver, GUESSES[0]))  # there is nothing to compare it with


async def silent(*_: Any) -> Any: ...


@pytest.mark.parametrize(
    ("access", "options"), [(Access.ADMIN, {"admin_token": TOKEN}), (Access.METRICS, {"metrics_token": TOKEN})]
)
def test_se17_the_tokens_of_operators_are_compared_in_constant_time(access: Access, options: Any) -> None:
    endpoint = Endpoint(label="x", path="/x", methods=("GET",), access=access)
    layer = TenantMiddleware(silent, resolver=OpenResolver(), **options)

    def knocking(token: str) -> Callable[[], object]:
        scope = http_scope("GET", "/x", headers={"authorization": f"Bearer {token}"})
        ENDPOINT.set(scope, endpoint)
        return lambda: layer(scope, silent, silent).send(None)

    works = [work(knocking(token)) for token in ("A" * len(TOKEN), TOKEN[:-1] + "A", "A" + TOKEN[1:])]
    assert works == [works[0]] * 3
    assert works[0].count(COMPARED) == 1


@pytest.mark.parametrize("wrong", ["A" * 23, "a-secret-of-some-lengtA", "A-secret-of-some-length"])
def test_se17_proofs_for_the_tenants_header_are_compared_in_constant_time(wrong: str) -> None:
    clock = Clock()
    header = TenantHeader("x-tenant-id", proxies=TrustedProxies(["10.0.0.0/8"]), secret=SECRET, wall=clock.wall)
    good = signature_of(SECRET, moment=int(clock.wall()), method="POST", path=b"/x", tenant=b"acme")
    flipped = good[:-1] + ("0" if good[-1] != "0" else "1")

    def taking(name: str, proof: str) -> list[str]:
        headers = {"x-tenant-id": "acme", f"x-gateway-tenant-{name}": proof}
        scope = http_scope("POST", "/x", headers=headers, client=("10.1.2.3", 40000))
        return work(lambda: header.take(scope))

    for name, proof in (("secret", wrong), ("signature", flipped)):
        taking(name, proof)  # the peer is known from now on, and each refusal has been counted before
    assert taking("secret", wrong) == taking("secret", "z" * len(wrong))
    assert taking("secret", wrong).count(COMPARED) == taking("signature", good).count(COMPARED) == 1
    assert taking("signature", flipped) == taking("signature", good[:-64] + "0" * 64)
    assert header.refused == {"wrong_secret": 4, "wrong_signature": 3}
