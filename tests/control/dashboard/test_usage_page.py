"""What the page of usage makes of the API's sums."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from aimux.control.dashboard.usage import TOKENS, by_kind, span_of

pytest.importorskip("playwright", reason="the pages are tried in a browser")
from playwright.sync_api import expect

from tests.control.dashboard.conftest import TOKENS as USERS
from tests.control.dashboard.conftest import Site, Visitor

KINDS = {"input": 1.0, "output": 2.0, "cache_read": 0.25, "cache_write": 0.5, "saved": 3.0}


@pytest.mark.parametrize(
    ("total", "rest"),
    [(3.75, None), (3.754, None), (4.75, 1.0), (3.0, -0.75)],  # nothing else; less than a cent; dearer; a factor
)
def test_kinds_and_the_rest_are_the_total(total: float, rest: float | None) -> None:
    found = by_kind({"total": dict.fromkeys(TOKENS, 10) | {"cost_usd": total}, "kinds": KINDS})
    assert [name for name, _, _ in found[:4]] == ["Input", "Output", "Cache read", "Cache write"]
    assert found[4:] == ([] if rest is None else [("The rest", None, rest)])


def test_a_calendar_month_can_be_had_and_any_days(visitor: Visitor, site: Site) -> None:
    assert site.message(USERS["member"]) == 200
    (found,) = site.api("GET", "/requests?user=max&limit=1")["items"]
    day = found["time"][:10]
    page = visitor("viewer").go("usage?by=user&user=max")
    page.get_by_role("combobox", name="Time").select_option("from … to …")
    first, last = (
        date.fromisoformat(page.get_by_label(name, exact=True).input_value()) for name in ("From", "To the end of")
    )
    assert (first.day, (last + timedelta(days=1)).day, (last - first).days) in [(1, 1, n) for n in range(27, 31)]
    expect(page.get_by_label("Only user")).to_have_value("max")
    expect(page.get_by_text("Nothing that fits was used in this time.")).to_be_visible()
    page.get_by_label("From", exact=True).fill(day)
    page.get_by_label("To the end of").fill(day)
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("link", name="max")).to_be_visible()
    with page.expect_download() as file:
        page.get_by_role("link", name="CSV").click()
    assert "max" in Path(file.value.path()).read_text()


def test_a_token_is_shown_with_whose_it_is(visitor: Visitor, site: Site) -> None:
    assert site.message(USERS["member"]) == 200
    (found,) = site.api("GET", "/requests?user=max&limit=1")["items"]
    page = visitor("viewer").go("usage?by=token")
    row = page.get_by_role("rowheader").filter(has_text=found["token"])
    expect(row.filter(has_text="max")).to_be_visible()


@pytest.mark.parametrize(
    ("asked", "times", "bucket"),
    [
        ({"from": "2026-01-01", "to": "2026-01-31"}, ("2026-01-01", "2026-02-01"), "day"),
        ({"from": "2026-01-31", "to": "2026-01-01"}, ("2026-01-01", "2026-02-01"), "day"),
        ({"to": "2026-02-14"}, ("2026-02-01", "2026-02-15"), "day"),
        ({"from": "2026-02-13", "to": "2026-02-14"}, ("2026-02-13", "2026-02-15"), "hour"),
        ({"from": "2025-02-13", "to": "2026-02-14"}, ("2025-02-13", "2026-02-15"), "month"),
    ],
)
def test_days_begin_and_end(asked: dict[str, str], times: tuple[str, str], bucket: str) -> None:
    span = span_of({"since": "dates", **asked})
    assert ((span.times["since"], span.times["until"]), span.bucket) == (times, bucket)


@pytest.mark.parametrize("text", ["", "yesterday", "9999-12-31", "2026-13-01"])
def test_a_day_that_is_none_is_one_of_the_past(text: str) -> None:
    span = span_of({"since": "dates", "to": text})
    assert span.days["from"] <= span.days["to"] <= f"{datetime.now(UTC):%Y-%m-%d}"


def test_the_file_has_all_rows_however_many_the_api_gives_at_once(
    visitor: Visitor, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("member", "viewer", "admin"):
        assert site.message(USERS[role]) == 200
    monkeypatch.setattr("aimux.control.dashboard.usage.MOST", 1)
    file = visitor("viewer").context.request.get(f"{site.url}/dashboard/usage.csv?by=user").text()
    assert sorted(line.partition(",")[0] for line in file.splitlines()[1:]) == ["ada", "max", "vic"]
