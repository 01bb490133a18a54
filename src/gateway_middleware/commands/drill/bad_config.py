"""A broken configuration is written: it is told once, nothing changes, and `check` says it before the next start."""

from __future__ import annotations

from gateway_middleware.commands.drill.processes import start_module, until
from gateway_middleware.commands.drill.stage import Stage, document

SECTION = "a-configuration-was-not-taken"


async def play(stage: Stage) -> None:
    """A route to a provider that does not exist."""
    story = stage.story
    gateway = await stage.gateway(await stage.provider())
    before = await gateway.look("/v1/health", ".config_hash")

    story.scene("Somebody writes a route to a provider that does not exist")
    gateway.write(document(routes={"fast": ["opneai/gpt-5"]}))
    await until(lambda: any("reload_failed" in line for line in gateway.program.lines), 5)
    answers = await gateway.calls(20, at_once=4)
    lines = await gateway.grep("reload_failed")
    story.promise("it is told once", len(lines) == 1, len(lines))
    story.promise("calls go on", all(answer.status == 200 for answer in answers), len(answers))
    story.promise("with the old configuration", await gateway.read("/v1/health", ".config_hash") == before)

    story.scene("Asked to reload, the gateway says why not")
    answer = await gateway.command("/v1/admin/reload")
    story.promise("the complaint names the place", "routes.fast" in str(answer) and "opneai" in str(answer))
    checked = await start_module("gateway_middleware", "check", "--config", str(gateway.config), environment=CHECKED)
    status = await checked.wait()
    story.shell("model-gateway check --config gateway.toml; echo $?", "\n".join([*checked.lines, str(status)]))
    story.promise("`check` refuses the file, with one line", (status, len(checked.lines)) == (1, 1), status)

    story.scene("It is mended")
    gateway.write(document(routes={"fast": ["azure/gpt5"]}))
    took = await gateway.wait_for("/v1/health", ".config_hash", lambda value: value != before, 5)
    story.promise("the file is taken by itself", took is not None, f"after {took or 0:.1f} s")
    story.promise("and acts", (await gateway.call()).deployment == "azure/gpt5")


CHECKED = {"OPENAI_API_KEY": "sk-of-the-drill"}
