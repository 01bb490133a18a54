"""What the manifests of deploy/kubernetes say, and a gateway as they start it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("single", "fleet", "stateful")


def objects(overlay: str) -> list[dict[str, Any]]:
    """Of a rendered overlay."""
    return list(yaml.safe_load_all((KUBERNETES / "rendered" / f"{overlay}.yaml").read_text("utf-8")))


def one(overlay: str, kind: str, name: str = "model-gateway") -> dict[str, Any]:
    """The only object of this kind and name."""
    (found,) = (o for o in objects(overlay) if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


def workload(overlay: str) -> dict[str, Any]:
    """The Deployment or StatefulSet of the gateway."""
    return one(overlay, "StatefulSet" if overlay == "stateful" else "Deployment")


def pod(overlay: str) -> dict[str, Any]:
    """The spec of the gateway's pods."""
    spec: dict[str, Any] = workload(overlay)["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> dict[str, Any]:
    """The gateway's container."""
    (found,) = pod(overlay)["containers"]
    assert isinstance(found, dict)
    return found


def environment(overlay: str) -> dict[str, str]:
    """The variables of the gateway's container."""
    return {variable["name"]: variable["value"] for variable in container(overlay)["env"]}


def make_script() -> Any:
    """`make.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_manifests", KUBERNETES / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
