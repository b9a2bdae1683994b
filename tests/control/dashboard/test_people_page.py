"""The page *People*, where there are many of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from aimux.control.dashboard import groups, people
from tests.control.dashboard.conftest import Site, Visitor, send

pytestmark = pytest.mark.browser


@pytest.fixture
def three_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for pages in (people, groups):
        monkeypatch.setattr(pages, "AT_ONCE", 3)


def _has(page: Page, *names: str) -> None:
    expect(page.locator("#users tbody th a")).to_have_text(names)


@pytest.fixture(scope="module")
def seven(site: Site) -> Site:
    """Beside ada, max and vic: dora, emil, emma and fred; the last two have a token each."""
    for name in ("fred", "emma", "emil", "dora"):
        site.api("POST", "/users", {"name": name, "email": f"{name}@example.org"})
    site.api("PUT", "/limits/user/fred", {"requests_per_minute": 4, "tokens_per_day": 10**9})
    for name in ("emma", "fred"):
        assert site.message(site.api("POST", "/tokens", {"user": name, "label": f"laptop of {name}"})["token"]) == 200
    return site


@pytest.mark.usefixtures("three_at_once")
def test_users_come_a_page_at_a_time(visitor: Visitor, seven: Site) -> None:
    page = visitor("viewer").go("people")
    _has(page, "ada", "dora", "emil")
    expect(page.locator("#users").get_by_role("button")).to_have_count(0)  # a part of a list is not sorted
    page.get_by_role("link", name="Next ones").click()
    expect(page).to_have_url(re.compile("after=emil"))
    _has(page, "emma", "fred", "max")
    fred = page.locator("#users tr", has_text="fred")
    expect(fred.locator('[data-label="Tokens"]')).to_have_text("1")
    expect(fred.locator('[data-label="Last use"]')).to_contain_text(re.compile("ago|just now"))
    expect(fred.locator('[data-label="Requests, 30 d"]')).to_have_text("1")
    expect(fred.locator('[data-label="Nearest limit"]')).to_contain_text("25 % of requests per minute")
    page.get_by_role("link", name="Next ones").click()
    expect(page).to_have_url(re.compile("after=max"))
    _has(page, "vic")
    expect(page.get_by_role("link", name="Next ones")).to_have_count(0)
    page.get_by_role("link", name="All, from the beginning").click()
    expect(page).to_have_url(re.compile("people$"))
    _has(page, "ada", "dora", "emil")


@pytest.mark.usefixtures("three_at_once")
def test_the_members_of_a_group_come_a_page_at_a_time_and_are_granted_more(visitor: Visitor, seven: Site) -> None:
    seven.api("POST", "/groups", {"name": "many"})
    for name in ("dora", "emil", "emma", "fred"):
        seven.api("PATCH", f"/users/{name}", {"groups": ["many"]})
    seven.api("PUT", "/limits/group/many", {"requests_per_minute": 0})
    page = visitor("admin").go("people/groups/many")
    members = page.locator("dd", has=page.get_by_role("link", name="Next ones"))
    expect(members).to_have_text(re.compile(r"4, by name: dora, emil, emma\s+Next ones"))
    page.get_by_role("link", name="Next ones").click()
    expect(page.locator("dd", has_text="fred")).to_contain_text("From the beginning")
    page.get_by_text("Grant more for a while").click()
    page.locator('select[name="limit"]').select_option("Requests a minute")
    page.get_by_label("How much more").fill("many")
    page.get_by_label("Until the end of").fill("2099-01-01")
    send(page, "Grant")
    expect(page.get_by_role("status")).to_contain_text("'many' is not an amount")
    page.get_by_label("How much more").fill("5")
    page.get_by_label("Until the end of").fill(f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%d}")
    send(page, "Grant")
    expect(page.get_by_text("5 more of requests per minute, until")).to_contain_text("00:00 UTC")
    page = visitor("viewer").go("people")
    expect(page.locator("#users tr", has_text="emil").locator('[data-label="Nearest limit"]')).to_contain_text(
        "0 % of requests per minute; shared by the members of many"
    )


@pytest.mark.usefixtures("three_at_once")
def test_tokens_come_a_page_at_a_time_beside_the_same_users(visitor: Visitor, seven: Site) -> None:
    page = visitor("viewer").go("people?after=emil")
    rows = page.locator("#tokens tbody tr")
    expect(rows).to_have_count(3)
    expect(page.locator("#tokens")).not_to_contain_text("fred")
    page.get_by_role("link", name="Newer ones").click()
    expect(page).to_have_url(re.compile("after=emil&tokens=.*#tokens$"))
    expect(rows.locator('[data-label="User"]')).to_have_text(["emma", "fred"])
    _has(page, "emma", "fred", "max")
    expect(page.get_by_role("link", name="Newer ones")).to_have_count(0)


@pytest.mark.usefixtures("three_at_once")
def test_people_are_found_by_a_part_of_their_name(visitor: Visitor, seven: Site) -> None:
    visit = visitor("viewer", java_script_enabled=False)
    page = visit.go("people")
    page.get_by_role("searchbox").fill("EM")
    send(page, "Find")
    _has(page, "emil", "emma")
    expect(page.get_by_role("searchbox")).to_have_value("EM")
    expect(page.locator("#tokens tbody tr")).to_have_count(1)
    visit.go("people?q=example.org")
    _has(page, "dora", "emil", "emma")
    page.get_by_role("link", name="Next ones").click()
    _has(page, "fred")
    visit.go("people?q=laptop")
    expect(page.locator("main")).to_contain_text("No user's name or e-mail address contains “laptop”.")
    expect(page.locator("#tokens tbody tr")).to_have_count(2)
    visit.go("people?q=%3Cb%3E_%25")
    expect(page.locator("main")).to_contain_text("No user's name or e-mail address contains “<b>_%”.")
    expect(page.locator("main")).to_contain_text("No token's label, beginning or user contains “<b>_%”.")
    assert visit.faults == []


def test_all_of_a_short_list_can_be_sorted(visitor: Visitor, seven: Site) -> None:
    page = visitor("viewer").go("people")
    page.locator("#users").get_by_role("button", name="Name").click()
    _has(page, "vic", "max", "fred", "emma", "emil", "dora", "ada")


def test_a_user_who_is_called_by_their_address_is_named_once(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "eve@example.org", "email": "eve@example.org"})
    expect(visitor("viewer").go("people?q=eve@").get_by_text("eve@example.org", exact=True)).to_have_count(1)
    site.api("DELETE", "/users/eve@example.org")
