#!/usr/bin/env bash
# Locks what the image installs: every package with its hashes, from the bounds in setup.cfg.   deploy/lock.sh
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
python3 -m venv "$tool" && "$tool/bin/pip" install -q --disable-pip-version-check 'uv <1'
compile=("$tool/bin/uv" pip compile -q --universal --python-version 3.11 --generate-hashes --strip-extras --no-header --no-annotate --upgrade)
head='# Made by deploy/lock.sh from setup.cfg: what the image installs.'
{ echo "$head"; "${compile[@]}" setup.cfg --extra serve --extra redis --extra prices --extra jwt; } > "$tool/requirements.txt"
{ echo "$head"; echo 'setuptools>=77' | "${compile[@]}" -; } > "$tool/requirements-build.txt"
mv "$tool/requirements.txt" "$tool/requirements-build.txt" deploy/
