"""Keys change while calls run: the provider's, from a mounted secret, and a tenant's that has leaked."""

from __future__ import annotations

import json
import time

from gateway_middleware.commands.drill.stage import Stage, document

SECTION = "keys"


async def play(stage: Stage) -> None:
    """The provider takes only the new key; a tenant's key is taken out of the file."""
    story = stage.story
    openai = await stage.provider("--key", "sk-the-new-key")
    secret = stage.folder / "openai-key"
    secret.write_text("sk-the-old-key\n")
    provider = {"kind": "openai", "base_url": f"{openai.url}/v1", "api_key": f"file:{secret}"}
    routes = {"fast": ["openai/gpt-5"]}
    gateway = await stage.gateway(
        openai, config=document(routes=routes), GATEWAY_PROVIDERS=json.dumps({"openai": provider})
    )

    story.scene("OpenAI no longer takes the gateway's key")
    refused = await gateway.call()
    story.promise(
        "callers get 502, never a 401 that makes them doubt their own key", refused.status == 502, refused.status
    )
    problems = await gateway.look("/v1/health", ".problems")
    story.promise("health says whose key it is", any(p["kind"] == "provider_auth" for p in problems))

    story.scene("The on-call replaces the secret (kubectl apply); the kubelet swaps the mounted file")
    secret.write_text("sk-the-new-key\n")
    began = time.monotonic()
    while (answer := await gateway.call()).status != 200 and time.monotonic() - began < 8:
        await gateway.read("/v1/health")
    story.promise(
        "the new key is used without a restart", answer.status == 200, f"after {time.monotonic() - began:.1f} s"
    )

    story.scene("beta's key has leaked: it is taken out of the file")
    story.promise("it works until then", (await gateway.call(tenant="beta")).status == 200)
    gateway.write(document(routes=routes, tenants={"acme": {}}))
    began = time.monotonic()
    while (answer := await gateway.call(tenant="beta")).status != 401 and time.monotonic() - began < 8:
        pass
    story.promise("it is refused", answer.status == 401, f"after {time.monotonic() - began:.1f} s")
    story.promise("acme's is not", (await gateway.call()).status == 200)
    text = "\n".join(gateway.program.lines)
    story.promise("no key stands in the log", not any(key in text for key in ("sk-the-", "gw-acme-key", "gw-beta-key")))
