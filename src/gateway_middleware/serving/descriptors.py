"""File descriptors of a process: as many as the system allows, and how many connections they are enough for."""

from __future__ import annotations

import resource

_OWN = 64
"""What a process needs beside calls: the journal, the log, Redis, the fleet's directory, the event loop."""


def needed_for(connections: int) -> int:
    """A call takes two: its client's connection, and one to a provider."""
    return 2 * connections + _OWN


def enough_for(descriptors: int) -> int:
    """For how many connections so many descriptors are enough, each with a call under way."""
    return max((descriptors - _OWN) // 2, 1)


def raise_limit(connections: int) -> int:
    """Have this process, and those that it begins, hold so many connections. Returns how many it may have.

    The soft limit of many shells and containers is 1,024, for programs that still use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed_for(connections)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else min(connections, enough_for(soft))
