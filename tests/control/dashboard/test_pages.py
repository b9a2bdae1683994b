"""What people do on the pages, as they do it."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Dialog, expect

from aimux.control.dashboard.rendering import files
from aimux.plugin import LimitWindow
from aimux.simulator.demo import credential_file
from tests.control.dashboard.conftest import TOKENS, Site, Visit, Visitor, send

pytestmark = pytest.mark.browser
PAGES = ("", "accounts", "people", "usage", "requests", "settings", "me", "people/users/max", "accounts/claude/default")
FORMS = ("people/add", "accounts/add/claude", "accounts/add/chatgpt", "usage/plan", "settings?all=1")


def test_a_new_user_gets_a_token_that_serves(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    page = visit.go("people/add")
    page.get_by_label("Name").fill("grace")
    page.get_by_label("E-mail address").fill("grace@example.org")
    send(page, "Add")
    token = page.locator("#token").inner_text()
    assert site.message(token) == 200
    expect(page.get_by_text("Claude Code", exact=True)).to_be_visible()
    assert f"{site.url}/claude" in page.content()
    visit.go("people/users/grace")
    assert token not in page.content(), "it is shown once"
    expect(page.get_by_text(token[:8])).to_be_visible()


def test_who_changed_what_is_narrowed(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "barbara"})
    visit = visitor("admin")
    page = visit.go("settings")
    page.get_by_label("To", exact=True).fill("user:barbara")
    page.get_by_label("Since").fill("1h")
    send(page, "Filter")
    changes = page.locator("#changes tbody tr")
    expect(changes).to_have_count(1)
    expect(changes).to_contain_text("user.add")
    page.get_by_label("Since").fill("nonsense")
    send(page, "Filter")
    expect(page.locator("#changes")).to_contain_text("'nonsense' is not a time")


def test_an_invitation_gives_its_token_to_the_one_who_opens_it(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    page = visit.go("people/add")
    page.get_by_label("Name").fill("linus")
    page.get_by_label("Give me a link for them").check()
    send(page, "Add")
    link = page.locator("#link").inner_text()
    guest = visitor()
    guest.page.goto(link)
    expect(guest.page.get_by_text("invited as linus")).to_be_visible()
    send(guest.page, "Show my token")
    assert site.message(guest.page.locator("#token").inner_text()) == 200
    again = visitor()
    again.page.goto(link)
    expect(again.page.get_by_text("used already")).to_be_visible()


def test_a_token_is_revoked(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "margaret"})
    token = site.api("POST", "/tokens", {"user": "margaret", "label": "laptop"})["token"]
    assert site.message(token) == 200
    visit = visitor("admin")
    page = visit.go("people/users/margaret")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke").click()
    assert "refused from now on" in visit.notice
    assert site.message(token) == 401
    assert visit.go("people").locator("#tokens").get_by_role("link", name="margaret").is_visible()
    site.api("DELETE", "/users/margaret")
    row = visit.go("people").locator("#tokens tr", has_text="margaret")
    expect(row).to_be_visible()
    expect(row.get_by_role("link")).to_have_count(0)


def test_what_another_administrator_changed_meanwhile_stays(visitor: Visitor, site: Site) -> None:
    for group in ("ops", "qa", "web"):
        site.api("POST", "/groups", {"name": group})
    site.api("POST", "/users", {"name": "niklaus", "role": "admin", "groups": ["ops", "qa"]})
    site.api("PUT", "/limits/user/niklaus", {"tokens_per_day": 1000})
    visit = visitor("admin")
    page = visit.go("people/users/niklaus")
    page.get_by_text("Change the limits").click()
    page.get_by_role("textbox", name="Tokens a day").fill("2000")
    site.api("PUT", "/limits/user/niklaus", {"tokens_per_day": 1000, "cost_per_day": 5})
    send(page, "Set")
    assert site.api("GET", "/limits/user/niklaus") == {"tokens_per_day": 2000, "cost_per_day": 5}

    page = visit.go("people/users/niklaus")
    page.get_by_label("E-mail address").fill("n@example.com")
    page.get_by_label("web").check()
    site.api("PATCH", "/users/niklaus", {"role": "member", "groups": ["qa"]})
    send(page, "Save")
    user = site.api("GET", "/users/niklaus")
    assert (user["email"], user["role"], sorted(user["groups"])) == ("n@example.com", "member", ["qa", "web"])

    page = visit.go("people/groups/ops")
    page.get_by_label("May use").fill("model:claude-*")
    site.api("PATCH", "/groups/ops", {"reserved": True})
    send(page, "Save")
    group = site.api("GET", "/groups/ops")
    assert (group["reserved"], group["scopes"]) == (True, ["model:claude-*"])
    site.api("PATCH", "/groups/ops", {"reserved": False})

    page = visit.go("accounts/chatgpt/default")
    page.get_by_text("Change").first.click()
    page.get_by_label("Weight").fill("2")
    site.api("PATCH", "/accounts/chatgpt/default", {"priority": 3, "groups": ["ops"]})
    send(page, "Save")
    account = site.api("GET", "/accounts/chatgpt/default")
    assert (account["weight"], account["priority"], account["groups"]) == (2, 3, ["ops"])
    site.api("PATCH", "/accounts/chatgpt/default", {"weight": 1, "priority": 0, "groups": []})


def test_a_user_who_is_there_already_is_told_on_the_form(visitor: Visitor) -> None:
    visit = visitor("admin")
    page = visit.go("people/add")
    page.get_by_label("Name").fill("ada")
    send(page, "Add")
    expect(page).to_have_url(re.compile("people/add$"))
    assert "ada" in visit.notice


def test_a_group_that_has_accounts_for_itself(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    page = visit.go("people")
    page.get_by_text("Add a group").click()
    page.get_by_label("Name", exact=True).fill("ci")
    page.get_by_label("Accounts in this group serve nobody else").check()
    send(page, "Add")
    assert "ci is there" in visit.notice
    assert site.api("GET", "/groups/ci")["reserved"]


def test_a_person_sees_what_is_their_own(visitor: Visitor, site: Site) -> None:
    visit = visitor("member")
    page = visit.go()
    expect(page.get_by_role("heading", name="max")).to_be_visible()
    page.get_by_text("Issue a token").click()
    page.get_by_label("Label").fill("my laptop")
    send(page, "Issue")
    token = page.locator("#token").inner_text()
    assert site.message(token) == 200
    page.get_by_role("link", name="To my page").click()
    expect(page.get_by_text("my laptop")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke").click()
    assert "refused from now on" in visit.notice
    assert site.message(token) == 401


def test_a_request_is_found_and_explained(visitor: Visitor, site: Site) -> None:
    assert site.message("token-of-viewer-0123456789abcdef") == 200
    visit = visitor("viewer")
    page = visit.go("requests?user=vic")
    page.get_by_role("link", name="Why").first.click()
    expect(page.get_by_role("heading", name="How it was routed")).to_be_visible()
    expect(page.locator("main")).to_contain_text("claude/default")
    visit.go("requests?user=vic&status=2xx")
    assert visit.notice == "status: must be a whole number."
    expect(page.get_by_label("User")).to_have_value("vic")


def test_who_is_refused_sees_which_limit_it_was(visitor: Visitor, site: Site) -> None:
    site.api("PUT", "/limits/user/max", {"tokens_per_day": 0})
    try:
        assert site.message(TOKENS["member"]) == 429
    finally:
        site.api("DELETE", "/limits/user/max")
    visit = visitor("member")
    card = visit.go().locator("section", has_text="My last requests")
    expect(card).to_contain_text("tokens per day")
    card.get_by_role("link", name="Why").first.click()
    page = visit.page
    expect(page.locator("section", has_text="The limit that refused it")).to_contain_text("set for the user max")
    expect(page.locator("main")).not_to_contain_text("How it was routed")
    admins = visitor("admin").go(page.url.partition("/me/")[2])
    admins.get_by_role("link", name="Change it").click()
    expect(admins).to_have_url(re.compile("people/users/max$"))


def test_who_may_not_pay_extra_sees_it_and_until_when_requests_are_refused(visitor: Visitor, site: Site) -> None:
    account = site.app.pools["claude"].accounts["default"]
    site.api("PUT", "/limits/user/max", {"overage": "forbid", "long_context": "forbid"})
    try:
        visit = visitor("member")
        card = visit.go().locator("section", has_text="What I may use")
        expect(card).to_contain_text("No paid extra usage")
        expect(card).to_contain_text("No requests so long that a token costs more")
        expect(card).not_to_contain_text("is refused now")
        full = LimitWindow("5h", 1.0, time.time() + 7200)
        site.live.loop.call_soon_threadsafe(account.observe, [full], time.time())
        page = visit.go("me")
        expect(page.locator(".note.warn")).to_contain_text("What is included in the claude accounts is used up")
        expect(page.locator(".note")).to_have_count(1)
        expect(page.locator("section", has_text="What I may use")).to_contain_text("claude is refused now")
        expect(page.locator("main")).not_to_contain_text("claude/default")
        assert site.message(TOKENS["member"]) == 429
        page = visit.go("me")
        page.locator("section", has_text="My last requests").get_by_role("link", name="Why").first.click()
        expect(page.locator(".note")).to_contain_text("limits forbid paid extra usage")
        page = visitor("admin").go("people/users/max")
        expect(page.locator(".limits")).to_contain_text(
            re.compile(r"claude is refused now \(since [\d-]+ [\d:]+ UTC\), and free")
        )

        site.api("POST", "/groups", {"name": "thrifty"})
        site.api("PUT", "/limits/group/thrifty", {"overage": "forbid"})
        page = visitor("admin").go("people/groups/thrifty")
        expect(page.locator(".limits")).to_contain_text("claude is refused now")

        token = site.api("POST", "/tokens", {"user": "max", "label": "nightly"})["id"]
        site.api("PUT", f"/limits/token/{token}", {"overage": "forbid", "tokens_per_day": 10**6})
        page = visitor("admin").go("people/users/max")
        card = page.locator("section", has=page.locator("h3", has_text="What the token nightly may use"))
        expect(card.locator(".limits")).to_contain_text("tokens / day")
        expect(card.locator(".limits")).to_contain_text("claude is refused now")
        site.api("DELETE", f"/limits/token/{token}")
        site.api("DELETE", f"/tokens/{token}")
        for path in ("/limits/group/thrifty", "/groups/thrifty"):
            site.api("DELETE", path)
    finally:
        site.live.loop.call_soon_threadsafe(account.observe, [LimitWindow("5h", 0.0, time.time() + 7200)], time.time())
        site.api("DELETE", "/limits/user/max")


def test_usage_is_shown_and_can_be_had_as_a_file(visitor: Visitor, site: Site) -> None:
    assert site.message("token-of-viewer-0123456789abcdef") == 200
    visit = visitor("viewer")
    page = visit.go("usage")
    expect(page.locator("table.sortable")).to_contain_text("vic")
    expect(page.locator("tfoot").last).to_contain_text("Together")
    page.locator("select[name=by]").select_option("model")  # which sends the form
    expect(page).to_have_url(re.compile("by=model"))
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    text = download.value.path().read_text()
    assert text.startswith("model,requests,")
    assert "claude-sonnet-5" in text


NASTY = "<img src=x onerror=alert(1)>'\"&{{7*7}}"


def test_what_a_stranger_writes_is_text(visitor: Visitor, site: Site) -> None:
    """Labels, models and user agents are what people and programs make them."""
    site.api("POST", "/users", {"name": "mallory"})
    token = site.api("POST", "/tokens", {"user": "mallory", "label": NASTY})["token"]
    site.message(token, **{"user-agent": NASTY, "x-model": NASTY})
    vendors = site.live.sim.add_account("nasty", "openai")
    vendors.email = NASTY
    file = credential_file(vendors).decode()
    site.api("POST", "/accounts", {"provider": "chatgpt", "name": "nasty", "file": file})
    visit = visitor("admin")
    dialogs: list[str] = []
    shown = ("", "people", "people/users/mallory", "requests?user=mallory", "usage?by=model", "usage?by=class")

    def shown_dialog(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    visit.page.on("dialog", shown_dialog)
    for path in (*shown, "accounts", "accounts/chatgpt/nasty"):
        page = visit.go(path)
        assert page.locator("img").count() == 0
    expect(visit.go("accounts").get_by_text(NASTY)).to_be_visible()
    site.api("DELETE", "/accounts/chatgpt/nasty")
    expect(visit.go("people/users/mallory").get_by_text(NASTY)).to_be_visible()
    assert dialogs == []


@pytest.mark.parametrize("script", [True, False], ids=["with-script", "without-script"])
@pytest.mark.parametrize("path", [*PAGES, *FORMS])
def test_every_page_works_alone(visitor: Visitor, site: Site, path: str, script: bool) -> None:
    """Without script too, without a request to any other host, and small."""
    visit = visitor("admin", java_script_enabled=script)
    sizes: list[int] = []
    visit.context.on("response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0))))
    answer = visit.page.goto(f"{site.url}/dashboard/{path}")
    assert answer is not None
    assert answer.status == 200
    expect(visit.page.get_by_role("heading", level=1)).to_be_visible()
    expect(visit.page.locator("[hidden]:visible")).to_have_count(0)
    assert visit.strangers == []
    assert visit.faults == []
    assert sum(sizes) < 100_000


def test_forms_work_without_script(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin", java_script_enabled=False)
    page = visit.go("people/add")
    page.get_by_label("Name").fill("ken")
    send(page, "Add")
    assert site.message(page.locator("#token").inner_text()) == 200


def test_a_plot_is_read_by_keyboard(visitor: Visitor, site: Site) -> None:
    assert site.message("token-of-viewer-0123456789abcdef") == 200
    page = visitor("viewer").go("usage")
    page.locator(".plot .mark").last.focus()
    expect(page.locator(".tip")).to_contain_text("vic")
    page.keyboard.press("Escape")
    expect(page.locator(".tip")).to_have_count(0)


def test_the_content_is_one_key_away(visitor: Visitor) -> None:
    page = visitor("viewer").go("accounts")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", [*PAGES, *FORMS, "sign-in"])
def test_axe_finds_nothing(visitor: Visitor, path: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    visit: Visit = visitor("admin", color_scheme=scheme)
    page = visit.go(path)
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = Axe().run(page, options=rules)
    assert found.violations_count == 0, found.generate_report()


def test_a_translated_page_sends_what_the_original_would(visitor: Visitor) -> None:
    """Browsers translate an option's text, which is its value where it has no other, and what is to be copied."""
    page = visitor("member").go()
    assert page.locator("pre").count() == page.locator("pre[translate=no]").count() > 0
    page = visitor("viewer").go("usage?since=7d")
    page.evaluate("for (const one of document.querySelectorAll('option')) one.textContent = `Übersetzt: ${one.text}`")
    page.get_by_role("combobox", name="By").select_option("Übersetzt: model")
    expect(page).to_have_url(re.compile(r"[?&]by=model&"))


def test_files_have_another_address_once_they_are_others(visitor: Visitor) -> None:
    """A browser keeps them for an hour, and an aimux of a later commit has no other version."""
    page = visitor().go("sign-in")
    for name, place in {"style.css": "link[rel=stylesheet]", "app.js": "script"}.items():
        address = page.locator(place).evaluate("element => element.href || element.src")
        assert address.endswith(f"/static/{name}?{files()[name].etag[1:-1]}")
