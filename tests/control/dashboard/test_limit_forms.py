"""The forms of limits on the pages of users and groups: what is set and granted, and what no amount is."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect

from tests.control.dashboard.conftest import Site, Visitor, send

pytestmark = pytest.mark.browser


def test_limits_are_set_and_granted(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "edsger"})
    visit = visitor("admin")
    page = visit.go("people/users/edsger")
    page.get_by_text("Change the limits").click()
    page.get_by_role("textbox", name="Tokens a day").fill("2.5M")
    send(page, "Set")
    assert "hold from the next request" in visit.notice
    assert site.api("GET", "/limits/user/edsger") == {"tokens_per_day": 2_500_000}
    page.get_by_text("Change the limits").click()
    page.get_by_label("No paid extra usage").check()
    send(page, "Set")
    assert site.api("GET", "/limits/user/edsger") == {"tokens_per_day": 2_500_000, "overage": "forbid"}
    expect(page.locator(".limits")).to_contain_text("No paid extra usage")
    page.get_by_text("Change the limits").click()
    page.get_by_label("No paid extra usage").uncheck()
    page.get_by_label("No requests so long").check()
    send(page, "Set")
    assert site.api("GET", "/limits/user/edsger") == {"tokens_per_day": 2_500_000, "long_context": "forbid"}
    page.get_by_text("Grant more for a while").click()
    page.locator("select[name=limit]").select_option("tokens_per_day")
    page.get_by_label("How much more").fill("500k")
    page.get_by_label("Until the end of").fill(time.strftime("%Y-%m-%d", time.gmtime(time.time() + 3 * 86400)))
    send(page, "Grant")
    assert visit.notice == "Granted."
    assert site.api("GET", "/limits/user/edsger/grants")["items"][0]["amount"] == 500_000
    site.api("PATCH", "/limits/user/edsger", {"cost_per_week": 1})
    site.api("POST", "/limits/user/edsger/grants", {"limit": "cost_per_week", "amount": 5, "until": "3d"})
    expect(visit.go("people/users/edsger").get_by_text("Granted by")).to_contain_text(
        ["500 k more of tokens per day", "$5.00 more of cost per week"]
    )
    expect(page.locator(".limits")).to_contain_text("$0.00 of $6.00, $5.00 of it until ")


@pytest.mark.parametrize(
    ("wrong", "told", "status"),
    [("many", "'many' is not an amount", 422), ("1.5", "requests_per_minute", 422)],
)
@pytest.mark.parametrize("kind", ["user", "group"])
def test_a_wrong_amount_is_told_and_nothing_is_lost(
    visitor: Visitor, site: Site, kind: str, wrong: str, told: str, status: int
) -> None:
    name = f"barbara-{wrong}"
    site.api("POST", f"/{kind}s", {"name": name})
    site.api("PUT", f"/limits/{kind}/{name}", {"requests_per_minute": 7, "tokens_per_week": 9, "overage": "forbid"})
    visit = visitor("admin")
    page = visit.go(f"people/{kind}s/{name}")
    page.get_by_text("Change the limits").click()
    page.get_by_role("textbox", name="Requests a minute").fill(wrong)
    page.get_by_role("textbox", name="$ a week").fill("$2.50")
    page.get_by_label("No paid extra usage").uncheck()
    page.get_by_label("No requests so long").check()
    with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
        send(page, "Set")
    assert answer.value.status == status
    assert told in visit.notice
    before = {"requests_per_minute": 7, "tokens_per_week": 9, "overage": "forbid"}
    assert site.api("GET", f"/limits/{kind}/{name}") == before

    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page.get_by_role("textbox", name="Requests a minute")).to_have_value(wrong)
    expect(page.get_by_role("textbox", name="$ a week")).to_have_value("$2.50")
    expect(page.get_by_role("textbox", name="Tokens a week")).to_have_value("9")
    expect(page.get_by_label("No paid extra usage")).not_to_be_checked()
    expect(page.get_by_label("No requests so long")).to_be_checked()
    site.api("PATCH", f"/limits/{kind}/{name}", {"tokens_per_week": 10})  # by somebody else, meanwhile
    page.get_by_role("textbox", name="Requests a minute").fill("15")
    send(page, "Set")
    assert "hold from the next request" in visit.notice
    expect(page).to_have_url(re.compile(f"people/{kind}s/{re.escape(name)}$"))
    assert site.api("GET", f"/limits/{kind}/{name}") == {
        "requests_per_minute": 15,
        "tokens_per_week": 10,
        "cost_per_week": 2.5,
        "long_context": "forbid",
    }


def test_an_amount_is_what_it_looks_like_or_refused(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "frances"})
    visit = visitor("admin")
    for written, amount in {
        "1,000,000": 1_000_000,
        "$2.5k": 2500,
        "4.1M": 4_100_000,
        "9" * 50: None,
        "5,50": None,
        "nan": None,
        "-5": None,
    }.items():
        page = visit.go("people/users/frances")
        page.get_by_text("Change the limits").click()
        page.get_by_role("textbox", name="$ a week").fill(written)
        send(page, "Set")
        if amount is None:
            assert visit.notice == f"'{written}' is not an amount. Write it like 250000, 250k or 2.5M."
        else:
            assert site.api("GET", "/limits/user/frances")["cost_per_week"] == amount


@pytest.mark.parametrize(
    ("limit", "amount", "words"),
    [
        ("cost_per_week", "0", "amount: must be greater than 0."),
        ("cost_per_week", "a lot", "'a lot' is not an amount. Write it like 250000, 250k or 2.5M."),
        (
            "cost_per_day",
            "5",
            "The user 'mary' has no total limit cost_per_day, so that there is nothing to add to."
            " → aimux limits set user:mary cost_per_day=AMOUNT",
        ),
    ],
)
def test_a_grant_that_is_none_is_told_beside_its_form(
    visitor: Visitor, site: Site, limit: str, amount: str, words: str
) -> None:
    if "mary" not in str(site.api("GET", "/users")):
        site.api("POST", "/users", {"name": "mary"})
        site.api("PUT", "/limits/user/mary", {"cost_per_week": 1})
    visit = visitor("admin")
    page = visit.go("people/users/mary")
    page.get_by_text("Grant more for a while").click()
    page.locator("select[name=limit]").select_option(limit)
    page.get_by_label("How much more").fill(amount)
    tomorrow = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86400))
    page.get_by_label("Until the end of").fill(tomorrow)
    send(page, "Grant")
    assert visit.notice == words
    expect(page.locator("select[name=limit]")).to_have_value(limit)
    expect(page.get_by_label("How much more")).to_have_value(amount)
    expect(page.get_by_label("Until the end of")).to_have_value(tomorrow)


def test_a_limit_of_nothing_is_not_said_to_be_free_again(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "nil"})
    site.api("PUT", "/limits/user/nil", {"cost_per_day": 0})
    limits = visitor("viewer").go("people/users/nil").locator(".limits")
    expect(limits).to_contain_text("$0.00 of $0.00: nothing is allowed")
    expect(limits).not_to_contain_text("free again")
    site.api("DELETE", "/users/nil")
