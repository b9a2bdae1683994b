"""A real aimux, and a real Chromium in front of its pages."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from tests.control.live import Live, running
from tests.tools import program

pytest.importorskip("playwright", reason="the pages are tried in a browser")
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP lan.example 127.0.0.1",
)
TOKENS = {role: f"token-of-{role}-0123456789abcdef" for role in ("member", "viewer", "admin")}
PROMPT = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello!"}]}


class Site:
    """A running aimux with users of each role: ada (admin), vic (viewer) and max (member)."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.app = live.app
        self.url = live.app.addresses[0]

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """The REST API as the machine's own administrator."""
        headers = {"authorization": f"Bearer {self.live.key}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def message(self, token: str, **headers: str) -> int:
        """A request for Claude with this token: its status."""
        fields = {"authorization": f"Bearer {token}", "anthropic-version": "2023-06-01", **headers}
        fields["content-type"] = "application/json"
        body = json.dumps(PROMPT | {"model": headers.get("x-model", PROMPT["model"])}).encode()
        request = urllib.request.Request(f"{self.url}/claude/v1/messages", body, fields)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def link(self) -> str:
        """One that signs in."""
        return self.url + str(self.api("POST", "/sign-in-links", {})["path"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    names = {"ada": "admin", "vic": "viewer", "max": "member"}
    users = [{"name": name, "role": role, "token": TOKENS[role]} for name, role in names.items()]
    folder = tmp_path_factory.mktemp("site")
    with running(folder, listen="127.0.0.1:0", users=users, self_service=True) as live:
        yield Site(live)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For the tests of a file, none of which may be asynchronous: Playwright has a loop run in this thread."""
    path = program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield browser
        browser.close()


class Visit:
    """A browser of its own. What its pages did wrong is in `faults`; whoever it asked beside aimux in `strangers`."""

    def __init__(self, context: BrowserContext, site: Site) -> None:
        self.context = context
        self.site = site
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        self.strangers: list[str] = []
        context.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        context.on("request", lambda asked: self._asked(asked.url))

    def _asked(self, url: str) -> None:
        if not url.startswith((self.site.url, "data:", "about:")):
            self.strangers.append(url)

    def go(self, path: str = "") -> Page:
        """A page of the dashboard."""
        self.page.goto(f"{self.site.url}/dashboard/{path}")
        return self.page

    def sign_in(self, role: str) -> None:
        """As the page's form does, which has tests of its own: it takes half of a short test's time."""
        form: dict[str, str | float | bool] = {"token": TOKENS[role]}
        answer = self.context.request.post(f"{self.site.url}/dashboard/sign-in", form=form, max_redirects=0)
        assert answer.status == 303, answer.text()

    @property
    def notice(self) -> str:
        return self.page.get_by_role("status").inner_text()


Visitor = Callable[..., Visit]


@pytest.fixture
def visitor(chromium: Browser, site: Site) -> Iterator[Visitor]:
    """`visitor(role)`: a browser that is signed in; without a role one that is not. Options are the browser's.

    It shows no page yet.
    """
    contexts: list[BrowserContext] = []

    def come(role: str | None = None, **options: Any) -> Visit:
        context = chromium.new_context(**options)
        context.set_default_timeout(60_000)  # a plan is worked out beside all else, which waits on a busy machine
        contexts.append(context)
        visit = Visit(context, site)
        if role is not None:
            visit.sign_in(role)
        return visit

    yield come
    for context in contexts:
        context.close()


def send(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


@contextmanager
def held(site: Site, token: str, **headers: str) -> Iterator[None]:
    """A request that runs until the block is left."""
    thread = Thread(target=site.message, args=(token,), kwargs={"x-simulator": "hold", **headers})
    thread.start()
    try:
        yield
    finally:
        site.live.release()
        thread.join()
