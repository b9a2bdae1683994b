"""On a phone: nothing has to be moved sideways to be read."""

from __future__ import annotations

import pytest

from tests.control.dashboard.conftest import TOKENS, Site, Visitor

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 360, "height": 740}}
WIDER = """() => [document.documentElement, ...document.querySelectorAll('.scroll:has(table), pre')]
  .filter(box => !box.closest('details:not([open])') && box.scrollWidth > box.clientWidth).map(box => box.innerText)"""


@pytest.mark.parametrize(
    "path",
    [
        "",
        "accounts",
        "accounts/claude/default",
        "accounts/import",
        "people",
        "people/users/max",
        "usage",
        "usage/plan?accounts.claude=4",
        "requests",
        "settings?all=1",
        "me",
    ],
)
def test_no_table_is_wider_than_the_page(visitor: Visitor, site: Site, path: str) -> None:
    site.message(TOKENS["admin"])
    page = visitor("admin", **PHONE).go(path)
    assert page.evaluate(WIDER) == []


def test_long_names_are_broken(visitor: Visitor, site: Site) -> None:
    name, model = "n" * 100, "m" * 150
    site.api("POST", "/groups", {"name": name})
    site.api("POST", "/users", {"name": name, "groups": [name]})
    site.api("PUT", f"/limits/user/{name}", {"cost_per_day": 1, "models": {model: {"cost_per_day": 1}}})
    site.api("PUT", f"/limits/group/{name}", {"models": {model: {"cost_per_day": 1}}})
    assert site.message(site.api("POST", "/tokens", {"user": name})["token"]) == 200
    visit = visitor("admin", **PHONE)
    for path in (f"people/users/{name}", f"people/groups/{name}"):
        assert visit.go(path).evaluate(WIDER) == []
    page = visit.go("usage")
    page.locator(".legend", has_text=name).wait_for()
    assert page.evaluate(WIDER) == []


def test_nor_is_why_a_request_went_its_way(visitor: Visitor, site: Site) -> None:
    site.message(TOKENS["admin"])
    page = visitor("admin", **PHONE).go("requests")
    page.get_by_role("link", name="Why").first.click()
    page.get_by_role("heading", name="How it was routed").wait_for()
    assert page.evaluate(WIDER) == []


def test_today_is_in_sight(visitor: Visitor, site: Site) -> None:
    site.message(TOKENS["admin"])
    page = visitor("admin", **PHONE).go("usage")
    left = page.locator(".scroll:has(> .plot)").evaluate(
        "box => [box.scrollLeft, box.scrollWidth - box.clientWidth - box.scrollLeft]"
    )
    assert left[0] > 0
    assert left[1] < 1


def test_each_value_has_its_heading(visitor: Visitor, site: Site) -> None:
    site.message(TOKENS["member"])
    page = visitor("member", **PHONE).go("me")
    table = page.locator("table.stack", has_text="Took")
    headings = table.locator("thead th").all_inner_texts()
    row = table.locator("tbody tr").first.locator("td")
    labels = [cell.get_attribute("data-label") for cell in row.all()]
    assert labels == [None, *headings[1:-1], None]
    assert row.last.get_by_role("link", name="Why").is_visible()


def test_tables_can_still_be_sorted(visitor: Visitor, site: Site) -> None:
    page = visitor("admin", **PHONE).go("people")
    names = page.locator("#users tbody th a")
    page.locator("#users").get_by_role("button", name="Name").click()
    assert names.all_inner_texts() == sorted(names.all_inner_texts(), reverse=True)
    assert page.locator("#users").get_by_role("columnheader", name="Role").is_visible()


TABLET = {"viewport": {"width": 768, "height": 900}}


def test_on_a_tablet_what_to_set_in_a_client_is_read_as_it_stands(visitor: Visitor) -> None:
    page = visitor("admin", **TABLET).go("me")
    assert page.evaluate("[...document.querySelectorAll('pre')].filter(box => box.scrollWidth > box.clientWidth)") == []


def test_on_a_tablet_who_one_is_stands_in_the_first_line(visitor: Visitor) -> None:
    page = visitor("admin", **TABLET).go("me")
    brand, who = page.locator(".brand").bounding_box(), page.locator(".who").bounding_box()
    assert brand is not None and who is not None
    assert abs(brand["y"] + brand["height"] / 2 - who["y"] - who["height"] / 2) < 2


def test_on_a_tablet_it_is_seen_that_a_group_has_its_accounts_for_itself(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/groups", {"name": "set-apart-from-all-the-others", "reserved": True})
    page = visitor("admin", **TABLET).go("people")
    told = page.get_by_text("its accounts serve nobody else")
    box, cell = told.bounding_box(), page.get_by_role("rowheader", name="set-apart").bounding_box()
    assert box is not None and cell is not None
    assert box["x"] + box["width"] <= cell["x"] + cell["width"]
    site.api("DELETE", "/groups/set-apart-from-all-the-others")


def test_that_a_table_goes_on_beside_the_page_is_seen(visitor: Visitor, site: Site) -> None:
    """A shadow at the edge, which is gone at its end."""
    site.api("POST", "/users", {"name": "somebody-with-a-very-long-name@a-department.research.example.com"})
    page = visitor("admin", **TABLET).go("people")
    box = page.locator(".scroll", has=page.locator("#users"))
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")

    def right_edge() -> bytes:
        at = box.bounding_box()
        assert at is not None
        return page.screenshot(clip={"x": at["x"] + at["width"] - 8, "y": at["y"] + 2, "width": 8, "height": 5})

    before = right_edge()
    box.evaluate("box => { box.scrollLeft = box.scrollWidth }")
    assert right_edge() != before
    site.api("DELETE", "/users/somebody-with-a-very-long-name@a-department.research.example.com")
