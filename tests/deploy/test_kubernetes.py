"""The manifests are valid, rendered as committed, and say what is true of the product."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from gateway_middleware import Settings
from gateway_middleware.core.endpoints import locate
from gateway_middleware.settings.variables import VARIABLES
from manifests import KUBERNETES, OVERLAYS, ROOT, container, environment, make_script, objects, one, pod, workload
from redis_process import free_port
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
DEFAULTS = Settings()
CLOSING_SECONDS = 2
"""What leaving takes beyond lag and drain (docs/serving.md)."""
MEBIBYTE = 1 << 20
NAMES = {variable.name for variable in VARIABLES}
SECRET_KEYS = {"openai-api-key", "admin-token"}
SHARED_KEYS = {"storage-uri", "redis-password"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_committed_is_what_kustomize_renders(overlay: str) -> None:
    assert (KUBERNETES / "rendered" / f"{overlay}.yaml").read_text("utf-8") == make_script().rendered(overlay)


def test_the_rule_of_the_operator_is_the_file_of_alerts(tmp_path: Path) -> None:
    script = make_script()
    assert script.RULE.read_text("utf-8") == script.prometheus_rule()
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8"))
    assert one("fleet", "PrometheusRule")["spec"] == one("stateful", "PrometheusRule")["spec"] == alerts


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_rendered_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(one("fleet", "PrometheusRule")["spec"]))
    done = subprocess.run(["promtool", "check", "rules", rules], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def distinct() -> list[Any]:
    """Every object of every overlay, equal ones once: the validator takes a second for each."""
    texts: dict[str, Any] = {}
    for overlay in OVERLAYS:
        for document in objects(overlay):
            name = f"{overlay}-{document['kind']}-{document['metadata']['name']}"
            texts.setdefault(json.dumps(document, sort_keys=True), pytest.param(document, id=name))
    return list(texts.values())


FOREIGN = {"PrometheusRule", "ServiceMonitor"}
"""Of the Prometheus operator: the schemas of Kubernetes do not know them."""


@pytest.mark.parametrize("document", distinct())
def test_every_object_is_valid_by_the_schemas_of_kubernetes(document: dict[str, Any]) -> None:
    if document["kind"] in FOREIGN:
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
    else:
        kubernetes_validate.validate(document, "1.37", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_valid_in_the_oldest_version_that_knows_their_fields(overlay: str) -> None:
    kubernetes_validate.validate(workload(overlay), "1.30", strict=True)


def test_the_validator_refuses_what_is_wrong() -> None:
    wrong = workload("single")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_one_of_the_product_and_is_read(overlay: str, tmp_path: Path) -> None:
    variables = environment(overlay)
    assert set(variables) - NAMES == {"TMPDIR"}
    mounted = mount_files(overlay, tmp_path)
    settings = Settings.from_env({name: with_paths(value, mounted) for name, value in variables.items()})
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    assert [tenant.name for tenant in settings.tenants] == ["acme"]
    assert settings.admin_token is not None
    if overlay != "single":
        assert settings.storage_uri.reveal() == "redis://:a-password@model-gateway-redis:6379/0"
        assert settings.replicas == one(overlay, "HorizontalPodAutoscaler")["spec"]["maxReplicas"]


def mount_files(overlay: str, folder: Path) -> dict[str, Path]:
    """ConfigMap and Secret as files; the folders by the path at which they are mounted."""
    config, secrets = folder / "config", folder / "secrets"
    config.mkdir()
    secrets.mkdir()
    for name, text in one(overlay, "ConfigMap", "model-gateway")["data"].items():
        (config / name).write_text(text)
    values = {"storage-uri": "redis://:a-password@model-gateway-redis:6379/0", "redis-password": "a-password"}
    for name in SECRET_KEYS | (SHARED_KEYS if overlay != "single" else set()):
        (secrets / name).write_text(values.get(name, "a-secret-of-sixteen-characters"))
    mounts = {mount["name"]: mount["mountPath"] for mount in container(overlay)["volumeMounts"]}
    return {mounts["config"]: config, mounts["secrets"]: secrets, mounts["journal"]: folder}


def with_paths(value: str, mounted: dict[str, Path]) -> str:
    for path, folder in mounted.items():
        value = value.replace(path, str(folder))
    return value


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_written_goes_to_volumes_that_can_be_written(overlay: str) -> None:
    mounts = {mount["mountPath"]: mount for mount in container(overlay)["volumeMounts"]}
    variables = environment(overlay)
    for name in ("GATEWAY_JOURNAL", "GATEWAY_FLEET_DIRECTORY", "TMPDIR"):
        (mount,) = (mount for path, mount in mounts.items() if (variables[name] + "/").startswith(path + "/"))
        assert "readOnly" not in mount
    claims = [claim["metadata"]["name"] for claim in workload(overlay)["spec"].get("volumeClaimTemplates", [])]
    volumes = {volume["name"] for volume in pod(overlay)["volumes"]} | set(claims)
    assert {mount["name"] for mount in mounts.values()} == volumes
    assert claims == (["journal"] if overlay == "stateful" else [])


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_every_probe_and_every_scrape_is_answered(overlay: str) -> None:
    spec = container(overlay)
    probes = [spec[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    paths = {probe["path"] for probe in probes}
    if overlay != "single":
        paths |= {endpoint["path"] for endpoint in one(overlay, "ServiceMonitor")["spec"]["endpoints"]}
    (port,) = spec["ports"]
    assert {probe["port"] for probe in probes} == {port["name"]}
    assert port["containerPort"] == int(environment(overlay)["GATEWAY_PORT"])
    async with gateway_for("http://127.0.0.1:9") as url, httpx.AsyncClient(trust_env=False) as client:
        for path in paths:
            assert (await client.get(url + path)).status_code == 200, path


def test_liveness_touches_nothing_and_readiness_is_what_flips() -> None:
    spec = container("fleet")
    live = {locate(spec[f"{kind}Probe"]["httpGet"]["path"]) for kind in ("startup", "liveness")}
    assert [endpoint.label for endpoint in live if endpoint] == ["healthz"]
    assert spec["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_leave(overlay: str) -> None:
    variables = environment(overlay)
    lag = float(variables.get("GATEWAY_DRAIN_LAG_SECONDS", DEFAULTS.drain_lag_seconds))
    drain = float(variables.get("GATEWAY_DRAIN_SECONDS", DEFAULTS.drain_seconds))
    pause = container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(overlay)["terminationGracePeriodSeconds"] == pause + lag + drain + CLOSING_SECONDS + 5
    readiness = container(overlay)["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= lag


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_pinned(overlay: str) -> None:
    """A tag that names a whole version: `IfNotPresent` is right only where tags are not moved."""
    images = re.findall(
        r"^ +image: (.+)$", (KUBERNETES / "rendered" / f"{overlay}.yaml").read_text("utf-8"), re.MULTILINE
    )
    assert images
    assert [image for image in images if not re.search(r":\d+\.\d+\.\d+(-[a-z]+)?$", image)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_room_for_what_the_product_lets_in(overlay: str) -> None:
    resources = container(overlay)["resources"]
    assert _bytes(resources["limits"]["memory"]) >= 2 * DEFAULTS.max_bodies_bytes + 200 * MEBIBYTE
    assert "cpu" not in resources["limits"]


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": MEBIBYTE, "Gi": 1024 * MEBIBYTE}[quantity[-2:]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_hardened(overlay: str) -> None:
    templates = [o["spec"]["template"]["spec"] for o in objects(overlay) if o["kind"] in {"Deployment", "StatefulSet"}]
    for spec in templates:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
        for found in spec["containers"]:
            assert found["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_gateways_pods_and_no_others(overlay: str) -> None:
    labels = workload(overlay)["spec"]["template"]["metadata"]["labels"]
    assert labels["app"] == "model-gateway"
    assert {"name", "instance", "version", "component", "part-of"} <= {
        name.partition("/")[2] for name in labels if name.startswith("app.kubernetes.io/")
    }
    service, policy = one(overlay, "Service")["spec"], one(overlay, "NetworkPolicy")["spec"]
    for selector in (service["selector"], policy["podSelector"]["matchLabels"], *_constraints(overlay)):
        assert selector.items() <= labels.items()
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(80, "http")]
    if overlay != "single":
        assert one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
        redis = one(overlay, "Deployment", "model-gateway-redis")["spec"]["template"]["metadata"]["labels"]
        assert not service["selector"].items() <= redis.items()


def _constraints(overlay: str) -> list[dict[str, str]]:
    constraints = pod(overlay)["topologySpreadConstraints"]
    assert {constraint["topologyKey"] for constraint in constraints} == {
        "topology.kubernetes.io/zone", "kubernetes.io/hostname",
    }  # fmt: skip
    return [constraint["labelSelector"]["matchLabels"] for constraint in constraints]


@pytest.mark.parametrize("overlay", ["fleet", "stateful"])
def test_the_autoscaler_scales_what_is_there(overlay: str) -> None:
    spec = one(overlay, "HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"]["kind"] == workload(overlay)["kind"]
    assert "replicas" not in workload(overlay)["spec"]
    if overlay == "stateful":
        assert (
            workload(overlay)["spec"]["serviceName"]
            == one(overlay, "Service", "model-gateway-pods")["metadata"]["name"]
        )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_secret_is_referred_to_and_its_keys_are_written_down(overlay: str) -> None:
    assert all(o["kind"] != "Secret" for o in objects(overlay))
    text = json.dumps(objects(overlay))
    assert set(re.findall(r'"secretName": "([^"]*)"', text)) == {"model-gateway-secrets"}
    keys = set(re.findall(r"/secrets/([a-z-]+)", text))
    assert keys == SECRET_KEYS | (SHARED_KEYS if overlay != "single" else set())
    page = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    for key in keys:
        assert f"`{key}`" in page


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_the_redis_of_the_fleet_asks_for_its_password(tmp_path: Path) -> None:
    """Its command as it stands, but for paths and port."""
    found: dict[str, Any] = one("fleet", "Deployment", "model-gateway-redis")["spec"]["template"]["spec"]["containers"][
        0
    ]
    (tmp_path / "redis-password").write_text("a-password")
    port = free_port()
    script = re.sub("/etc/redis/secrets|/tmp(?=[/\\\\])", str(tmp_path), found["args"][0])
    script = script.rstrip() + f" --port {port}"
    with subprocess.Popen([*found["command"], script], stdout=subprocess.DEVNULL) as process:
        try:
            assert _said(port, "PING").startswith("NOAUTH")
            assert _said(port, "-a", "a-password", "CONFIG", "GET", "maxmemory-policy").endswith("noeviction")
        finally:
            process.terminate()
        assert process.wait(timeout=10) == 0


def _said(port: int, *arguments: str) -> str:
    for _ in range(100):
        command = ["redis-cli", "-p", str(port), "--no-auth-warning", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if "refused" not in done.stdout + done.stderr:
            return done.stdout.strip()
        time.sleep(0.05)
    raise AssertionError("redis-server does not listen")


def test_key_digests_of_the_example_let_nobody_in() -> None:
    listed = one("single", "ConfigMap", "model-gateway")["data"]["gateway.toml"]
    assert "sha256:" + 64 * "0" in listed
    assert KEY not in listed
