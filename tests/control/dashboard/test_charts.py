"""Plots: what they say, and that nothing which a stranger chose becomes markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.control.dashboard.charts import Series, bar, scale, spans, stacked, window

NOW = 1_800_000_000.0
HOUR = 3600.0


def told(value: float) -> str:
    return f"{value:g}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def test_each_step_says_its_exact_values() -> None:
    svg = parsed(
        stacked(["Mon", "Tue"], [Series("ada", [1, 2]), Series("bob", [3, 0])], told, label="Tokens", axis=["Mon", ""])
    )
    marks = [g for g in svg.iter("g") if g.get("class") == "mark"]
    assert all(mark.get("tabindex") == "0" for mark in marks)
    assert [mark.find("title").text for mark in marks] == ["Mon: 4\nada: 1\nbob: 3", "Tue: 2\nada: 2"]  # type: ignore[union-attr]


def test_a_bar_is_as_high_as_its_value() -> None:
    svg = parsed(stacked(["a", "b"], [Series("x", [10, 5])], told, label="", axis=["", ""]))
    (path,) = [one.get("d", "") for one in svg.iter("path") if one.get("class") == "s0"]
    heights = [float(height) for height in re.findall(r"v([\d.]+)", path)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)


@given(st.text(max_size=40))
def test_names_are_text_whatever_they_hold(name: str) -> None:
    svg = stacked([name], [Series(name, [1.0])], told, label=name, axis=[name])
    # Characters that no XML may hold are not the plot's business: a page is HTML, which drops them.
    for tag in re.findall(r"</?([A-Za-z][\w]*)", svg):
        assert tag in {"svg", "g", "rect", "title", "text", "line", "path"}
    assert " style=" not in svg
    assert "<script" not in svg


@given(st.floats(min_value=0, max_value=1e15))
def test_an_axis_reaches_as_far_as_the_largest_value_and_not_far_beyond(largest: float) -> None:
    top, ticks = scale(largest)
    assert top >= largest * 0.999
    assert len(ticks) <= 6
    if largest > 1e-9:
        assert top <= largest * 2.6
        assert ticks[-1] == pytest.approx(top)


def test_a_window_is_told_against_time() -> None:
    one = window("5h", 0.5, NOW + 4 * HOUR, "allowed", None, NOW)  # a fifth of it has gone by
    assert one.elapsed == pytest.approx(0.2)
    assert one.full_at == pytest.approx(NOW + HOUR)  # half of it took an hour, and so will the rest
    assert one.level == "warn"


def test_a_window_that_lasts_at_this_pace_is_not_said_to_be_full() -> None:
    one = window("7d", 0.1, NOW + 84 * HOUR, "allowed", None, NOW)
    assert one.elapsed == pytest.approx(0.5)
    assert (one.full_at, one.level) == (None, "ok")


@pytest.mark.parametrize(
    ("used", "status", "level"), [(1.0, "allowed", "bad"), (0.2, "rejected", "bad"), (0.85, "allowed", "warn")]
)
def test_the_level_of_a_window(used: float, status: str, level: str) -> None:
    assert window("requests", used, None, status, None, NOW).level == level


def test_a_window_of_unknown_length_or_past_has_no_time() -> None:
    assert window("requests", 0.5, NOW + 10, "allowed", None, NOW).elapsed is None
    assert window("5h", 0.5, NOW - 10, "allowed", None, NOW).elapsed is None


def test_a_bar_never_leaves_its_frame() -> None:
    for part in (None, -1.0, 0.0, 0.5, 7.0):
        fill = next(rect for rect in parsed(bar(part)).iter("rect") if rect.get("class") == "fill")
        assert 0 <= float(fill.get("width", "")) <= 100


def test_the_parts_of_a_time_fill_it() -> None:
    svg = parsed(spans([("waiting", 0.5), ("streaming", 1.5)], label="Time"))
    assert [float(rect.get("width", "")) for rect in svg.iter("rect")] == [25.0, 75.0]
    assert [g.get("aria-label") for g in svg.iter("g")] == ["waiting: 500 ms", "streaming: 1,500 ms"]
