"""The tables of the peers: figures, their ratios, and what was on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.figures import aligned
from benchmarks.peers.known import FEATURES
from benchmarks.peers.measuring import MEASURES, START, TITLES, Result, Round

MARKS = ("<!-- peers: begin -->", "<!-- peers: end -->")
OURS = dict.fromkeys(FEATURES, "yes")
"""What is on of our gateway in `servers.full_environment`."""
_DIGITS = {**{measure.title: measure.digits for measure in MEASURES}, START: 2}
_NONE = "-"


def page(results: Sequence[Result], *, version: str) -> str:
    """All three, with a line before each; `version` is that of our gateway."""
    return "\n\n".join([
        "Medians:",
        aligned(values(results)),
        "To nginx / to this gateway, medians of the ratios of neighbouring runs:",
        aligned(ratios(results)),
        "What was on of each, without a database, and what went wrong:",
        aligned(features(results, version=version), left=range(len(FEATURES) + 3)),
    ])  # fmt: skip


def values(results: Sequence[Result]) -> list[list[str]]:
    """A row for nginx, one for our gateway over all their runs, and one for each peer."""

    def row(name: str, of: Sequence[Result], side: int) -> list[str]:
        return [
            name,
            *(_cell(title, [r for result in of for r in result.rounds.get(title, ())], side) for title in TITLES),
        ]

    return [["", *TITLES], row("nginx", results, 0), row("**gateway**", results, 1)] + [
        row(result.peer.name, [result], 2) for result in results
    ]


def _cell(title: str, rounds: Sequence[Round], side: int) -> str:
    found = [value for value in (r[side] for r in rounds) if value is not None]
    return f"{statistics.median(found):,.{_DIGITS[title]}f}" if found else _NONE


def ratios(results: Sequence[Result]) -> list[list[str]]:
    """A row for each peer."""
    return [["", *TITLES]] + [
        [result.peer.name, *(_ratio(result.rounds.get(title, ())) for title in TITLES)] for result in results
    ]


def _ratio(rounds: Sequence[Round]) -> str:
    if not rounds:
        return _NONE
    to_nginx = [peer / nginx for nginx, _, peer in rounds if nginx]
    to_gateway = statistics.median(peer / gateway for _, gateway, peer in rounds)
    return f"{_factor(statistics.median(to_nginx)) if to_nginx else _NONE} / {_factor(to_gateway)}"


def _factor(ratio: float) -> str:
    """Two or three digits that count."""
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:.1f} x" if ratio >= 10 else f"{ratio:.2f} x"


def features(results: Sequence[Result], *, version: str) -> list[list[str]]:
    """A row for our gateway and one for each peer, whether it was measured or not."""
    ours = ["**gateway**", version, *(OURS[name] for name in FEATURES), ""]
    return [["", "version", *FEATURES, "remarks"], ours] + [
        [
            result.peer.name,
            result.version or _NONE,
            *(result.peer.on.get(name, _NONE) for name in FEATURES),
            _plain("; ".join(filter(None, [result.peer.note, *result.troubles]))),
        ]
        for result in results
    ]


def _plain(text: str) -> str:
    """Text that cannot end a cell of Markdown, nor begin markup in it."""
    return text.translate({ord("|"): "/", ord("\n"): " ", ord("<"): "(", ord(">"): ")", 27: ""})
