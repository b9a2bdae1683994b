"""Each way to add an account, as an administrator does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from aimux.simulator.demo import credential_file
from tests.control.dashboard.conftest import Site, Visitor

pytestmark = pytest.mark.browser


def way(page: Page, title: str) -> Locator:
    """One of the ways that the page offers, opened."""
    found = page.locator(".ways > details", has=page.locator("summary", has_text=title))
    if found.get_attribute("open") is None:
        found.locator("summary").first.click()
    return found


@pytest.mark.parametrize("script", [True, False], ids=["with-script", "without-script"])
def test_a_device_code_is_confirmed_elsewhere(
    visitor: Visitor, site: Site, monkeypatch: pytest.MonkeyPatch, script: bool
) -> None:
    """With script the page notices by itself that the person has confirmed."""
    consent = site.live.sim.oauth_openai.consent
    monkeypatch.setattr(consent, "mode", "ask")
    name = "by-device" if script else "by-device-alone"
    visit = visitor("admin", java_script_enabled=script)
    page = visit.go("accounts/add/chatgpt")
    form = way(page, "Log in with a device code")
    expect(form).to_contain_text("Enable device code authorization")
    form.get_by_label("Name of the account").fill(name)
    form.locator("summary", has_text="Whom it serves").click()
    form.get_by_label("Priority").fill("7")
    form.get_by_role("button", name="Begin").click()
    code = page.locator("#code").inner_text()
    if not script:
        page.get_by_role("button", name="I have confirmed").click()
        assert "Nobody has confirmed yet" in visit.page.locator(".note").inner_text()
    vendor = visit.context.new_page()
    vendor.goto(page.locator("main a[target=_blank]").get_attribute("href") or "")
    vendor.locator("input[name=user_code]").fill(code)
    vendor.get_by_role("button", name="Authorize").click()
    vendor.wait_for_load_state()
    done = page.locator(".note.ok")
    while not script and not done.count():  # the vendor is asked once a second at most
        page.get_by_role("button", name="I have confirmed").click()
    expect(done).to_contain_text(f"chatgpt/{name} is logged in and is healthy")
    assert site.api("GET", f"/accounts/chatgpt/{name}")["priority"] == 7
    site.api("DELETE", f"/accounts/chatgpt/{name}")


def test_a_setup_token_becomes_an_account(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    form = way(visit.go("accounts/add/claude"), "Setup token")
    expect(form).to_contain_text("claude setup-token")
    form.get_by_label("Name of the account").fill("by-token")
    form.get_by_label("Token").fill(site.live.sim.accounts["claude-setup"].access_token)
    form.get_by_role("button", name="Add").click()
    expect(visit.page.locator(".note.ok")).to_contain_text("claude/by-token was added and is healthy")
    site.api("DELETE", "/accounts/claude/by-token")


def test_whom_an_account_serves_is_said_when_it_is_added(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/groups", {"name": "night-shift"})
    page = visitor("admin").go("accounts/add/claude")
    form = way(page, "Setup token")
    form.get_by_label("Name of the account").fill("by-token")
    form.get_by_label("Token").fill(site.live.sim.accounts["claude-setup"].access_token)
    form.locator("summary", has_text="Whom it serves").click()
    form.get_by_label("Weight").fill("2.5")
    form.get_by_label("Priority").fill("-1")
    form.get_by_label("night-shift").check()
    form.get_by_role("button", name="Add").click()
    expect(page.locator(".note.ok")).to_contain_text("claude/by-token was added and is healthy")
    account = site.api("GET", "/accounts/claude/by-token")
    assert (account["weight"], account["priority"], account["groups"]) == (2.5, -1, ["night-shift"])
    site.api("DELETE", "/accounts/claude/by-token")
    site.api("DELETE", "/groups/night-shift")


def test_a_weight_that_is_none_is_told_and_the_account_is_there(visitor: Visitor, site: Site) -> None:
    page = visitor("admin").go("accounts/add/claude")
    form = way(page, "Setup token")
    form.get_by_label("Name of the account").fill("by-token")
    form.get_by_label("Token").fill(site.live.sim.accounts["claude-setup"].access_token)
    form.locator("summary", has_text="Whom it serves").click()
    form.get_by_label("Weight").fill("much")
    form.get_by_role("button", name="Add").click()
    expect(page.locator(".note.warn")).to_contain_text("claude/by-token was added")
    expect(page.locator(".note.warn")).to_contain_text("was not changed: ")
    expect(page.locator(".note.warn")).to_contain_text("weight")
    expect(page.get_by_role("heading", level=1)).to_contain_text("claude/by-token")
    site.api("DELETE", "/accounts/claude/by-token")


def test_a_file_is_uploaded(visitor: Visitor, site: Site, tmp_path: Path) -> None:
    file = tmp_path / ".credentials.json"
    file.write_bytes(credential_file(site.live.sim.accounts["claude"]))
    visit = visitor("admin")
    form = way(visit.go("accounts/add/claude"), "Credential file")
    form.get_by_label("Name of the account").fill("by-file")
    form.get_by_label("File").set_input_files(file)
    form.get_by_role("button", name="Upload").click()
    expect(visit.page.locator(".note.ok")).to_contain_text("claude/by-file was added")
    site.api("DELETE", "/accounts/claude/by-file")


def test_logins_of_another_program_are_imported(visitor: Visitor, site: Site) -> None:
    login = json.loads(credential_file(site.live.sim.add_account("kept", "anthropic")))["claudeAiOauth"]
    kept = {"anthropic": {"type": "oauth", "access": login["accessToken"], "refresh": login["refreshToken"]}}
    page = visitor("admin").go("accounts")
    page.get_by_role("link", name="Import", exact=True).click()
    page.get_by_label("or its text").fill(json.dumps(kept | {"google": {"type": "api", "key": "AIza-secret-9"}}))
    page.get_by_role("button", name="Import").click()
    expect(page.locator(".note.warn")).to_contain_text("Added: claude/")
    expect(page.locator("dl")).to_contain_text("google")
    assert "secret-9" not in page.content()
    (name,) = (one["name"] for one in site.api("GET", "/accounts?provider=claude")["items"] if one["name"] != "default")
    page.get_by_label("File").set_input_files(
        {"name": "auth.json", "mimeType": "", "buffer": json.dumps(kept).encode()}
    )
    page.get_by_role("button", name="Import").click()
    expect(page.locator("dl")).to_contain_text(f"There is an account claude/{name} already.")
    site.api("DELETE", f"/accounts/claude/{name}")
    page.get_by_label("or its text").fill(json.dumps(kept))
    page.get_by_role("button", name="Import").click()
    expect(page.locator(".note.ok")).to_have_text(f"Added: claude/{name}.")
    site.api("DELETE", f"/accounts/claude/{name}")
    page.goto(f"{site.url}/dashboard/accounts/import")
    page.get_by_role("button", name="Import").click()
    expect(page.locator(".note.bad")).to_contain_text("There is no file and no text")


def test_a_key_that_the_vendor_refuses_is_not_kept(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    form = way(visit.go("accounts/add/claude"), "API key")
    form.get_by_label("Name of the account").fill("wrong")
    expect(form.get_by_label("Key")).to_have_attribute("autocomplete", "new-password")  # no manager fills in our own
    form.get_by_label("Key").fill("sk-ant-api03-nobody-knows-this-key")
    form.get_by_role("button", name="Add").click()
    expect(visit.page.locator(".note.bad")).to_be_visible()
    expect(visit.page.locator("details[open] > summary")).to_have_text("API key")
    assert "wrong" not in [account["name"] for account in site.api("GET", "/accounts")["items"]]


def test_a_form_that_takes_long_says_so_and_is_sent_once(visitor: Visitor) -> None:
    """Kept here, so that there is time to look."""
    page = visitor("admin").go("accounts/claude/default")
    page.evaluate("document.addEventListener('submit', (event) => event.preventDefault())")
    page.get_by_role("button", name="Test").click()
    expect(page.get_by_role("button", name="Asking …")).to_be_disabled()
