"""How the pages write numbers, money and times."""

from __future__ import annotations

import time
from urllib.parse import unquote

import pytest
from aiohttp.test_utils import make_mocked_request
from markupsafe import escape

from aimux.control.dashboard.page import MOST_TOLD, NOTICE, go, shown
from aimux.control.dashboard.rendering import (
    ago,
    amount,
    duration,
    environment,
    exact,
    moment,
    money,
    percent,
    short,
    until,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (12_345, "12.3 k"),
        (999_600, "1.00 M"),
        (1_234_567, "1.23 M"),
        (250_000_000, "250 M"),
        (3e9, "3.00 B"),
    ],
)
def test_counts_have_three_digits(value: float, text: str) -> None:
    assert short(value) == text


def test_what_is_shortened_is_exact_on_hover() -> None:
    assert amount(1_234_567) == '<span class="n" title="1,234,567">1.23 M</span>'
    assert amount(12) == "12"
    assert (amount(None), exact(None)) == ("–", "–")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "$0.00"), (0.0004, "<$0.01"), (0.02, "$0.02"), (1234.5, "$1,234.50"), (-3.951, "−$3.95"), (-0.001, "−<$0.01")],
)
def test_money(value: float, text: str) -> None:
    assert f">{escape(text)}<" in str(money(value))


def test_no_name_is_read_in_another_order() -> None:
    page = environment().from_string("{{ name }}")
    assert page.render(name="claude-\u202eevil") == "claude-\\u202eevil"
    assert page.render(name="<שלום>") == "&lt;שלום&gt;"


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0.0, "0 %"),
        (0.004, "0 %"),
        (0.996, "99 %"),
        (1.0, "100 %"),
        (1.7, "170 %"),
        (9.99, "999 %"),
        (5e9, ">999 %"),
        (None, "–"),
    ],
)
def test_a_part_is_never_all_before_it_is(part: float | None, text: str) -> None:
    assert percent(part) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.48, "480 ms"),
        (2.34, "2.3 s"),
        (59.6, "60 s"),
        (90, "1 min"),
        (5 * 3600 + 20 * 60, "5 h 20 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (40 * 86400, "40 d"),
        (None, "–"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_told_from_here_and_are_exact_on_hover() -> None:
    now = time.time()
    assert ">3 h ago<" in ago(now - 3 * 3600)
    assert ">in 2 d<" in until(now + 2 * 86400 + 5)
    assert ago(None) == "never"
    assert moment("2026-11-26T08:00:00Z") == (
        '<time datetime="2026-11-26T08:00:00Z" title="2026-11-26 08:00:00 UTC" data-moment>2026-11-26 08:00 UTC</time>'
    )


@pytest.mark.parametrize("text", ["", "{", "[]", 5000 * "["])
def test_a_form_that_says_nothing_readable_of_its_page_says_nothing(text: str) -> None:
    assert shown({"shown": text}) == {}


@pytest.mark.parametrize("text", ["a" * 10_000, "→" * 10_000, "short", ""], ids=["long", "wide", "short", "none"])
def test_what_is_told_on_the_next_page_fits_a_cookie(text: str) -> None:
    answer = go(make_mocked_request("POST", "/dashboard/people"), "people", text)
    told = answer.cookies[f"__Host-{NOTICE}"].value if text else ""
    assert len(told) <= MOST_TOLD
    assert text.startswith(unquote(told).removeprefix("ok:").rstrip(" …"))
    assert not text or unquote(told).startswith(f"ok:{text[:200]}")
