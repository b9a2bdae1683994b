"""The one table, and its place in bench/README.md."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import traffic

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: python -m bench --write -->", "<!-- end of table -->"


@dataclass
class Results:
    """`values`: contender → measure → one value a round, in seconds or bytes. `skipped`: who or what → why."""

    values: dict[str, dict[str, list[float]]]
    versions: dict[str, str]
    skipped: dict[str, str]

    def median(self, contender: str, measure: str) -> float | None:
        found = self.values.get(contender, {}).get(measure)
        return statistics.median(found) if found else None

    def ratio(self, ours: str, theirs: str, measure: str) -> float | None:
        """The median of the rounds' ratios: what is compared was measured one right after the other.

        None where one of the two is missing, if only in one round.
        """
        found, others = (self.values.get(name, {}).get(measure, []) for name in (ours, theirs))
        if not found or len(found) != len(others):
            return None
        return statistics.median(one / other for one, other in zip(found, others, strict=True))

    def event(self, contender: str) -> float | None:
        """The cost of one event: what a turn costs more than a short one, over the events that it has more."""
        turn, short = self.median(contender, "turn"), self.median(contender, "short")
        return None if turn is None or short is None else (turn - short) / (traffic.EVENTS - traffic.FEW_EVENTS)


def _cell(value: float | None, scale: float, digits: int = 0) -> str:
    return "–" if value is None else f"{value * scale:.{digits}f}"


def table(results: Results, rounds: int, streams: int) -> str:
    """The table in Markdown, with what goes with it."""
    columns: list[tuple[str, Callable[[str], str]]] = [
        ("CPU per small request, µs", lambda name: _cell(results.median(name, "small"), 1e6)),
        ("CPU per real turn, ms", lambda name: _cell(results.median(name, "turn"), 1e3, 2)),
        ("CPU per event, µs", lambda name: _cell(results.event(name), 1e6, 1)),
        ("added latency p50, µs", lambda name: _cell(results.median(name, "p50"), 1e6)),
        ("p99, µs", lambda name: _cell(results.median(name, "p99"), 1e6)),
        (f"RSS with {streams:,} streams, MB", lambda name: _cell(results.median(name, "rss"), 1e-6)),
        ("first answer after, ms", lambda name: _cell(results.median(name, "start"), 1e3)),
    ]
    lines = [
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {_machine()}; medians of {rounds} round{'s' * (rounds != 1)}, "
        "one core for each contender.",
        "",
        "| | " + " | ".join(title for title, _ in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    lines += [f"| {name} | " + " | ".join(cell(name) for _, cell in columns) + " |" for name in results.values]
    lines += ["", "; ".join(f"{name}: {version}" for name, version in sorted(results.versions.items())) + "."]
    if ratios := _ratios(results):
        lines += ["", *ratios]
    lines += ["", *(f"Left out: {name}: {reason}." for name, reason in results.skipped.items())][
        : len(results.skipped) + 1
    ]
    return "\n".join(lines).rstrip() + "\n"


def _ratios(results: Results) -> list[str]:
    lines = []
    for measure, what in (("turn", "A real turn"), ("small", "A small request")):
        parts = [
            f"{ratio:.2f}× {peer}"
            for peer in ("nginx", "uvloop, bytes alone", "Go ReverseProxy")
            if (ratio := results.ratio("aimux", peer, measure)) is not None
        ]
        if parts:
            lines.append(f"{what} costs aimux {', '.join(parts)}.")
        for peer in ("Link.Assistant.Router", "LiteLLM"):
            if (ratio := results.ratio(peer, "aimux", measure)) is not None:
                lines.append(f"{what} costs {peer} {ratio:.1f}× aimux.")
    for kind, what in (("turn", "a real turn"), ("small", "a small request")):
        if (ratio := results.ratio("aimux, TLS upstream", "nginx, TLS upstream", kind)) is not None:
            lines.append(f"With TLS to the upstream {what} costs aimux {ratio:.2f}× nginx.")
    for kind, what in (("turn", "a real turn"), ("small", "a small request")):
        parts = [
            f"{ratio:.2f}× {peer}"
            for peer in ("nginx", "Go ReverseProxy", "aimux")
            if (ratio := results.ratio("aimux, compiled", peer, kind)) is not None
        ]
        if parts:
            lines.append(f"Compiled, {what} costs {', '.join(parts)}.")
    if (ratio := results.ratio("aimux, 10,000 users", "aimux", "small")) is not None:
        lines.append(f"With 10,000 users a small request costs {ratio:.2f}× what it costs with one.")
    for kind, what in (("small", "a small request"), ("turn", "a real turn")):
        if (ratio := results.ratio("aimux, limits, ledger and 10,000 users", "aimux, no ledger", kind)) is not None:
            lines.append(f"Limits, ledger and 10,000 users together make {what} cost {ratio:.3f}× as much.")
        if (ratio := results.ratio("aimux, 20 accounts and models", "aimux", kind)) is not None:
            lines.append(f"With 20 accounts and models routed {what} costs {ratio:.2f}× the single-account path.")
    return lines


def _machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Linux {'.'.join(platform.release().split('.')[:2])}"


def write_readme(text: str) -> None:
    """Put the table between its markers in bench/README.md."""
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
