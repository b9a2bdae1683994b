"""`aimux login`, driven against the simulator's OAuth servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from aimux_chatgpt import ChatGPT
from tests.cli.support import Commands, follow
from tests.control.live import Live, running

PROVIDERS = ("claude", "chatgpt")
VENDOR = {"claude": "anthropic", "chatgpt": "openai"}
FILES = {"claude": ".credentials.json", "chatgpt": "auth.json"}


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A simulator, and no aimux."""
    with running(tmp_path_factory.mktemp("login"), serve=False) as live:
        yield live


@pytest.fixture
def aimux(nobody: Live, tmp_path: Path) -> Iterator[Commands]:
    """Commands that work on files, with a state folder of their own."""
    environ = {"HOME": str(tmp_path), "AIMUX_CONFIG": str(nobody.config), "AIMUX_STATE_DIR": str(tmp_path / "state")}
    yield Commands(nobody, environ)
    for server in (nobody.sim.oauth_anthropic, nobody.sim.oauth_openai):
        server.consent.mode, server.consent.account = "approve", None
        server.script.clear()


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> SimpleQueue[str]:
    """A browser on this machine that does what it is told; the pages that it ended at, which may be there later than
    the command's end."""
    pages: SimpleQueue[str] = SimpleQueue()
    monkeypatch.setattr("webbrowser.open", lambda url: pages.put(follow(url)))
    monkeypatch.setattr(ChatGPT, "loopback_ports", (0,))  # another test run may have the real one
    return pages


def desktop(aimux: Commands) -> Commands:
    aimux.environ["DISPLAY"] = ":0"
    return aimux
