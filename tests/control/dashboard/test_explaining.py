"""What the pages tell of what happened, and of what would have."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from datetime import datetime

import pytest
from playwright.sync_api import expect

from tests.control.dashboard.conftest import TOKENS, Site, Visitor, held

pytestmark = pytest.mark.browser


def test_a_request_is_found_by_either_id(visitor: Visitor, site: Site) -> None:
    assert site.message(TOKENS["viewer"]) == 200
    (told,) = site.api("GET", "/requests?user=vic&limit=1")["items"]
    vendors = site.api("GET", f"/requests/{told['id']}")["steps"][0]["upstream_id"]
    assert vendors.startswith("req_011")
    visit = visitor("viewer")
    for wanted in (told["id"], vendors):
        page = visit.go("requests")
        page.get_by_label("Request id").fill(wanted)
        page.get_by_role("button", name="Find").click()
        expect(page.locator("main")).to_contain_text(told["id"])
        expect(page.locator("main")).to_contain_text(vendors)
    expect(page.get_by_role("heading", name="Where the time went")).to_be_visible()
    visit.go("requests/req_nobody")
    expect(page.get_by_text("is not in the ledger")).to_be_visible()


def test_why_tells_which_accounts_were_considered(visitor: Visitor, site: Site) -> None:
    key = site.live.sim.accounts["claude-key"].api_key
    site.api("POST", "/accounts", {"provider": "claude", "name": "spare", "api_key": key})
    site.api("POST", "/accounts/claude/spare/disable")
    try:
        assert site.message(TOKENS["viewer"], **{"x-claude-code-session-id": "a-new-one"}) == 200
        (told,) = site.api("GET", "/requests?user=vic&limit=1")["items"]
        page = visitor("viewer").go(f"requests/{told['id']}")
        row = page.locator("tr", has_text="spare")
        expect(row).to_contain_text("is disabled")
        expect(row).to_contain_text("no")
        expect(page.locator("main")).to_contain_text("nothing was cached anywhere")
    finally:
        site.api("DELETE", "/accounts/claude/spare")


@pytest.mark.parametrize("script", [True, False], ids=["with-script", "without-script"])
def test_a_plan_is_a_form(visitor: Visitor, site: Site, script: bool) -> None:
    assert site.message(TOKENS["viewer"]) == 200
    page = visitor("viewer", java_script_enabled=script).go("usage")
    page.get_by_role("link", name="What if").click()
    page.get_by_label("Accounts of claude").fill("4")
    page.get_by_label("A window holds, in $").fill("5h=12.50, 7d=90")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("heading", name="claude, with 4 accounts")).to_be_visible(timeout=60_000)
    expect(page.locator("main")).to_contain_text("new-3")
    assert re.search(r"accounts\.claude=4", page.url), "it can be shared"


def test_a_view_of_usage_is_its_address(visitor: Visitor, site: Site) -> None:
    assert site.message(TOKENS["viewer"]) == 200
    page = visitor("viewer").go("usage?by=model&since=7d&show=cost_usd&user=vic")
    expect(page.locator("select[name=by]")).to_have_value("model")
    expect(page.get_by_label("Only user")).to_have_value("vic")
    expect(page.get_by_role("heading", name="Cost by model")).to_be_visible()
    expect(page.get_by_text("Saved by the cache")).to_be_visible()
    page.get_by_text("More filters").click()
    page.get_by_label("Only provider").fill("chatgpt")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page).to_have_url(re.compile("provider=chatgpt"))
    expect(page.locator("main")).to_contain_text("Nothing that fits was used in this time.")
    expect(page.get_by_role("heading", name="Cost by model")).to_have_count(0)  # no empty plot beside it


def test_what_wants_attention_is_on_the_first_page_and_told_to_members(visitor: Visitor, site: Site) -> None:
    """An account that is used up is an alert for who runs it; for the others, how long they have to wait."""
    account = site.live.sim.accounts["claude"]
    admin, member = visitor("admin"), visitor("member")
    admin.go()
    window = account.windows["5h"]
    before = window.used, window.resets_at
    account.exhaust("5h", time.time() + 3000)
    try:
        assert site.message(TOKENS["member"]) == 429
        expect(admin.page.locator("#alerts")).to_contain_text("claude/default is cooling down")
        expect(admin.page.locator("#alerts")).to_contain_text("It is free in 49 min")
        expect(admin.page.locator("#accounts li", has_text="claude/default")).to_contain_text("free in 49 min")
        expect(admin.page.locator("#notices")).to_contain_text("claude", timeout=15_000)
        member.go("me")
        expect(member.page.locator(".note")).to_contain_text("All accounts of claude have reached their limits")
        expect(member.page.locator(".note")).to_contain_text("in 49 min")
        until = datetime.fromisoformat(site.api("GET", "/accounts/claude/default")["until"])
        expect(member.page.locator(".note")).to_contain_text(f"at {until:%Y-%m-%d %H:%M} UTC")
    finally:
        window.used, window.resets_at = before
        site.api("POST", "/accounts/claude/default/enable")
    expect(admin.page.locator("#alerts")).not_to_contain_text("cooling down")


def test_a_disk_that_takes_nothing_is_told_on_the_first_page(visitor: Visitor, site: Site) -> None:
    def ready() -> str:
        try:
            with urllib.request.urlopen(f"{site.url}/ready", timeout=30) as answer:
                return str(answer.read())
        except urllib.error.HTTPError as error:  # 503: the account is disabled
            return str(error.read())

    admin = visitor("admin")
    admin.go()
    file = site.live.state_dir / "accounts.json"
    file.unlink(missing_ok=True)
    file.mkdir()  # nobody, root included, can put a file into its place
    try:
        with pytest.raises(urllib.error.HTTPError, match="500"):  # it holds, and is not kept
            site.api("POST", "/accounts/claude/default/disable")
        expect(admin.page.locator("#alerts")).to_contain_text(f"The state of accounts is not kept: can't write {file}")
        assert "accounts_state" in ready()
    finally:
        file.rmdir()
    for change in ("disable", "enable"):
        site.api("POST", f"/accounts/claude/default/{change}")
    expect(admin.page.locator("#alerts")).not_to_contain_text("not kept")
    assert "accounts_state" not in ready()


def test_settings_name_the_nodes_and_are_read_again(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    page = visit.go("settings")
    expect(page.locator("dl.facts")).to_contain_text(site.api("GET", "/system")["nodes"][0])
    page.get_by_role("link", name=re.compile("All .* settings")).click()
    expect(page.locator("#configuration")).to_contain_text("log_level")
    assert TOKENS["admin"] not in page.content()
    page.get_by_role("button", name="Reload the configuration").click()
    assert "was read again" in visit.notice


def test_nothing_jumps_while_live_values_change(visitor: Visitor, site: Site) -> None:
    """As the browser itself measures it, from loading on."""
    visit = visitor("admin")
    page = visit.page
    page.add_init_script(
        "window.shift = 0;"
        "new PerformanceObserver((list) => list.getEntries().forEach((one) => { window.shift += one.value; }))"
        ".observe({ type: 'layout-shift', buffered: true });"
    )
    for path in ("", "usage", "people", "accounts"):
        visit.go(path)
        page.wait_for_load_state("load")
        assert page.evaluate("window.shift") < 0.02, path
    visit.go()
    with held(site, TOKENS["member"]):
        expect(page.locator("#running")).to_contain_text("max")
        assert page.evaluate("window.shift") < 0.1
