# The commands of a working day. `make` alone lists them.
PYTHON ?= .venv/bin/python

.PHONY: alerts lock manifests help install check format lint types floors test docs bench package sbom

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

install:  ## an environment with everything that the checks need
	python3 -m venv .venv
	$(PYTHON) -m pip install -q -e '.[lint,serve,test]'

check: lint types floors test  ## what has to be green before a change is proposed

format:  ## format and mend what ruff can mend
	$(PYTHON) -m ruff format src tests benchmarks deploy
	$(PYTHON) -m ruff check --fix src tests benchmarks deploy

lint:  ## ruff: style and faults
	$(PYTHON) -m ruff check src tests benchmarks deploy
	$(PYTHON) -m ruff format --check src tests benchmarks deploy

types:  ## mypy --strict
	$(PYTHON) -m mypy src tests benchmarks

floors:  ## import-linter: who may import whom
	$(PYTHON) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

test:  ## the test suite
	$(PYTHON) -m pytest -q

docs:  ## the documentation as a site, in site/
	$(PYTHON) -m mkdocs build --strict

bench:  ## the benchmarks, against nginx
	$(PYTHON) -m benchmarks

package:  ## wheel and source distribution, in dist/
	$(PYTHON) -m pip install -q build
	$(PYTHON) -m build

lock:  ## what the image installs, with hashes, from the bounds of setup.cfg
	deploy/lock.sh

RUNBOOKS ?= docs
ALERTS ?= deploy/prometheus/alerts.yml

alerts:  ## where the runbook stands, into every alert: RUNBOOKS=https://...
	sed -i.bak -E 's|(runbook_url: ).*/(runbook\.md#)|\1$(RUNBOOKS)/\2|' $(ALERTS) && rm $(ALERTS).bak

manifests:  ## the Kubernetes manifests that follow from others
	$(PYTHON) deploy/kubernetes/make.py

sbom:  ## what an installation consists of, as CycloneDX JSON, in dist/
	deploy/make_sbom.sh dist/sbom.cdx.json
