"""What changes on a page while somebody looks at it."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest
from playwright.sync_api import expect

from aimux.control.dashboard import live
from aimux.control.dashboard.now import MOST_ALERTS
from tests.control.dashboard.conftest import TOKENS, Site, Visitor, held

pytestmark = pytest.mark.browser


def test_live_values_change_without_a_reload(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    visit.go()
    expect(visit.page.locator("#running")).to_contain_text("Nothing runs")
    with held(site, TOKENS["member"]):
        expect(visit.page.locator("#running")).to_contain_text("max")
    expect(visit.page.locator("#running")).to_contain_text("Nothing runs")


def test_a_page_on_which_nothing_changes_is_written_to_all_the_same(
    visitor: Visitor, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies end what is silent for long, and only what is not taken tells of a browser that is gone."""
    monkeypatch.setattr(live, "EVERY", 0.01)
    (cookie,) = visitor("viewer").context.cookies()
    fields = {"cookie": f"{cookie['name']}={cookie['value']}"}
    request = urllib.request.Request(f"{site.url}/dashboard/now/live", headers=fields)
    with urllib.request.urlopen(request, timeout=30) as events:
        assert next(line for line in events if not line.startswith((b"event:", b"data:", b"\n"))).startswith(b":")


def test_who_may_look_no_longer_is_sent_away(visitor: Visitor, site: Site) -> None:
    """The page does not stay as it was, saying that aimux is away."""
    site.api("POST", "/users", {"name": "guest", "role": "viewer"})
    token = site.api("POST", "/tokens", {"user": "guest"})["token"]
    visit = visitor()
    page = visit.go("sign-in")
    page.get_by_label("Your aimux token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("[data-live-state]")).to_have_text("live")
    site.api("PATCH", "/users/guest", {"role": "member"})
    page.wait_for_url(re.compile("/me$"))
    site.api("DELETE", "/users/guest")


def test_live_values_come_back_after_an_answer_that_is_none(visitor: Visitor) -> None:
    """A proxy's, while aimux is started anew: a browser alone would not ask again."""
    visit = visitor("admin")
    visit.context.route("**/now/live", lambda route: route.fulfill(status=502, body="Bad gateway"), times=1)
    page = visit.go()
    expect(page.locator("[data-live-state]")).to_contain_text("not live")
    expect(page.locator("[data-live-state]")).to_have_text("live")


def test_tabs_that_nobody_looks_at_keep_no_other_page_from_loading(visitor: Visitor, site: Site) -> None:
    """Over HTTP/1.1 a browser has six connections for all of them."""
    visit = visitor("admin")
    visit.context.add_init_script(
        """let hidden = false;
        Object.defineProperty(document, "hidden", { get: () => hidden });
        window.look = (is) => { hidden = !is; document.dispatchEvent(new Event("visibilitychange")); };"""
    )
    for _ in range(6):
        tab = visit.context.new_page()
        tab.goto(f"{site.url}/dashboard/")
        expect(tab.locator("[data-live-state]")).to_have_text("live")
        tab.evaluate("look(false)")
    expect(visit.go().locator("[data-live-state]")).to_have_text("live")
    visit.page.close()
    with held(site, TOKENS["member"]):
        tab.evaluate("look(true)")
        expect(tab.locator("#running")).to_contain_text("max")


def test_many_alerts_leave_room_for_what_happens(visitor: Visitor, site: Site) -> None:
    names = [f"ended-{number}" for number in range(MOST_ALERTS + 3)]
    for name in names:
        login = {"accessToken": f"sk-ant-oat01-{name}", "expiresAt": 1_700_000_000_000}
        file = json.dumps({"claudeAiOauth": login})
        site.api("POST", "/accounts", {"provider": "claude", "name": name, "file": file})
    page = visitor("admin").go()
    expect(page.locator("#alerts .note")).to_have_count(MOST_ALERTS)
    expect(page.locator("#alerts")).to_contain_text("3 more want attention")
    for name in names:
        site.api("DELETE", f"/accounts/claude/{name}")
