"""The compose file names files that exist, variables of the product, and times that fit. No engine runs it here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gateway_middleware import Settings
from gateway_middleware.settings.variables import VARIABLES
from gateway_middleware.tenancy.keys import digest
from manifests import ROOT
from running import KEY

FOLDER = ROOT / "deploy" / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]


def test_what_is_mounted_and_built_is_there() -> None:
    build = SERVICES["gateway"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).is_file()
    sources = [volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    for source in sources:
        assert (FOLDER / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]


def test_the_gateways_variables_are_those_of_the_product_and_are_read() -> None:
    variables = SERVICES["gateway"]["environment"]
    assert set(variables) <= {variable.name for variable in VARIABLES}
    asked_for = {
        "OPENAI_API_KEY": "sk-x",
        "GATEWAY_ADMIN_TOKEN": "a-token-of-sixteen-characters",
        "GATEWAY_TENANTS": '{"acme": {"keys": ["' + digest(KEY.encode()) + '"]}}',
    }
    written = {name: re.sub(r"\$\{(\w+):\?\}", lambda m: asked_for[m[1]], value) for name, value in variables.items()}
    settings = Settings.from_env(written)
    assert settings.storage_uri.reveal() == "redis://redis:6379/0"
    assert settings.replicas == 1
    assert not settings.warnings()


def test_it_has_time_to_leave() -> None:
    defaults = Settings()
    needed = defaults.drain_lag_seconds + defaults.drain_seconds + 2 + 5
    assert SERVICES["gateway"]["stop_grace_period"] == f"{needed:g}s"


def test_images_are_pinned_to_whole_versions() -> None:
    images = [service["image"] for service in SERVICES.values()]
    assert [image for image in images if not re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)?$", image)] == []


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_are_hardened_and_listen_on_this_machine_only(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_prometheus_scrapes_the_gateway_and_grafana_asks_prometheus() -> None:
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    (target,) = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"gateway:{Settings().port}"
    source = yaml.safe_load((FOLDER / "grafana" / "datasource.yaml").read_text("utf-8"))
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "prometheus.yml", tmp_path)
    shutil.copy(ROOT / "deploy" / "prometheus" / "alerts.yml", tmp_path)
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
