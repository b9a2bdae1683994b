"""Plots as SVG, made here: without a script in the page, in its colours, readable by keyboard and screen reader.

Every mark shows its exact value on hover and on focus; below each plot the templates write a table with the same
numbers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 960, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 12, 24
WIDEST = 48.0
"""The widest bar: a single day should not be as wide as the plot."""


@dataclass(frozen=True, slots=True)
class Series:
    """`values`: one for each step of the plot, from 0 on."""

    name: str
    values: Sequence[float]


def stacked(
    steps: Sequence[str], series: Sequence[Series], told: Callable[[float], str], *, label: str, axis: Sequence[str]
) -> Markup:
    """Bars, a stack for each step, the first series at the bottom. `steps` are their full names, `axis` what stands
    below them ("": nothing). There are eight colours."""
    count = len(steps)
    totals = [sum(one.values[i] for one in series) for i in range(count)]
    top, ticks = scale(max(totals, default=0.0))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = inner_width / max(count, 1)
    width = min(WIDEST, step - min(4.0, step * 0.2))
    parts = [_frame(ticks, top, told)]
    bars: list[list[str]] = [[] for _ in series]
    for i, name in enumerate(steps):
        x = LEFT + i * step
        tip = [f"{name}: {told(totals[i])}"]
        base = float(TOP + inner_height)
        for number, one in enumerate(series):
            value = one.values[i]
            if value <= 0:
                continue
            height = value / top * inner_height
            base -= height
            bars[number].append(f"M{x + (step - width) / 2:.1f},{base:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z")
            tip.append(f"{one.name}: {told(value)}")
        parts.append(
            f'<g class="mark" tabindex="0" role="img"><title>{escape(chr(10).join(tip))}</title>'
            f'<rect class="hit" x="{x:.1f}" y="{TOP}" width="{step:.1f}" height="{inner_height}"/></g>'
        )
    # One path for each series: with an element for each bar the page would be three times as large.
    parts += [f'<path class="s{number}" d="{"".join(drawn)}"/>' for number, drawn in enumerate(bars) if drawn]
    for i, text in enumerate(axis):
        if text:
            parts.append(
                f'<text x="{LEFT + (i + 0.5) * step:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(text)}</text>'
            )
    return Markup(  # noqa: S704 - every part that comes from elsewhere was escaped above
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def _frame(ticks: Sequence[float], top: float, told: Callable[[float], str]) -> str:
    inner_height = HEIGHT - TOP - BOTTOM
    lines = []
    for tick in ticks:
        y = TOP + inner_height * (1 - tick / top)
        lines.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(told(tick))}</text>'
        )
    return "".join(lines)


def scale(largest: float) -> tuple[float, list[float]]:
    """Where an axis ends, and the round values on it; the largest bar never reaches beyond them."""
    if largest < 1e-9 or not math.isfinite(largest):
        return 1.0, [0.0]
    rough = largest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    count = math.ceil(largest / step - 1e-9)
    return step * count, [step * i for i in range(count + 1)]


# --- windows of an account -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """A limit window against time: `used` and `elapsed` are fractions; `full_at` and `resets_at` unix seconds.

    `full_at` is when it would be full at its pace so far; None: not before it resets, or not known.
    """

    name: str
    used: float | None
    elapsed: float | None
    resets_at: float | None
    full_at: float | None
    status: str
    scope: str | None

    @property
    def level(self) -> str:
        """`ok`, `warn` or `bad`, for its colour."""
        if self.status == "rejected" or (self.used or 0) >= 1:
            return "bad"
        if self.status == "warning" or (self.used or 0) >= 0.8 or self.full_at is not None:
            return "warn"
        return "ok"


_LENGTH = re.compile(r"(\d+)(m|h|d)")
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def window(
    name: str, used: float | None, resets_at: float | None, status: str, scope: str | None, now: float
) -> Window:
    """From what an upstream reports. A name like `5h` or `7d` gives the length."""
    found = _LENGTH.match(name)
    if found is None or resets_at is None or resets_at <= now:
        return Window(name, used, None, resets_at, None, status, scope)
    length = int(found[1]) * _SECONDS[found[2]]
    elapsed = min(1.0, max(0.0, 1 - (resets_at - now) / length))
    full_at = None
    if used and elapsed > 0.02 and used < 1:
        at = now + (1 - used) / (used / (elapsed * length))
        full_at = at if at < resets_at else None
    return Window(name, used, elapsed, resets_at, full_at, status, scope)


def bar(part: float | None, level: str = "ok", mark: float | None = None, *, label: str = "") -> Markup:
    """A bar that is filled to `part`, with a mark at another fraction (how far its window is)."""
    filled = 0.0 if part is None else min(1.0, max(0.0, part)) * 100
    tick = "" if mark is None else f'<rect class="tick" x="{min(99.0, mark * 100):.1f}" y="0" width="1" height="8"/>'
    return Markup(  # noqa: S704 - numbers of ours; the label is escaped
        f'<svg class="bar {level}" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><rect class="track" width="100" height="8"/>'
        f'<rect class="fill" width="{filled:.1f}" height="8"/>{tick}</svg>'
    )


def spans(parts: Sequence[tuple[str, float]], *, label: str) -> Markup:
    """A bar of several parts one after the other (a request's timings); each says its length."""
    total = sum(length for _, length in parts) or 1.0
    x, rects = 0.0, []
    for number, (name, length) in enumerate(parts):
        width = length / total * 100
        told = f"{name}: {length * 1000:,.0f} ms"
        rects.append(
            f'<g class="mark" tabindex="0" role="img" aria-label="{escape(told)}"><title>{escape(told)}</title>'
            f'<rect class="s{number % 8}" x="{x:.2f}" y="0" width="{width:.2f}" height="10"/></g>'
        )
        x += width
    return Markup(  # noqa: S704 - as above
        f'<svg class="spans" viewBox="0 0 100 10" preserveAspectRatio="none" role="group" '
        f'aria-label="{escape(label)}">{"".join(rects)}</svg>'
    )
