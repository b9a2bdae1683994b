"""Two real processes on one PostgreSQL, in a browser: one aimux, whichever of them answers."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from aimux.simulator.demo import credential_file
from tests.control.dashboard.conftest import TOKENS
from tests.control.live import Live, running
from tests.running import request, serving

pytestmark = pytest.mark.browser
PATIENCE = 20_000
"""Milliseconds: nodes tell each other within two seconds, and the machine may be busy."""


class Two:
    """Their addresses, and the simulator that both are in front of. `stop` ends the second."""

    def __init__(self, live: Live, first: str, second: str, stop: ExitStack) -> None:
        self.live, self.first, self.second, self.stop = live, first, second, stop


@pytest.fixture
def two(tmp_path: Path, postgresql_url: str) -> Iterator[Two]:
    users = [{"name": "ada", "role": "admin", "token": TOKENS["admin"]}, {"name": "max", "token": TOKENS["member"]}]
    database = {"url": postgresql_url, "encryption_key": bytes(range(32)).hex()}
    with running(tmp_path, serve=False) as live, ExitStack() as first, ExitStack() as second:
        config = json.loads(live.config.read_text()) | {"listen": "127.0.0.1:0", "users": users, "database": database}
        addresses = []
        for number, stack in enumerate((first, second)):
            folder = tmp_path / f"node{number}"
            folder.mkdir()
            addresses.append(stack.enter_context(serving(config | {"state_dir": str(folder / "state")}, folder)))
        yield Two(live, addresses[0], addresses[1], second)


def reloaded(page: Page, text: str) -> None:
    """Load the page again until it says so: what one node is told, the other one hears a moment later."""
    for _ in range(PATIENCE // 100):
        if text in page.locator("main").inner_text():
            return
        page.wait_for_timeout(100)
        page.reload()
    expect(page.locator("main")).to_contain_text(text)


def test_two_nodes_are_one_aimux(chromium: Browser, two: Two, tmp_path: Path) -> None:
    file = tmp_path / ".credentials.json"
    file.write_bytes(credential_file(two.live.sim.accounts["claude"]))
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    one, other = context.new_page(), context.new_page()

    # Who signs in at one is signed in at the other.
    one.goto(f"{two.first}/dashboard/sign-in")
    one.get_by_label("Your aimux token").fill(TOKENS["admin"])
    one.get_by_role("button", name="Sign in").click()
    one.wait_for_url(re.compile("/dashboard/$"))
    other.goto(f"{two.second}/dashboard/settings")
    nodes = other.locator("dl", has_text="Nodes").locator("li")
    expect(nodes).to_have_count(2)
    expect(nodes.filter(has_text="this one")).to_have_count(1)

    # An account that is added at one serves at the other, and is what either makes of it.
    one.goto(f"{two.first}/dashboard/accounts/add/claude?way=file")
    form = one.locator("details[open]")
    form.get_by_label("File").set_input_files(file)
    form.get_by_role("button", name="Upload").click()
    expect(one.locator(".note.ok")).to_contain_text("claude/default was added")
    other.goto(f"{two.second}/dashboard/accounts")
    reloaded(other, "claude/default")
    with_token = request(two.second, TOKENS["member"])
    with urllib.request.urlopen(with_token, timeout=30) as answer:
        assert answer.status == 200
        request_id = answer.headers["x-request-id"]

    # What runs at one is seen at the other, and that it is over.
    one.goto(f"{two.first}/dashboard/")
    expect(one.locator("#running")).to_contain_text("Nothing runs")
    with urllib.request.urlopen(request(two.second, TOKENS["member"], stream=True, simulator="stall:2"), timeout=30):
        expect(one.locator("#running tbody tr")).to_contain_text("max", timeout=PATIENCE)
        expect(one.locator("#running")).to_contain_text("0 at this node")
        expect(one.locator("#accounts .on")).to_contain_text("1 running max")
    expect(one.locator("#running")).to_contain_text("Nothing runs", timeout=PATIENCE)

    other.goto(f"{two.second}/dashboard/accounts/claude/default")
    other.get_by_text("Change it").click()
    other.get_by_label("Weight").fill("2.5")
    other.get_by_role("button", name="Save").click()
    expect(other.locator(".note.ok")).to_contain_text("was changed")
    other.get_by_role("button", name="Disable").click()
    one.goto(f"{two.first}/dashboard/accounts/claude/default")
    reloaded(one, "disabled")
    expect(one.locator("dl", has_text="Weight")).to_contain_text("2.5")

    # What one served, the other explains, and counts.
    one.goto(f"{two.first}/dashboard/requests")
    reloaded(one, "max")
    one.goto(f"{two.first}/dashboard/requests/{request_id}")
    expect(one.get_by_role("heading", name="How it was routed")).to_be_visible()
    one.goto(f"{two.first}/dashboard/")
    expect(one.locator("#running")).to_contain_text("The sums above are those of all nodes")

    # One that ends is not listed any more, and who signs out is signed out.
    two.stop.close()
    one.goto(f"{two.first}/dashboard/settings")
    for _ in range(PATIENCE // 100):
        if one.locator("dl", has_text="Node").locator("li").count() == 1:
            break
        one.wait_for_timeout(100)
        one.reload()
    expect(one.locator("dl", has_text="Node").locator("li")).to_have_count(1)
    context.close()
