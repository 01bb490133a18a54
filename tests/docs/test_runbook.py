"""The runbook against the product: each command that it names is answered, each alert leads to a section."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import httpx
import pytest

from gateway_middleware.simulator import Behaviour, Simulator
from running import KEY, gateway_for

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
ALERTS = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8")
ROUTING = (ROOT / "deploy" / "prometheus" / "alertmanager.yml").read_text("utf-8")
ADMIN = "an-admin-token-of-some-length"


def curls() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", RUNBOOK, re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return sorted({line.strip() for line in text.splitlines() if line.strip().startswith("curl")})


def request_of(command: str) -> tuple[str, str, dict[str, str], str | None]:
    """Method, path, headers and body of a curl command; what it is piped to is left out."""
    words = shlex.split(command.partition(" | ")[0].partition("   #")[0])
    method, headers, body, path = "GET", {}, None, ""
    for option, value in zip(words, [*words[1:], ""], strict=True):
        if option == "-X":
            method = value
        elif option == "-H":
            name, _, content = value.partition(": ")
            headers[name] = content.replace("$ADMIN", ADMIN).replace("$TENANT_KEY", KEY)
        elif option == "-d":
            body = value
        elif option.startswith("$GW"):
            path = option.removeprefix("$GW")
    return method, path, headers, body


def test_commands_are_found() -> None:
    assert len(curls()) > 15
    assert ("POST", "/v1/admin/reload", {"Authorization": f"Bearer {ADMIN}"}, None) in map(request_of, curls())


@pytest.mark.anyio
async def test_every_command_of_the_runbook_is_answered(tmp_path: Path) -> None:
    metrics = set()
    async with (
        Simulator().serve() as simulator,
        gateway_for(
            simulator.url, GATEWAY_ADMIN_TOKEN=ADMIN, GATEWAY_ROUTES='{"fast": ["openai/gpt-5", "azure/gpt5"]}',
            GATEWAY_JOURNAL=str(tmp_path / "j.db"), GATEWAY_QUEUE_SECONDS="1",
        ) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):  # fmt: skip
        simulator.simulator.behave(Behaviour(status=503), provider="openai")
        call = {"model": "fast", "messages": [{"role": "user", "content": "x"}]}
        await client.post("/v1/chat/completions", json=call, headers={"authorization": f"Bearer {KEY}"})
        for command in curls():
            method, path, headers, body = request_of(command)
            answer = await client.request(method, path, headers=headers, content=body)
            # This gateway has its settings from the test, and nobody's key is revoked: both are said in words.
            expected = {400} if path.endswith("/reload") else {404} if "sha256:..." in path else {200}
            assert answer.status_code in expected, (command, answer.text)
            metrics |= set(re.findall(r"grep \^(\w+)", command)) if path == "/metrics" else set()
        text = (await client.get("/metrics")).text
    assert {name for name in metrics if f"\n{name}" not in text} == set()


def test_every_alert_names_the_service_and_leads_to_a_section() -> None:
    headings = re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    names = re.findall(r"alert: (\w+)", ALERTS)
    labels = r"labels: \{severity: (?:critical|warning|info), service: model-gateway\}"
    assert len(re.findall(labels, ALERTS)) == len(names)
    links = re.findall(r"runbook_url: docs/runbook\.md#([\w-]+)", ALERTS)
    assert len(links) == len(names)
    assert set(links) <= anchors
    assert len(re.findall(r"^ +summary: ", ALERTS, re.MULTILINE)) == len(names)
    assert len(re.findall(r"^ +description: ", ALERTS, re.MULTILINE)) == len(names)


def test_one_base_leads_to_all_runbooks(tmp_path: Path) -> None:
    copy = tmp_path / "alerts.yml"
    copy.write_text(ALERTS)
    command = ["make", "-s", "alerts", "RUNBOOKS=https://wiki.example.org/gw", f"ALERTS={copy}"]
    for _ in range(2):  # again, from what it has made
        subprocess.run(command, cwd=ROOT, check=True)
        links = re.findall(r"runbook_url: (\S+)#", copy.read_text())
        assert set(links) == {"https://wiki.example.org/gw/runbook.md"}


def test_links_within_the_runbook_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK)) <= anchors
    files = re.findall(r"\]\(([\w./-]+)\)", RUNBOOK)
    assert [name for name in files if not (ROOT / "docs" / name).exists()] == []


def test_pages_and_tickets_have_their_receivers() -> None:
    routed = re.findall(r"matchers: \[(.*)\]\n +receiver: (\S+)", ROUTING)
    assert routed[0] == ('service="model-gateway", severity="critical"', "model-gateway-critical")
    receivers = set(re.findall(r"- name: (\S+)", ROUTING))
    assert {receiver for _, receiver in routed} | {"default"} == receivers
