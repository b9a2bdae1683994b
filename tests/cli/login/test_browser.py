"""A login with a browser on this machine."""

from __future__ import annotations

import socket
import urllib.error
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import parse_qs, urlsplit

import pytest

from aimux_chatgpt import ChatGPT
from tests.cli.login.conftest import FILES, PROVIDERS, VENDOR, desktop
from tests.cli.support import Commands, follow


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_browser_comes_back_and_the_account_is_there(
    aimux: Commands, browser: SimpleQueue[str], provider: str
) -> None:
    said = desktop(aimux)("login", provider)
    assert f"{provider}/default: healthy" in said.stdout
    assert "No server listens on unix:" in said.stderr
    assert "goes on there" in browser.get(timeout=30)
    assert aimux.account("default")["email"] == f"{provider}@simulator.example"
    assert (Path(aimux.home) / "state" / provider / FILES[provider]).stat().st_mode & 0o777 == 0o600
    assert "works: 200" in aimux("accounts", "test", "default").stdout


def test_a_stranger_with_another_state_gets_nothing_and_stops_nothing(
    aimux: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def attacked(url: str) -> None:
        back = urlsplit(parse_qs(urlsplit(url).query)["redirect_uri"][0])
        for place in (f"{back.path}?code=evil&state=guess", f"{back.path}?code=evil", back.path, "/elsewhere"):
            try:
                follow(f"http://{back.netloc}{place}")
            except urllib.error.HTTPError as error:
                refused.append(error.code)
        follow(url)

    monkeypatch.setattr("webbrowser.open", attacked)
    assert "claude/default: healthy" in desktop(aimux)("login", "claude").stdout
    assert refused == [400, 400, 400, 404]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_who_declines_is_told_so(aimux: Commands, browser: SimpleQueue[str], provider: str) -> None:
    getattr(aimux.live.sim, f"oauth_{VENDOR[provider]}").consent.mode = "deny"
    said = desktop(aimux)("login", provider, expect=1)
    assert said.stderr.splitlines()[-1] == "Error: the sign-in was declined"
    assert "Not logged in" in browser.get(timeout=30)
    assert aimux.names() == []


def test_nobody_comes_in_time(aimux: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda _url: None)
    monkeypatch.setattr("aimux.cli.signin.LIFETIME", 0.01)
    assert "nobody signed in" in desktop(aimux)("login", "claude", expect=1).stderr


def test_a_token_endpoint_that_fails_leaves_nothing_behind(aimux: Commands, browser: SimpleQueue[str]) -> None:
    aimux.live.sim.oauth_anthropic.script("500")
    assert "answered 500" in desktop(aimux)("login", "claude", expect=1).stderr
    assert aimux.names() == []


def test_a_port_that_is_taken_leads_to_a_paste(aimux: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(ChatGPT, "loopback_ports", (taken.getsockname()[1],))
        said = desktop(aimux)("login", "chatgpt", stdin="nonsense with spaces\n", expect=1)
    assert "is taken" in said.stderr
    assert "there is no code in that" in said.stderr
