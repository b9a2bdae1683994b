"""What a browser's session is worth, and what ends it. Without a browser: tests/control/dashboard has one."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import jwt
import pytest

from aimux.accounts import AccountPool
from aimux.control.api import parts
from aimux.control.dashboard import now
from aimux.control.dashboard.sessions import Sessions
from aimux.storage import Database, Unusable
from tests.control.live import Live, running

SECRET = "the-secret-of-the-old-gateway-0123"
TOKENS = {name: f"token-of-{name}-0123456789abcdef" for name in ("ada", "max", "gus")}
ROLES = {"ada": "admin", "max": "member", "gus": "admin"}


class Site:
    """A running aimux whose configuration can be changed."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.place = urlsplit(live.app.addresses[0]).netloc

    def send(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any, str]:
        connection = http.client.HTTPConnection(self.place, timeout=30)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()

    def api(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        fields = {"authorization": f"Bearer {token or self.live.key}", "content-type": "application/json"}
        status, _, text = self.send(method, f"/api/v1{path}", None if body is None else json.dumps(body), **fields)
        return status, json.loads(text) if text else None

    def sign_in(self, **form: str) -> tuple[int, str]:
        """Status, and the cookie."""
        kind = {"content-type": "application/x-www-form-urlencoded"}
        status, headers, _ = self.send("POST", "/dashboard/sign-in", urlencode(form), **kind)
        return status, (headers["set-cookie"] or "").partition(";")[0]

    def by_link(self, token: str | None = None, **body: str) -> str:
        status, made = self.api("POST", "/sign-in-links", body, token)
        assert status == 201
        return self.sign_in(code=made["path"].partition("code=")[2])[1]

    def signed_in(self, cookie: str, page: str = "me") -> bool:
        status, headers, _ = self.send("GET", f"/dashboard/{page}", cookie=cookie)
        assert status == 200 or headers["location"] == f"/dashboard/sign-in?to={page}"
        return status == 200

    def sees_accounts(self, cookie: str) -> bool:
        """A page that needs no database."""
        return self.signed_in(cookie, "accounts")

    def reconfigure(self, **settings: Any) -> None:
        config = json.loads(self.live.config.read_text()) | settings
        self.live.config.write_text(json.dumps(config))
        assert self.api("POST", "/reload")[0] == 200


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    users = [{"name": name, "role": ROLES[name], "token": token} for name, token in TOKENS.items()]
    auth = {"jwt": {"secret": SECRET, "role_claim": "role"}}
    with running(tmp_path, listen="127.0.0.1:0", users=users, self_service=True, auth=auth) as live:
        yield Site(live)


def signed(**claims: Any) -> str:
    return jwt.encode({"sub": "ada", "exp": int(time.time()) + 600, **claims}, SECRET, "HS256")


@pytest.mark.parametrize("blank", ["\u2000", "\u00a0", "\u0085", "\u3000"])
def test_a_name_behind_a_space_of_unicode_is_another_cookie(site: Site, blank: str) -> None:
    """Browsers keep `__Host-` from pages of sibling domains, but not a name that begins with such a space: Django's
    "cookie chaos"."""
    own, foreign = site.sign_in(token=TOKENS["max"])[1], site.sign_in(token=TOKENS["gus"])[1]
    cookies = f"{blank}{foreign}; {own}".encode().decode("latin-1")
    page = site.send("GET", "/dashboard/me", cookie=cookies)[2]
    assert ("max" in page, "gus" in page) == (True, False)
    assert not site.signed_in(f"{blank}{foreign}".encode().decode("latin-1"))


@pytest.mark.parametrize("change", [{"enabled": False}, {"role": "viewer"}])
def test_the_link_of_somebody_else_is_worth_what_its_admin_is(site: Site, change: dict[str, Any]) -> None:
    site.api("POST", "/users", {"name": "eve", "role": "admin"})
    token = site.api("POST", "/tokens", {"user": "eve"})[1]["token"]
    cookie, late = (
        site.by_link(token, user="ada"),
        site.api("POST", "/sign-in-links", {"user": "ada"}, token)[1]["path"],
    )
    assert site.signed_in(cookie)
    assert site.api("PATCH", "/users/eve", change)[0] == 200
    assert not site.signed_in(cookie)
    assert not site.signed_in(site.sign_in(code=late.partition("code=")[2])[1])


def test_a_token_signed_elsewhere_opens_none(site: Site) -> None:
    """It would outlive the token and its revocation, and have the role of the user of that name, not the claimed."""
    demoted = signed(role="viewer")
    assert site.api("GET", "/me", token=demoted)[1]["role"] == "viewer"
    assert site.sign_in(token=demoted) == (403, "")
    status, refused = site.api("POST", "/sign-in-links", {}, signed(role="admin"))
    assert (status, refused["detail"]) == (403, "A token that was signed elsewhere opens no session.")


def test_it_ends_with_a_token_that_was_taken_out_of_the_configuration(site: Site) -> None:
    _, cookie = site.sign_in(token=TOKENS["gus"])
    by_link = site.by_link(TOKENS["gus"])
    assert site.signed_in(cookie)
    assert site.signed_in(by_link)
    users = [
        {"name": name, "role": ROLES[name], "token": "a-new-one-0123456789" if name == "gus" else token}
        for name, token in TOKENS.items()
    ]
    site.reconfigure(users=users)
    assert not site.signed_in(cookie)
    assert not site.signed_in(by_link)


def test_it_ends_with_the_admin_key_that_opened_it_or_gave_the_link(site: Site) -> None:
    _, cookie = site.sign_in(token=site.live.key)
    links = [site.by_link(), site.by_link(user="max")]
    assert all(map(site.signed_in, [cookie, *links]))
    (site.live.state_dir / "admin.key").unlink()
    assert site.api("POST", "/reload", token=TOKENS["ada"])[0] == 200
    assert not any(map(site.signed_in, [cookie, *links]))


def test_a_link_for_somebody_else_is_in_the_audit_log(site: Site) -> None:
    """Whatever is done with it is in the log under their name."""
    site.by_link(TOKENS["ada"], user="max")
    latest = site.api("GET", "/audit")[1]["items"][0]
    assert (latest["actor"], latest["action"], latest["target"]) == ("ada", "sign-in-link.make", "user:max")


def test_a_link_ends_with_its_user(site: Site) -> None:
    """One of the same name that is made later is somebody else."""
    assert site.api("POST", "/users", {"name": "vic"})[0] == 201
    code = site.api("POST", "/sign-in-links", {"user": "vic"})[1]["path"].partition("code=")[2]
    assert site.api("DELETE", "/users/vic")[0] == 204
    assert site.api("POST", "/users", {"name": "vic"})[0] == 201
    assert site.sign_in(code=code) == (410, "")


def test_behind_a_proxy_with_tls_addresses_have_it_too(site: Site) -> None:
    """Else tokens would be sent, and invitations opened, in the open."""
    cookie = f"__Host-{site.sign_in(token=TOKENS['ada'])[1]}"

    def shown(**headers: str) -> str:
        return site.send("GET", "/dashboard/me", cookie=cookie, host="ai.example.org", **headers)[2]

    assert "http://ai.example.org/claude" in shown()
    for told in ("https", "https,http"):  # a second proxy adds that it was asked without
        page = shown(**{"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": told})
        assert "https://ai.example.org/claude" in page
        assert "http://ai.example.org" not in page


def test_below_a_path_of_a_proxys_the_pages_lead_to_each_other(site: Site) -> None:
    """It takes the path off, and says so, as Traefik's StripPrefix does by itself."""
    below = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", "host": "example.org"}
    below["x-forwarded-prefix"] = "/ai/gateway"
    cookie = f"__Host-{site.sign_in(token=TOKENS['ada'])[1]}"
    _, headers, page = site.send("GET", "/dashboard/me", cookie=cookie, **below)
    assert 'href="/ai/gateway/dashboard/people"' in page
    assert '"/dashboard' not in page
    assert "https://example.org/ai/gateway/claude" in page
    assert 'aria-current="page"' in page
    _, headers, _ = site.send("GET", "/dashboard/requests?user=max", **below)
    assert headers["location"] == "/ai/gateway/dashboard/sign-in?to=requests%3Fuser%3Dmax"
    _, headers, _ = site.send("GET", "/", **below)
    assert (
        urljoin("https://example.org/ai/gateway/", headers["location"]) == "https://example.org/ai/gateway/dashboard/"
    )
    _, _, advice = site.send("POST", "/v1/messages", "{}", **below)  # without the mount
    assert "https://example.org/ai/gateway/claude" in advice


@pytest.mark.parametrize("prefix", ["//evil.example", "/a/../b", "https://evil.example", '/"><script>', "/a b", "/"])
def test_a_path_that_can_be_none_leads_nowhere(site: Site, prefix: str) -> None:
    headers = site.send("GET", "/dashboard/me", **{"x-forwarded-prefix": prefix})[1]
    assert headers["location"] == "/dashboard/sign-in?to=me"


def test_live_values_end_with_the_role_that_may_see_them(site: Site) -> None:
    assert site.api("POST", "/users", {"name": "vic", "role": "viewer"})[0] == 201
    token = site.api("POST", "/tokens", {"user": "vic"})[1]["token"]
    _, cookie = site.sign_in(token=token)
    connection = http.client.HTTPConnection(site.place, timeout=30)
    connection.request("GET", "/dashboard/now/live", headers={"cookie": cookie})
    stream = connection.getresponse()
    assert stream.readline() == b"event: part\n"
    assert site.api("PATCH", "/users/vic", {"role": "member"})[0] == 200
    stream.read()  # to its end
    assert site.signed_in(cookie)


def test_a_session_from_a_clock_that_was_ahead_does_not_outlive_its_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, clock = site.by_link(), time.time_ns
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time_ns", lambda: clock() + 30 * 86_400 * 10**9)
        assert not site.signed_in(mine)
        later = site.by_link()
        assert site.signed_in(later)
    assert not site.signed_in(later)
    assert site.signed_in(site.by_link())


class Away:
    """A database that takes nothing, and with `reads` only reads."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database, self._patch = site.live.app.database, monkeypatch

    @contextmanager
    def __call__(self, *, reads: bool = False) -> Iterator[None]:
        error = Unusable("the disk of /srv/aimux.db is gone", remedy="bring it back")

        @asynccontextmanager
        async def refuse(*_topics: str) -> AsyncIterator[None]:
            raise error
            yield

        with self._patch.context() as patch:
            patch.setattr(Database, "trouble", property(lambda _database: error))
            patch.setattr(self.database, "write", refuse)
            if not reads:
                patch.setattr(self.database, "read", refuse)
            yield


@pytest.fixture
def away(site: Site, monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(site, monkeypatch)


def kept(site: Site) -> int:
    """How many sessions the database has."""
    with closing(sqlite3.connect(site.live.state_dir / "aimux.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM sessions").fetchone()
    return int(count)


def test_while_the_database_is_away_sessions_go_on_and_others_begin(site: Site, away: Away) -> None:
    _, before = site.sign_in(token=TOKENS["ada"])
    with away():
        status, meanwhile = site.sign_in(token=TOKENS["gus"])
        assert status == 303
        by_key = site.sign_in(token=site.live.key)[1]
        assert all(map(site.sees_accounts, [before, meanwhile, by_key]))
        assert site.sign_in(token="wrong-0123456789") == (401, "")
    assert kept(site) == 1
    assert site.sees_accounts(meanwhile)
    assert kept(site) == 2, "it is written down as soon as it is used again"
    assert all(map(site.sees_accounts, [before, meanwhile, by_key]))


def test_on_a_full_disk_sessions_begin(site: Site, away: Away) -> None:
    site.sign_in(token=TOKENS["ada"])
    with away(reads=True):
        _, meanwhile = site.sign_in(token=TOKENS["gus"])
        assert site.sees_accounts(meanwhile)


def test_a_session_that_began_without_the_database_ends_with_its_token(site: Site, away: Away) -> None:
    site.sign_in(token=TOKENS["ada"])
    with away():
        _, meanwhile = site.sign_in(token=TOKENS["gus"])
        users = [{"name": name, "role": ROLES[name], "token": TOKENS[name]} for name in ("ada", "max")]
        site.reconfigure(users=users)
        assert not site.sees_accounts(meanwhile)


def test_signing_out_without_the_database(site: Site, away: Away) -> None:
    """A session that it has would be there again with it: whoever signs out is told."""
    form = {"content-type": "application/x-www-form-urlencoded"}

    def sign_out(cookie: str) -> tuple[int, str]:
        csrf = re.search('name="csrf" value="([0-9a-f]+)"', site.send("GET", "/dashboard/accounts", cookie=cookie)[2])
        assert csrf is not None
        status, _, text = site.send("POST", "/dashboard/sign-out", f"csrf={csrf[1]}", cookie=cookie, **form)
        return status, text

    _, before = site.sign_in(token=TOKENS["ada"])
    with away():
        _, meanwhile = site.sign_in(token=TOKENS["gus"])
        assert sign_out(meanwhile)[0] == 303
        status, text = sign_out(before)
        assert (status, "Nothing was changed" in text) == (503, True)
        assert site.sees_accounts(before)
        # The browser of the ended one is asked to sign in, as is every other whose session this node does not remember.
        status, _, text = site.send("GET", "/dashboard/accounts", cookie=meanwhile)
        assert (status, "Sign in again" in text) == (503, True)
    assert not site.sees_accounts(meanwhile)
    assert sign_out(before)[0] == 303
    assert not site.sees_accounts(before)


def test_pages_that_need_no_database_open_without_one(site: Site, away: Away) -> None:
    told = "The database is out of order."
    _, ada = site.sign_in(token=TOKENS["ada"])
    _, member = site.sign_in(token=TOKENS["max"])
    with away():
        for path in ("", "accounts", "accounts/claude/default", "accounts/add/claude"):
            status, _, text = site.send("GET", f"/dashboard/{path}", cookie=ada)
            assert (path, status) == (path, 200)
            assert path.startswith("accounts/add") or f"{told} Requests are served" in text
        for path in ("people", "usage", "requests", "settings", "me"):
            status, _, text = site.send("GET", f"/dashboard/{path}", cookie=ada)
            assert (path, status) == (path, 503)
            assert "This page needs the database" in text
            assert "What is wrong: the disk of /srv/aimux.db is gone: bring it back." in text
        status, _, text = site.send("GET", "/dashboard/me", cookie=member)
        assert (status, told in text, "/srv" in text) == (503, True, False)
        for path in ("join?code=abc", "sign-in?code=abc"):  # whoever asks may be a stranger
            status, _, text = site.send("GET", f"/dashboard/{path}")
            assert (status, told in text, "/srv" in text) == (503, True, False)


def test_only_who_may_see_everything_hears_where_the_database_is(site: Site, away: Away) -> None:
    with away():
        for token, told in ((TOKENS["ada"], True), (TOKENS["max"], False)):
            status, answer = site.api("GET", "/me", token=token)
            assert (status, answer["type"], "/srv" in answer["detail"]) == (500, "urn:aimux:storage", told)
        stranger = {"content-type": "application/json"}
        status, _, text = site.send("POST", "/api/v1/invitations/look", json.dumps({"code": "x" * 32}), **stranger)
        assert (status, "database" in text, "/srv" in text) == (500, True, False)


@pytest.mark.parametrize("known", [True, False])
def test_a_database_that_hangs_keeps_nobody_waiting(
    site: Site, away: Away, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Whether or not it has been noticed."""

    async def hang(_pool: AccountPool) -> None:
        await asyncio.Event().wait()

    @asynccontextmanager
    async def silent(*_topics: str) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    _, ada = site.sign_in(token=TOKENS["ada"])
    monkeypatch.setattr(parts, "PATIENCE", 0)
    monkeypatch.setattr(parts, "LESS", 0)
    monkeypatch.setattr(AccountPool, "load", hang)
    with away():
        for name in ("read", "write"):
            monkeypatch.setattr(away.database, name, silent)
        if not known:
            monkeypatch.setattr(away.database, "_failed", None)
        status, _, text = site.send("GET", "/dashboard/accounts", cookie=ada)
        assert (status, "claude/default" in text) == (200, True)
        assert site.sign_in(token=TOKENS["gus"])[0] == 303


def form_of(count: int, size: int = 1) -> str:
    part = '--x\r\nContent-Disposition: form-data; name="{}"; filename="b"\r\n\r\n{}\r\n'
    return (
        part.format("csrf", "guessed") + "".join(part.format(f"a{at}", "b" * size) for at in range(count)) + "--x--\r\n"
    )


FILES = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (FILES, form_of(1), 415),
        ("application/x-www-form-urlencoded; charset=none", "a=b", 400),
        ("application/x-www-form-urlencoded", "a=%ff&b=\xff", 400),
        ("application/x-www-form-urlencoded", "a=&" * 2_000, 413),
    ],
)
def test_what_no_page_of_aimux_sends_is_no_fault_of_aimux(
    site: Site, kind: str, body: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert site.send("POST", "/dashboard/sign-in", body, **{"content-type": kind})[0] == status
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("kind", "count", "size", "status"),
    [
        (FILES, 5, 100, 403),
        (FILES, 49, 1, 403),
        (FILES, 50, 1, 413),
        (FILES, 1, 256 * 1024 + 1, 413),
        ("multipart/form-data", 1, 1, 400),
    ],
)
def test_a_form_with_files_is_looked_at_as_far_as_pages_have_them(
    site: Site, kind: str, count: int, size: int, status: int
) -> None:
    """403: its word is no session's."""
    _, cookie = site.sign_in(token=TOKENS["max"])
    fields = {"content-type": kind, "cookie": f"other={'x' * 9_000}; {cookie}; {cookie[:-1]}=later"}
    assert site.send("POST", "/dashboard/me/tokens", form_of(count, size), **fields)[0] == status


def test_a_fault_of_ours_is_told_on_a_page(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Sessions, "find", broken)
    status, headers, text = site.send("GET", "/dashboard/me")
    assert (status, headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert f"its log has the details under {headers['x-request-id']}" in text


def test_but_not_within_an_answer_that_has_begun(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live values: a page in the middle of them would be taken for one."""
    _, cookie = site.sign_in(token=TOKENS["ada"])

    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(now, "_parts", broken)
    host, _, port = site.place.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(f"GET /dashboard/now/live HTTP/1.1\r\nhost: {site.place}\r\ncookie: {cookie}\r\n\r\n".encode())
        told = b"".join(iter(lambda: sock.recv(65536), b""))
    assert told.startswith(b"HTTP/1.1 200 ")
    assert b" 500 " not in told
