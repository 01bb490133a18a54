"""Agents and frameworks of others: `tox -e agents` installs and tries them; elsewhere they are not collected."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("AGENTS_NODE_MODULES") else ["test_*.py"]
