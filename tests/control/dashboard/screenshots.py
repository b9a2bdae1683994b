"""Pictures of the demo's pages, in both themes and two widths: `python -m tests.control.dashboard.screenshots DIR`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import BrowserContext, sync_playwright

from tests.control.dashboard.conftest import OPTIONS
from tests.running import free_port
from tests.tools import program

PAGES = {
    "now": "",
    "accounts": "accounts",
    "account": "accounts/claude/default",
    "people": "people",
    "user": "people/users/ada",
    "usage": "usage",
    "what-if": "usage/plan?accounts.claude=4",
    "requests": "requests",
    "why": "requests",
    "settings": "settings",
    "add-account": "accounts/add/claude",
}
LOOKS = {"light": ("light", 1180), "dark": ("dark", 1180), "light-phone": ("light", 390), "dark-phone": ("dark", 390)}
HEIGHT = 1000
SETTLED = 6.0
"""Seconds in which the demo's team has sent something."""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "aimux", "demo", "--listen", f"127.0.0.1:{free_port()}"]
        with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
            assert demo.stdout is not None
            link = next(found[0] for line in demo.stdout if (found := re.search(r"http\S+sign-in\?code=\S+", line)))
            token = next(found[1] for line in demo.stdout if (found := re.search(r"AUTH_TOKEN=(\S+)", line)))
            try:
                _take(link, token, folder)
            finally:
                demo.terminate()


def _take(link: str, token: str, folder: Path) -> None:
    root = link.partition("sign-in")[0]
    with sync_playwright() as playwright:
        path = program("chromium", "chromium")
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        context = browser.new_context()
        page = context.new_page()
        page.goto(link)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(root)
        time.sleep(SETTLED)
        state = context.storage_state()
        own = browser.new_context()
        page = own.new_page()
        page.goto(root + "sign-in")
        page.get_by_label("Your aimux token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(root + "me")
        own_state = own.storage_state()
        for look, (scheme, width) in LOOKS.items():
            viewport = {"width": width, "height": HEIGHT}
            looking = browser.new_context(color_scheme=scheme, viewport=viewport, storage_state=state)  # type: ignore[arg-type]
            for name, place in PAGES.items():
                _shoot(looking, root + place, folder / f"{name}-{look}.png")
            looking.close()
            member = browser.new_context(color_scheme=scheme, viewport=viewport, storage_state=own_state)  # type: ignore[arg-type]
            _shoot(member, root + "me", folder / f"me-{look}.png")
            member.close()
        browser.close()


def _shoot(context: BrowserContext, url: str, file: Path) -> None:
    page = context.new_page()
    page.goto(url, timeout=120_000)  # a plan takes long on a busy machine
    page.wait_for_timeout(1500 if url.endswith("/dashboard/") else 100)  # the first live values
    if file.name.startswith("why-"):
        page.get_by_role("link", name="Why").first.click()
    assert page.viewport_size is not None
    page.screenshot(path=file, clip={"x": 0, "y": 0, "width": page.viewport_size["width"], "height": HEIGHT})
    page.close()
    Image.open(file).quantize(256).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
