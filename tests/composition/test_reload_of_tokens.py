"""The settings of tokens act at once after a reload."""

from __future__ import annotations

import httpx
import pytest

from issuer import AUDIENCE, jwk, jwks, rsa_key, token
from rig import Rig

pytestmark = pytest.mark.anyio
VARIABLES = {
    "GATEWAY_JWT_ISSUER": "iss",
    "GATEWAY_JWT_AUDIENCE": AUDIENCE,
    "GATEWAY_JWT_JWKS_URL": "https://id.test/keys",
    "GATEWAY_JWT_TENANT_CLAIM": "org",
    "GATEWAY_JWT_ALGORITHMS": "RS384",
}


async def test_tokens_are_taken_after_a_reload_and_not_after_the_next() -> None:
    document = jwks(jwk(rsa_key("k1"), "k1"))
    rig = Rig(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=document)))
    good = {"authorization": "", "x-gateway-key": token(algorithm="RS384", iss="iss", tenant=None, org="acme")}
    del rig.environment["GATEWAY_OPEN"]
    rig.environment |= VARIABLES
    answer = (await rig.post("/v1/admin/reload")).json()
    names = {name.removeprefix("GATEWAY_").lower() for name in VARIABLES}
    assert (set(answer["changed"]), answer["need_restart"]) == (names | {"is_open"}, [])
    assert [(await rig.call(headers=good)).status, (await rig.call()).status] == [200, 401]
    rig.environment |= {"GATEWAY_JWT_AUDIENCE": "another"}
    await rig.post("/v1/admin/reload")
    assert (await rig.call(headers=good)).status == 401
