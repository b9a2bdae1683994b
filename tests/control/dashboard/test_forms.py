"""Forms: what was typed stays when it is refused, nothing is sent twice, and what can't be undone is asked about."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("playwright", reason="the pages are tried in a browser")
from playwright.sync_api import Dialog, Page, expect

from tests.control.dashboard.conftest import Site, Visitor, send


def test_a_user_who_is_refused_has_not_to_be_typed_again(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/groups", {"name": "typing"})
    visit = visitor("admin")
    page = visit.go("people/add")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("E-mail address").fill("ada@example.org")
    page.get_by_role("radio", name=re.compile("^viewer")).check()
    page.get_by_label("typing").check()
    page.get_by_label("May use").fill("model:claude-*")
    page.get_by_label("Give me a link for them").check()
    send(page, "Add")
    assert "ada" in visit.notice
    page.get_by_label("Name").fill("lovelace")
    send(page, "Add")
    expect(page.locator("#link")).to_be_visible()
    user = site.api("GET", "/users/lovelace")
    assert (user["email"], user["role"], user["groups"]) == ("ada@example.org", "viewer", ["typing"])
    assert user["scopes"] == ["model:claude-*"]
    site.api("DELETE", "/users/lovelace")
    site.api("DELETE", "/groups/typing")


def test_nor_has_a_change_of_one_or_a_token(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "typist"})
    visit = visitor("admin")
    page = visit.go("people/users/typist")
    page.get_by_label("E-mail address").fill("typist@example.org")
    page.locator("form", has=page.get_by_role("button", name="Save")).get_by_label("May use").fill("models:claude-*")
    send(page, "Save")
    assert "no kind of scope" in visit.notice
    expect(page.get_by_label("E-mail address")).to_have_value("typist@example.org")
    page.locator("form", has=page.get_by_role("button", name="Save")).get_by_label("May use").fill("provider:claude")
    send(page, "Save")
    assert visit.notice == "typist was changed."
    page.get_by_text("Issue a token").click()
    page.get_by_label("Label").fill("laptop")
    page.get_by_label("Only for").fill("models:claude-*")
    send(page, "Issue")
    assert "no kind of scope" in visit.notice
    expect(page.get_by_label("Label")).to_have_value("laptop")
    page.get_by_label("Only for").fill("provider:claude")
    send(page, "Issue")
    expect(page.locator("#token")).to_be_visible()
    site.api("DELETE", "/users/typist")


def test_nor_has_a_token_of_ones_own(visitor: Visitor) -> None:
    visit = visitor("member")
    page = visit.go("me")
    page.get_by_text("Issue a token").click()
    page.get_by_label("Label").fill("laptop")
    page.get_by_label("Good for").fill("99999999999d")
    send(page, "Issue")
    expect(page.locator(".note.bad")).to_be_visible()
    expect(page.get_by_label("Label")).to_have_value("laptop")


def test_nor_has_a_change_of_a_group_or_an_account(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/groups", {"name": "typing"})
    visit = visitor("admin")
    page = visit.go("people/groups/typing")
    page.get_by_label("Accounts in this group serve nobody else").check()
    page.get_by_label("May use").fill("models:claude-*")
    send(page, "Save")
    assert "no kind of scope" in visit.notice
    expect(page.get_by_label("Accounts in this group serve nobody else")).to_be_checked()
    expect(page.get_by_label("May use")).to_have_value("models:claude-*")

    page = visit.go("accounts/claude/default")
    page.get_by_text("Change it").click()
    page.get_by_label("typing").check()
    page.get_by_label("Weight").fill("heavy")
    send(page, "Save")
    assert "weight" in visit.notice
    expect(page.get_by_label("Weight")).to_have_value("heavy")
    page.get_by_label("Weight").fill("2")
    send(page, "Save")
    account = site.api("GET", "/accounts/claude/default")
    assert (account["weight"], account["groups"]) == (2, ["typing"])
    site.api("PATCH", "/accounts/claude/default", {"weight": 1, "groups": []})
    site.api("DELETE", "/groups/typing")


def test_a_wrong_key_leaves_the_form_for_the_account_that_it_is_for(visitor: Visitor, site: Site) -> None:
    key = site.live.sim.accounts["claude-key"].api_key
    site.api("POST", "/accounts", {"provider": "claude", "name": "mended", "api_key": key})
    visit = visitor("admin")
    page = visit.go("accounts/claude/mended")
    page.get_by_role("link", name="Log in again").click()
    page.get_by_text("API key", exact=True).click()
    form = page.locator("details[name=way][open]")
    form.get_by_label("Key").fill("sk-ant-api03-nobody-knows-this-key")
    form.get_by_role("button", name="Add").click()
    expect(page.locator(".note.bad")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("A new credential for claude/mended")
    expect(form.get_by_label("Name of the account")).to_have_value("mended")
    form.get_by_label("Key").fill(key or "")
    form.get_by_role("button", name="Add").click()
    assert "claude/mended was added" in visit.notice
    site.api("DELETE", "/accounts/claude/mended")


def test_a_wrong_code_leads_to_where_another_login_begins(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    page = visit.go("accounts/add/claude")
    form = page.locator("details[name=way][open]")
    form.get_by_label("Name of the account").fill("coded")
    form.get_by_text("Whom it serves").click()
    form.get_by_label("Weight").fill("3")
    send(page, "Begin")
    page.get_by_label("Code or address").fill("a-code-that-is-none")
    send(page, "Finish")
    expect(page.locator(".note.bad")).to_be_visible()
    expect(form.get_by_label("Name of the account")).to_have_value("coded")
    expect(form.get_by_label("Weight")).to_have_value("3")
    send(page, "Begin")
    expect(page.get_by_label("Code or address")).to_be_visible()


def _clicked_twice(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).dblclick()


def test_a_double_click_sends_once(visitor: Visitor, site: Site) -> None:
    page = visitor("admin").go("people/add")
    page.get_by_label("Name").fill("twice")
    _clicked_twice(page, "Add")
    expect(page.locator("#token")).to_be_visible()
    assert len(site.api("GET", "/tokens?user=twice")["items"]) == 1
    site.api("DELETE", "/users/twice")


def test_a_token_that_is_shown_is_not_issued_again_by_loading_its_page_again(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "reloader"})
    visit = visitor("admin")
    page = visit.go("people/users/reloader")
    for form, shown in (("token", "#token"), ("invite", "#link")):
        page.locator(f"form[action$='/reloader/{form}']").evaluate("form => form.requestSubmit()")
        secret = page.locator(shown).inner_text()
        page.reload()
        expect(page.get_by_role("heading", name="reloader")).to_be_visible()
        assert secret not in page.content()
    assert len(site.api("GET", "/tokens?user=reloader")["items"]) == 1
    site.api("DELETE", "/users/reloader")


def test_a_form_that_is_too_large_is_refused_on_a_page(visitor: Visitor, site: Site) -> None:
    page = visitor("admin").go("people/users/max")
    label = page.locator("form[action$='/max/token'] input[name=label]")
    label.evaluate("label => { label.maxLength = 1e9; label.value = 'x'.repeat(2e6); label.form.requestSubmit(); }")
    expect(page.get_by_text("The form is larger than 1024 KiB; nothing was changed.")).to_be_visible()


def test_the_filters_of_requests_suggest_what_there_is(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/groups", {"name": "suggested"})
    page = visitor("viewer").go("requests")
    for name, known in (("User", "max"), ("Group", "suggested"), ("Account", "claude/default"), ("Provider", "claude")):
        suggested = page.get_by_label(name, exact=True).evaluate("box => [...box.list.options].map(one => one.value)")
        assert known in suggested
    site.api("DELETE", "/groups/suggested")


def test_a_token_is_not_revoked_by_a_slip(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "careful"})
    token = site.api("POST", "/tokens", {"user": "careful", "label": "laptop"})["token"]
    page = visitor("admin").go("people/users/careful")
    asked: list[str] = []

    def no(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", no)
    page.get_by_role("button", name="Revoke").click()
    assert len(asked) == 1 and "laptop" in asked[0] and "for good" in asked[0]
    assert site.message(token) == 200
    page.remove_listener("dialog", no)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("refused from now on")).to_be_visible()
    assert site.message(token) == 401
    site.api("DELETE", "/users/careful")


def test_an_id_that_no_request_has_leaves_the_search(visitor: Visitor) -> None:
    visit = visitor("viewer")
    page = visit.go("requests")
    page.get_by_label("Request id").fill("req_nobodys")
    send(page, "Find")
    assert "req_nobodys" in visit.notice
    expect(page.get_by_label("Request id")).to_have_value("req_nobodys")
    expect(page.get_by_role("heading", level=1)).to_have_text("Requests")


@pytest.mark.parametrize("way", ["without TLS", "refused"])
def test_what_can_be_copied_is_copied_without_a_clipboard(visitor: Visitor, way: str) -> None:
    """Browsers give one to pages with TLS only; an invitation may well be opened without."""
    page = visitor("admin", permissions=["clipboard-read"]).go("me")
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', {value: %s})"
        % ("undefined" if way == "without TLS" else "{writeText: () => Promise.reject(new Error())}")
    )
    page.evaluate("document.addEventListener('copy', () => { window.copied = String(getSelection()) })")
    button = page.locator("[data-copy]").first
    button.dblclick()
    expect(button).to_have_text("Copied")
    assert "ANTHROPIC_BASE_URL" in page.evaluate("window.copied")
    expect(button).to_have_text("Copy")


def test_times_are_those_of_the_readers_zone(visitor: Visitor, site: Site) -> None:
    site.message("token-of-member-0123456789abcdef")
    (found,) = site.api("GET", "/requests?user=max&limit=1")["items"]
    day, _, time = found["time"].partition("T")
    page = visitor("admin", timezone_id="Asia/Kolkata").go(f"requests/{found['id']}")
    when = page.locator("time[data-moment]").first
    expect(when).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d GMT\+5:30$"))
    assert time[:5] not in when.inner_text()
    plain = visitor("admin", timezone_id="Asia/Kolkata", java_script_enabled=False).go(f"requests/{found['id']}")
    expect(plain.locator("time[data-moment]").first).to_have_text(f"{day} {time[:5]} UTC")


def test_a_printed_page_says_what_it_shows(visitor: Visitor, site: Site) -> None:
    """A table of costs without its span would say nothing."""
    page = visitor("admin").go("usage?since=7d&user=max")
    page.emulate_media(media="print")
    expect(page.get_by_role("combobox", name="Time")).to_be_visible()
    expect(page.get_by_label("Only user")).to_be_visible()
    expect(page.get_by_role("navigation")).to_be_hidden()
    expect(page.get_by_role("button", name="Show")).to_be_hidden()


def test_the_keys_pass_choices_without_sending_each(visitor: Visitor) -> None:
    page = visitor("viewer").go("usage?since=7d")
    chosen = page.get_by_role("combobox", name="By")
    chosen.focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(chosen).to_be_focused()
    expect(chosen).to_have_value("model")
    page.get_by_role("button", name="Show").press("Enter")
    expect(page).to_have_url(re.compile("[?]by=model&since=7d&show=tokens$"))
    page.get_by_role("combobox", name="By").press("Enter")  # opens the list
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("[?]by=token&since=7d&show=tokens$"))


def test_on_paper_nothing_is_dark_or_cut_off(visitor: Visitor, site: Site) -> None:
    site.message("token-of-member-0123456789abcdef")
    visit = visitor("admin", color_scheme="dark", viewport={"width": 718, "height": 1000})  # A4 with margins
    for path in ("people", "requests", "usage"):
        page = visit.go(path)
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 250, 248)"
        assert page.evaluate(
            """[...document.querySelectorAll('table')].every(
                 table => table.getBoundingClientRect().right <= document.documentElement.clientWidth)"""
        ), path


def test_requests_of_an_hour_ago_are_found_without_paging_there(visitor: Visitor, site: Site) -> None:
    site.message("token-of-member-0123456789abcdef")
    visit = visitor("viewer")
    page = visit.go("requests?user=max")
    expect(page.get_by_role("link", name="Why").first).to_be_visible()
    page.get_by_label("Before").fill("1h")
    send(page, "Filter")
    expect(page.get_by_text("None fits these filters")).to_be_visible()
    page.get_by_label("Before").fill("tea time")
    send(page, "Filter")
    assert "write it like 7d" in visit.notice
    expect(page.get_by_label("Before")).to_have_value("tea time")


def test_however_much_is_wrong_is_told(visitor: Visitor, site: Site) -> None:
    """More than a cookie holds."""
    before = site.live.config.read_text()
    faults = {f"a-setting-that-nobody-knows-{number:03}": "→" * 20 for number in range(100)}
    site.live.config.write_text(json.dumps(json.loads(before) | faults))
    visit = visitor("admin")
    page = visit.go("settings")
    send(page, "Reload the configuration")
    assert "a-setting-that-nobody-knows-000" in visit.notice
    site.live.config.write_text(before)


def test_an_address_that_forms_are_sent_to_says_so_on_a_page(visitor: Visitor) -> None:
    """A browser that is started again loads it, for one."""
    page = visitor("admin").go("people/users/max/limits")
    expect(page.get_by_text("A form was sent to this address")).to_be_visible()
    page.get_by_role("link", name="Back to the first page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Now")
