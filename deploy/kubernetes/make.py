"""Makes what follows from other files: the PrometheusRule from alerts.yml, and the rendered overlays (kubectl kustomize).

python deploy/kubernetes/make.py            # writes them
python deploy/kubernetes/make.py --check    # says what is not up to date, and fails
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ALERTS = HERE.parent / "prometheus" / "alerts.yml"
RULE = HERE / "components" / "monitoring" / "prometheusrule.yaml"
OVERLAYS = ("single", "fleet", "stateful")
_HEAD = "# Made by deploy/kubernetes/make.py: do not edit.\n"


def prometheus_rule() -> str:
    """The alerts as the Prometheus operator takes them."""
    labels = {
        "app": "model-gateway",
        "app.kubernetes.io/name": "model-gateway",
        "app.kubernetes.io/component": "gateway",
    }
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "model-gateway", "labels": labels},
        "spec": yaml.safe_load(ALERTS.read_text("utf-8")),
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, width=1000, allow_unicode=True)


def rendered(overlay: str) -> str:
    """All objects of an overlay."""
    command = ["kubectl", "kustomize", str(HERE / "overlays" / overlay)]
    return _HEAD + subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def main() -> int:
    """The rule comes first: overlays have it in them."""
    is_check, stale = "--check" in sys.argv[1:], []
    wanted = {RULE: prometheus_rule}
    wanted |= {HERE / "rendered" / f"{name}.yaml": lambda name=name: rendered(name) for name in OVERLAYS}
    for path, make in wanted.items():
        text = make()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.relative_to(HERE))
            if not is_check:
                path.write_text(text, "utf-8")
    for path in stale:
        print(f"{path}: {'is not up to date' if is_check else 'written'}")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
