"""What people do with accounts on the pages, as they do it."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from aimux.control.dashboard.account_views import AT_ONCE
from aimux.simulator.demo import credential_file
from tests.control.dashboard.conftest import TOKENS, Site, Visitor, held, send

pytestmark = pytest.mark.browser


def test_an_account_is_taken_out_and_put_back(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    page = visit.go("accounts/chatgpt/default")
    send(page, "Disable")
    assert "serves nobody" in visit.notice
    assert site.api("GET", "/accounts/chatgpt/default")["status"] == "disabled"
    send(page, "Enable")
    assert site.api("GET", "/accounts/chatgpt/default")["status"] == "healthy"


@pytest.mark.parametrize("script", [True, False], ids=["with-script", "without-script"])
def test_an_account_is_given_to_a_group(visitor: Visitor, site: Site, script: bool) -> None:
    group, name = f"team-{script}", f"of-the-team-{script}"
    key = site.live.sim.accounts["claude-key"].api_key
    site.api("POST", "/groups", {"name": group, "reserved": True})
    site.api("POST", "/accounts", {"provider": "claude", "name": name, "api_key": key})
    viewer = visitor("viewer", java_script_enabled=script).go(f"accounts/claude/{name}")
    expect(viewer.get_by_text("everybody")).to_be_visible()
    expect(viewer.get_by_text("Change it")).to_have_count(0)
    visit = visitor("admin", java_script_enabled=script)
    page = visit.go(f"accounts/claude/{name}")
    page.get_by_text("Change it").click()
    page.get_by_label("Weight").fill("much")
    page.get_by_label(group).check()
    send(page, "Save")
    assert "weight" in page.locator(".note.bad").inner_text()
    assert site.api("GET", f"/accounts/claude/{name}")["groups"] == []
    page.get_by_label("Weight").fill("2")
    expect(page.get_by_label(group)).to_be_checked()
    send(page, "Save")
    assert f"serves {group} alone" in visit.notice
    assert site.api("GET", f"/accounts/claude/{name}")["weight"] == 2
    page.get_by_role("link", name=group).click()
    page.get_by_role("link", name=f"claude/{name}").click()
    expect(visit.go("settings").locator("tr", has_text=f"account:claude/{name}").first).to_contain_text(
        "weight 1.0 → 2.0"
    )
    site.api("DELETE", f"/accounts/claude/{name}")
    site.api("DELETE", f"/groups/{group}")


def test_an_account_is_tested_renewed_and_renamed(visitor: Visitor, site: Site) -> None:
    key = site.live.sim.accounts["claude-key"].api_key
    site.api("POST", "/accounts", {"provider": "claude", "name": "spare", "api_key": key})
    visit = visitor("admin")
    page = visit.go("accounts/claude/spare")
    send(page, "Test")
    assert "answered in" in visit.notice
    page.get_by_label("Name").fill("team")
    send(page, "Rename")
    assert "is called team" in visit.notice
    page.get_by_text("Remove this account").click()
    send(page, "Remove claude/team")
    assert "was removed" in visit.notice
    visit.go("accounts/claude/default")
    send(page, "Renew")
    assert "was renewed" in visit.notice


def test_a_login_whose_renewal_was_refused_is_not_said_to_be_renewed(visitor: Visitor, site: Site) -> None:
    """It ends: nothing renews it until somebody logs in again."""
    login = site.live.sim.add_account("refused", "anthropic")
    site.api("POST", "/accounts", {"provider": "claude", "name": "refused", "file": credential_file(login).decode()})
    facts = visitor("admin").go("accounts/claude/refused").locator(".facts").first
    expect(facts).to_contain_text("Renewed by itself")
    login.on_refresh("400")
    visit = visitor("admin")
    page = visit.go("accounts/claude/refused")
    send(page, "Renew")
    expect(page.locator(".note.bad").first).to_contain_text("refresh token was refused")
    for path in ("accounts", "accounts/claude/refused"):
        page = visit.go(path)
        facts = page.locator("li", has_text="claude/refused") if path == "accounts" else page.locator(".facts").first
        expect(facts).to_contain_text("Ends")
        expect(facts).not_to_contain_text("Renewed")
    site.api("DELETE", "/accounts/claude/refused")


def test_an_api_key_becomes_an_account(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    page = visit.go("accounts/add/claude")
    page.get_by_text("API key", exact=True).click()
    form = page.locator("form", has=page.get_by_label("Key"))
    form.get_by_label("Name of the account").fill("by-key")
    form.get_by_label("Key").fill(site.live.sim.accounts["claude-key"].api_key or "")
    form.get_by_role("button", name="Add").click()
    assert "claude/by-key was added and is healthy" in visit.notice
    site.api("DELETE", "/accounts/claude/by-key")


def test_a_login_through_the_vendors_page_serves(visitor: Visitor, site: Site) -> None:
    """As a person does it: the vendor's page in another tab, the code carried over."""
    visit = visitor("admin")
    page = visit.go("accounts/add/claude")
    form = page.locator("form", has=page.get_by_role("button", name="Begin")).first
    form.get_by_label("Name of the account").fill("by-browser")
    form.get_by_role("button", name="Begin").click()
    with visit.context.expect_page() as opened:
        page.get_by_role("link", name="Open the vendor's page").click()
    vendor = opened.value
    vendor.wait_for_load_state()
    code = code_of(vendor)
    page.get_by_label("Code or address").fill(code)
    send(page, "Finish")
    assert "claude/by-browser is logged in and is healthy" in visit.notice
    assert site.api("POST", "/accounts/claude/by-browser/test")["ok"]
    site.api("DELETE", "/accounts/claude/by-browser")


def code_of(vendor: Page) -> str:
    """What the simulator's page shows: the code, or the address that it ends at."""
    shown = re.search(r"[\w.~-]{10,}#[\w.~-]{10,}", vendor.inner_text("body"))
    return shown[0] if shown else vendor.url


def test_of_many_accounts_a_page_shows_what_matters_there_first(visitor: Visitor, site: Site) -> None:
    key = site.live.sim.accounts["claude-key"].api_key
    names = [f"many-{number:02}" for number in range(AT_ONCE)]
    for name in names:
        site.api("POST", "/accounts", {"provider": "claude", "name": name, "api_key": key})
    site.api("POST", f"/accounts/claude/{names[0]}/disable")
    login = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-ended", "expiresAt": 1_700_000_000_000}}
    site.api("POST", "/accounts", {"provider": "claude", "name": "zz-ended", "file": json.dumps(login)})
    there = len(site.api("GET", "/accounts")["items"])

    page = visitor("viewer").go("accounts")
    shown = page.locator(".accounts > li")
    expect(shown).to_have_count(AT_ONCE)
    expect(shown.first).to_contain_text("zz-ended")
    page.get_by_role("link", name="Next ones").click()
    expect(shown).to_have_count(there - AT_ONCE)
    expect(shown.last).to_contain_text(names[0])
    page.get_by_role("navigation", name="By state").get_by_role("link", name="disabled").click()
    expect(shown).to_have_count(1)
    page.get_by_role("searchbox").fill("MANY-07")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_text("No account fits.")).to_be_visible()
    page.get_by_role("link", name="All accounts").click()
    page.get_by_role("searchbox").fill("MANY-07")
    page.get_by_role("button", name="Find").click()
    expect(shown).to_have_count(1)
    expect(shown).to_contain_text("claude/many-07")

    with held(site, TOKENS["member"]):
        page = visitor("viewer").go()
        at_work = page.locator("#accounts li")
        expect(at_work).to_have_count(AT_ONCE)
        expect(at_work.first).to_contain_text("max")
        expect(page.locator("#accounts")).to_contain_text(f"{there - AT_ONCE} more")
    for name in [*names, "zz-ended"]:
        site.api("DELETE", f"/accounts/claude/{name}")
