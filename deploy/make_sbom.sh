#!/usr/bin/env bash
# Writes what an installation with every extra for production consists of, as a CycloneDX document (JSON): make_sbom.sh FILE
set -euo pipefail
file=$(realpath -m "${1:?usage: make_sbom.sh FILE}")
cd "$(dirname "$0")/.."
mkdir -p "$(dirname "$file")"
rooms=$(mktemp -d)
trap 'rm -rf "$rooms"' EXIT

python3 -m venv "$rooms/gateway" && python3 -m venv "$rooms/tool"
"$rooms/gateway/bin/pip" install -q --disable-pip-version-check '.[serve,redis,prices,otel]'
"$rooms/tool/bin/pip" install -q --disable-pip-version-check 'cyclonedx-bom >=7,<8'
"$rooms/tool/bin/cyclonedx-py" environment --of JSON --output-reproducible -o "$file" "$rooms/gateway/bin/python"
echo "$file: $(grep -c '"bom-ref"' "$file") components"
