"""Signing in and out, and what a session is worth."""

from __future__ import annotations

import http.client
import re
import urllib.request
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import expect

from tests.control.dashboard.conftest import TOKENS, Site, Visitor, send

pytestmark = pytest.mark.browser
COOKIE = "aimux"
GUARDED = f"__Host-{COOKIE}"


def raw(site: Site, method: str, path: str, body: str = "", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=30)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if body:
        fields.setdefault("content-type", "application/x-www-form-urlencoded")
    connection.request(method, f"/dashboard/{path}", body or None, fields)
    answer = connection.getresponse()
    answer.body = answer.read().decode()  # type: ignore[attr-defined]
    return answer


def test_a_link_signs_in_once(visitor: Visitor, site: Site) -> None:
    link = site.link()
    visit = visitor()
    visit.page.goto(link)
    visit.page.goto(link)  # to look at it does not use it up: chats preview links
    visit.page.get_by_role("button", name="Sign in").click()
    expect(visit.page.get_by_role("heading", name="Now", exact=True)).to_be_visible()
    other = visitor()
    other.page.goto(link)
    expect(other.page.get_by_text("used already")).to_be_visible()


def test_whoever_signs_in_comes_to_the_page_that_was_asked_for(visitor: Visitor, site: Site) -> None:
    page = visitor().go("requests?user=max&status=200")
    expect(page).to_have_url(re.compile("/dashboard/sign-in[?]"))
    page.get_by_label("Your aimux token").fill(TOKENS["viewer"])
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{site.url}/dashboard/requests?user=max&status=200")
    page.goto(f"{site.url}/dashboard/sign-in?to=usage")  # as a link in a chat, with which no cookie comes, would end
    page.get_by_role("link", name="go on").click()
    expect(page.get_by_role("heading", name="Usage", exact=True)).to_be_visible()


@pytest.mark.parametrize("to", ["//evil.example/", "https://evil.example/", "../../claude", "a\r\nset-cookie: x=1"])
def test_signing_in_leads_nowhere_else(site: Site, to: str) -> None:
    answer = raw(site, "POST", "sign-in", urlencode({"token": TOKENS["viewer"], "to": to}))
    assert answer.status == 303
    assert answer.headers["location"].startswith("/dashboard/")
    assert ".." not in answer.headers["location"]
    assert not any(value.startswith("x=1") for value in answer.headers.values())


def test_the_front_page_leads_to_signing_in(visitor: Visitor, site: Site) -> None:
    page = visitor().page
    page.goto(site.url)
    expect(page).to_have_url(re.compile("/dashboard/sign-in$"))


@pytest.mark.parametrize(
    ("role", "pages"),
    [
        ("member", ["Me"]),
        ("viewer", ["Now", "Accounts", "People", "Usage", "Requests", "Me"]),
        ("admin", ["Now", "Accounts", "People", "Usage", "Requests", "Settings", "Me"]),
    ],
)
def test_a_role_sees_its_pages(visitor: Visitor, role: str, pages: list[str]) -> None:
    page = visitor(role).go()
    assert page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts() == pages


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        ("member", "accounts", 403),
        ("member", "people", 403),
        ("member", "people/users/ada", 403),
        ("member", "usage", 403),
        ("member", "now/live", 403),
        ("viewer", "settings", 403),
        ("viewer", "people/users/ada", 200),
    ],
)
def test_no_role_gets_further_by_typing_an_address(visitor: Visitor, role: str, path: str, status: int) -> None:
    visit = visitor(role)
    answer = visit.page.goto(f"{visit.site.url}/dashboard/{path}")
    assert answer is not None
    assert answer.status == status


@pytest.mark.parametrize(
    "action", ["people/users/max/disable", "people/users/max/token", "accounts/claude/default/disable"]
)
def test_a_viewer_changes_nothing(visitor: Visitor, action: str) -> None:
    visit = visitor("viewer")
    csrf = visit.go().locator("input[name=csrf]").first.get_attribute("value")
    answer = visit.context.request.post(
        f"{visit.site.url}/dashboard/{action}", form={"csrf": csrf or ""}, max_redirects=0
    )
    if answer.status == 303:  # back to where the form was, with the reason
        visit.page.goto(visit.site.url + answer.headers["location"])
        assert "role" in visit.notice
    else:
        assert answer.status == 403
    assert visit.site.api("GET", "/users/max")["enabled"]
    assert visit.site.api("GET", "/accounts/claude/default")["status"] == "healthy"


def test_a_wrong_token_is_told(visitor: Visitor) -> None:
    page = visitor().go("sign-in")
    page.get_by_label("Your aimux token").fill("aimux_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("aimux does not know this token")).to_be_visible()


def test_the_cookie_is_for_this_site_alone(visitor: Visitor) -> None:
    (cookie,) = visitor("admin").context.cookies()
    assert cookie["name"] == COOKIE
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert TOKENS["admin"] not in str(cookie)


def test_a_browser_that_keeps_no_secure_cookie_without_tls_signs_in_on_this_machine(site: Site) -> None:
    """Safari is one."""
    jar = urllib.request.HTTPCookieProcessor()  # it sends such a cookie over HTTPS alone, too
    browser = urllib.request.build_opener(jar)
    browser.open(f"{site.url}/dashboard/sign-in", urlencode({"token": TOKENS["admin"]}).encode(), timeout=30).close()
    with browser.open(f"{site.url}/dashboard/accounts", timeout=30) as page:
        assert page.url == f"{site.url}/dashboard/accounts"


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "ai.example.org", "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7"},
        {"host": "127.0.0.1:8080", "x-forwarded-for": "203.0.113.7"},  # what stands in between sent a Host of its own
        {"host": "ai.example.org"},
    ],
)
def test_from_elsewhere_the_cookie_goes_over_tls_alone(site: Site, fields: dict[str, str]) -> None:
    answer = raw(site, "POST", "sign-in", urlencode({"token": TOKENS["admin"]}), **fields)
    name, _, rest = str(answer.headers["set-cookie"]).partition("=")
    secret, *attributes = rest.split("; ")
    assert name == GUARDED
    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= {*attributes}
    assert raw(site, "GET", "accounts", cookie=f"{GUARDED}={secret}", **fields).status == 200
    assert raw(site, "GET", "accounts", cookie=f"{COOKIE}={secret}", **fields).status == 303  # a sibling domain's, say


def test_signing_out_ends_the_session_for_whoever_has_its_cookie(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    (cookie,) = visit.context.cookies()
    visit.go().get_by_role("button", name="Sign out").click()
    expect(visit.page).to_have_url(re.compile("sign-in$"))
    answer = raw(site, "GET", "accounts", cookie=f"{COOKIE}={cookie['value']}")
    assert (answer.status, answer.headers["location"]) == (303, "/dashboard/sign-in?to=accounts")


def test_a_form_of_a_session_that_ended_meanwhile_leads_to_signing_in(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    page = visit.go("people/users/max")
    other = visit.context.new_page()
    other.goto(site.url + "/dashboard/")
    other.get_by_role("button", name="Sign out").click()
    expect(other).to_have_url(re.compile("sign-in$"))
    page.get_by_role("button", name="Invitation link").click()
    expect(page.get_by_text("You are not signed in any more; nothing was changed.")).to_be_visible()
    page.get_by_role("link", name="Sign in").click()
    expect(page).to_have_url(re.compile("sign-in$"))
    visit.faults.clear()  # the browser tells of the 401


def test_a_session_that_somebody_else_chose_is_not_taken_over(site: Site) -> None:
    form = urlencode({"token": TOKENS["admin"]})
    answer = raw(site, "POST", "sign-in", form, cookie=f"{COOKIE}=chosen-by-an-attacker")
    assert answer.status == 303
    assert "chosen-by-an-attacker" not in str(answer.headers["set-cookie"])
    assert raw(site, "GET", "accounts", cookie=f"{COOKIE}=chosen-by-an-attacker").status == 303


def test_a_revoked_token_ends_the_sessions_that_it_opened(visitor: Visitor, site: Site) -> None:
    site.api("POST", "/users", {"name": "eve", "role": "viewer"})
    issued = site.api("POST", "/tokens", {"user": "eve"})
    visit = visitor()
    page = visit.go("sign-in")
    page.get_by_label("Your aimux token").fill(issued["token"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Now", exact=True)).to_be_visible()
    site.api("DELETE", f"/tokens/{issued['id']}")
    visit.go("accounts")
    expect(page).to_have_url(re.compile("sign-in[?]to=accounts$"))


def test_a_form_without_the_sessions_word_changes_nothing(visitor: Visitor, site: Site) -> None:
    (cookie,) = visitor("admin").context.cookies()
    answer = raw(site, "POST", "accounts/claude/default/disable", "csrf=guessed", cookie=f"{COOKIE}={cookie['value']}")
    assert answer.status == 403
    assert "nothing was changed" in answer.body  # type: ignore[attr-defined]
    assert site.api("GET", "/accounts/claude/default")["status"] == "healthy"


def test_a_page_of_another_site_can_send_no_form(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    (cookie,) = visit.context.cookies()
    csrf = visit.go().locator("input[name=csrf]").first.get_attribute("value")
    answer = raw(
        site,
        "POST",
        "accounts/claude/default/disable",
        f"csrf={csrf}",
        cookie=f"{COOKIE}={cookie['value']}",
        origin="https://evil.example",
    )
    assert answer.status == 403
    assert site.api("GET", "/accounts/claude/default")["status"] == "healthy"


def test_no_page_can_be_framed_or_load_anything_from_elsewhere(site: Site) -> None:
    policy = raw(site, "GET", "sign-in").headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_a_session_is_no_secret_in_the_database(visitor: Visitor, site: Site) -> None:
    (cookie,) = visitor("admin").context.cookies()
    stored = b"".join(path.read_bytes() for path in site.live.state_dir.glob("aimux.db*"))
    assert cookie["value"].encode() not in stored


@pytest.mark.parametrize("role", ["member", "viewer", "admin"])
def test_everybody_signs_in_and_out_without_script(visitor: Visitor, role: str) -> None:
    visit = visitor(java_script_enabled=False)
    page = visit.go("sign-in")
    page.get_by_label("Your aimux token").fill(TOKENS[role])
    send(page, "Sign in")
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    visit.page.get_by_role("button", name="Sign out").click()
    expect(visit.page).to_have_url(re.compile("sign-in$"))


def test_a_page_of_another_site_shows_none_of_ours_in_a_frame(visitor: Visitor, site: Site) -> None:
    visit = visitor("admin")
    visit.page.route(
        "https://evil.example/", lambda route: route.fulfill(body="<iframe></iframe>", content_type="text/html")
    )
    visit.page.goto("https://evil.example/")
    visit.page.evaluate("url => { document.querySelector('iframe').src = url; }", f"{site.url}/dashboard/")
    visit.page.wait_for_timeout(500)
    assert all(frame.get_by_role("heading").count() == 0 for frame in visit.page.frames[1:])


def test_a_member_forges_no_form_of_an_admin(visitor: Visitor, site: Site) -> None:
    """With a word of the session that is good: it is the role that is not."""
    visit = visitor("member")
    csrf = visit.go().locator("input[name=csrf]").first.get_attribute("value") or ""
    fields: dict[str, str | float | bool]
    fields = {"csrf": csrf, "name": "evil", "role": "admin", "api_key": "k", "account": "evil"}
    for action in (
        "people/add",
        "settings/reload",
        "accounts/claude/default/remove",
        "people/users/max",
        "accounts/add/claude",
    ):
        answer = visit.context.request.post(f"{site.url}/dashboard/{action}", form=fields, max_redirects=0)
        assert answer.status == 403, action
    assert site.api("GET", "/users/max")["role"] == "member"
    assert "evil" not in [user["name"] for user in site.api("GET", "/users")["items"]]


def test_a_wrong_token_is_typed_again_where_it_was_and_leads_to_the_page_that_was_asked_for(
    visitor: Visitor, site: Site
) -> None:
    page = visitor().go("requests?user=max")
    page.get_by_label("Your aimux token").fill("aimux_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("status")).to_contain_text("aimux does not know this token")
    page.get_by_label("Your aimux token").fill(TOKENS["viewer"])
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{site.url}/dashboard/requests?user=max")


def test_an_invitation_is_taken_without_tls_on_another_machine(visitor: Visitor, site: Site) -> None:
    """There a browser says nothing of a form but its `Origin`."""
    site.api("POST", "/users", {"name": "guest"})
    page = visitor("admin").go("people/users/guest")
    page.get_by_role("button", name="Invitation link").click()
    link = page.locator("#link").inner_text()
    guest = visitor().page
    guest.goto(link.replace("127.0.0.1", "lan.example"))
    send(guest, "Show my token")
    expect(guest.get_by_role("heading", name="Welcome, guest")).to_be_visible()
    site.api("DELETE", "/users/guest")
