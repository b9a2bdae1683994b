"""Bars and plots stand out from what is behind them; of text axe looks (test_pages)."""

from __future__ import annotations

import re

import pytest

from aimux.control.dashboard.rendering import files

THEMES = [
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for block in re.findall(r":root \{(.*?)\}", files()["style.css"].content.decode(), re.DOTALL)
]
SHAPES = ["fill", "fill-warn", "fill-bad", *[f"s{number}" for number in range(8)], "edge"]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_stand_out(theme: dict[str, str], name: str) -> None:
    """By three to one, as WCAG 1.4.11 has it: a bar from its track, too."""
    for behind in ("surface", "sunken") if name.startswith("fill") else ("surface",):
        darker, lighter = sorted((luminance(theme[name]), luminance(theme[behind])))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, behind
