"""The OpenAPI document, and the gateway held against it by schemathesis over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import ways
from gateway_middleware import Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.core.endpoints import ENDPOINTS
from gateway_middleware.operations.openapi import openapi_document
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from running import KEY, environment, serving

pytestmark = pytest.mark.anyio
TOKEN = "an-admin-token-of-some-length"
UNDESCRIBED = {"metrics", "console", "openapi"}
"""What is no JSON, and the document itself."""


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        more = {"GATEWAY_ADMIN_TOKEN": TOKEN, "GATEWAY_JOURNAL": str(tmp_path / "journal.db")}
        application = GatewayApplication(ways.gateway(Settings.from_env(environment(simulator.url, **more))))
        async with serving(application) as url:
            yield url


def test_every_endpoint_but_model_calls_is_described() -> None:
    described = openapi_document()["paths"]
    methods = {(path, method) for path, operations in described.items() for method in operations}
    count = sum(
        1
        for endpoint in ENDPOINTS
        if endpoint.surface in (None, Surface.STORED)
        and endpoint.dialect is Dialect.OPENAI
        and endpoint.label not in UNDESCRIBED
        for method in endpoint.methods
        if method != "HEAD"
    )
    assert len(methods) == count
    assert ("/v1/admin/tenants/{tenant}/keys/{key_id}/rotate", "post") in methods
    names = [operation["operationId"] for operations in described.values() for operation in operations.values()]
    assert len(set(names)) == len(names)


async def test_the_document_is_open_and_holds_no_data(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{url}/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == json.loads(json.dumps(openapi_document()))
    for secret in (TOKEN, KEY, digest(KEY.encode()), "acme", "sk-upstream"):
        assert secret not in answer.text


@pytest.mark.parametrize(
    ("token", "more"),
    [(TOKEN, ("--include-path-regex", "^/v1/admin")), (KEY, ("--exclude-path-regex", "^/v1/admin"))],
    ids=["operator", "tenant"],
)  # fmt: skip
async def test_the_gateway_does_what_the_document_says(
    url: str, token: str, more: tuple[str, str], tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
        "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {token}", "--seed", "1",
        "--max-examples", "15", "--phases", "examples,coverage,fuzzing", "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
        "negative_data_rejection,missing_required_header",
        "--exclude-path", "/v1/admin/status", *more,
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(300):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]
