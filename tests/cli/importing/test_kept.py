"""`aimux import`: what other programs keep for several providers, or in words of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aimux.simulator.demo import credential_file
from tests.cli.importing.files import LATER, SECRET, write
from tests.cli.support import Commands


def kept_tokens(aimux: Commands, provider: str) -> dict[str, Any]:
    """A login of the simulator's, in the words of most programs."""
    content = json.loads(credential_file(aimux.live.sim.accounts[provider]))
    if provider == "chatgpt":
        return dict(content["tokens"])
    oauth = content["claudeAiOauth"]
    return {"access_token": oauth["accessToken"], "refresh_token": oauth["refreshToken"]}


def opencode(aimux: Commands) -> dict[str, Any]:
    def entry(provider: str) -> dict[str, Any]:
        tokens = kept_tokens(aimux, provider)
        login = {"type": "oauth", "access": tokens["access_token"], "refresh": tokens["refresh_token"]}
        owner = {"accountId": tokens["account_id"]} if "account_id" in tokens else {}
        return login | {"expires": LATER * 1000} | owner

    return {
        "anthropic": entry("claude"),
        "openai": entry("chatgpt"),
        "github-copilot": {"type": "oauth", "access": "tid=secret-9", "refresh": "ghu_secret-9", "expires": 0},
        "https://intra.example": {"type": "wellknown", "key": "KEY", "token": "secret-9"},
    }


def sub2api(aimux: Commands) -> dict[str, Any]:
    def account(name: str, platform: str, kind: str, credentials: dict[str, Any], **extra: str) -> dict[str, Any]:
        about = {"name": name, "platform": platform, "type": kind, "concurrency": 3, "priority": 50}
        return about | {"credentials": credentials, "extra": extra}

    claude = kept_tokens(aimux, "claude") | {"expires_at": str(LATER), "scope": "user:profile user:inference"}
    chatgpt = kept_tokens(aimux, "chatgpt") | {"expires_at": "2099-01-01T00:00:00Z"}
    chatgpt["chatgpt_account_id"] = chatgpt.pop("account_id")
    accounts = [
        account("work", "anthropic", "oauth", claude, org_uuid="org-9", account_uuid="of-ann"),
        account("bob@example.com", "openai", "oauth", chatgpt),
        account("a key", "anthropic", "apikey", {"api_key": "sk-ant-api03-secret-9"}),
        account("relay", "openai", "apikey", {"api_key": "sk-secret-9", "base_url": "https://relay.example/v1"}),
        account("of another", "gemini", "oauth", {"access_token": "ya29.secret-9"}),
    ]
    return {"exported_at": "2026-11-01T00:00:00Z", "proxies": [], "accounts": accounts}


def test_opencodes_logins_become_accounts_that_serve_and_are_renewed(aimux: Commands, tmp_path: Path) -> None:
    folder = tmp_path / ".local" / "share" / "opencode"
    given = write(folder / "auth.json", opencode(aimux))
    before = given.read_bytes()
    said = aimux("import", str(given))
    assert aimux.names() == ["chatgpt/default", "claude/default"]
    told = " ".join(said.output.split())
    assert f"Not taken: {given} (github-copilot) can't be read as a login" in told
    assert "gets logged out: stop using these in the program that they come from, or log in anew for aimux: " in told
    assert "aimux login chatgpt and aimux login claude" in told
    assert "secret-9" not in told
    kept = json.loads((tmp_path / "state" / "claude" / ".credentials.json").read_bytes())
    assert kept.keys() == {"type", "access_token", "refresh_token", "expires_at"}, "nothing of the other logins"
    assert json.loads((tmp_path / "state" / "chatgpt" / "auth.json").read_bytes())["account_id"]
    for provider in ("claude", "chatgpt"):
        assert "expires in" in aimux("accounts", "refresh", f"{provider}/default").stdout
        assert "works: 200" in aimux("accounts", "test", f"{provider}/default").stdout
    assert given.read_bytes() == before
    aimux("accounts", "remove", "claude/default", "--yes")
    aimux("import", str(folder), "--provider", "claude", "--account", "mine")
    assert "claude/mine" in aimux.names()


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_export_of_sub2api_becomes_an_account_for_each_login(aimux: Commands, tmp_path: Path, wrapped: bool) -> None:
    content = sub2api(aimux)
    given = write(tmp_path / "export.json", {"code": 0, "data": content} if wrapped else content)
    told = " ".join(aimux("import", str(given)).output.split())
    assert aimux.names() == ["chatgpt/default", "claude/account-2", "claude/default"]
    assert aimux.account("claude/default")["organization"] == "org-9"
    assert aimux.account("chatgpt/default")["email"] == "bob@example.com"
    assert aimux.account("claude/account-2")["kind"] == "api_key"
    for name in ("claude", "chatgpt"):
        assert "works: 200" in aimux("accounts", "test", f"{name}/default").stdout
    assert f"Not taken: {given} (accounts[3] 'relay') is a key for relay.example, and chatgpt asks 127.0.0.1" in told
    assert f"Not taken: {given} (accounts[4] 'of another') can't be read as a login" in told
    assert "secret-9" not in told
    again = aimux("import", str(given), expect=1).stderr
    assert again.count("Not taken: There is an account ") == 3


def cli_proxy(aimux: Commands) -> dict[str, dict[str, Any]]:
    about = {"claude": {"type": "claude", "expired": "2099-01-01T00:00:00Z"}, "chatgpt": {"type": "codex"}}
    found = {name: {"email": f"{name}@example.com"} | more for name, more in about.items()}
    found = {name: entry | kept_tokens(aimux, name) for name, entry in found.items()}
    off = {"type": "claude", "email": "off@example.com", "access_token": SECRET, "disabled": True}
    return found | {"off": off, "qwen": {"type": "qwen", "access_token": "secret-9"}}


@pytest.mark.parametrize("form", ["a folder", "a list"])
def test_what_cliproxyapi_keeps_is_taken_from_a_folder_and_a_list(aimux: Commands, tmp_path: Path, form: str) -> None:
    logins = cli_proxy(aimux)
    if form == "a list":
        given = write(tmp_path / "logins.json", list(logins.values()))
        off = f"{given} ([2])"
    else:
        given = tmp_path / "auths"
        for name, content in logins.items():
            write(given / f"{name}.json", content)
        write(given / "package.json", {"type": "module"})
        (given / "folder.json").mkdir()
        off = f"{given}/off.json"
    told = " ".join(aimux("import", str(given)).output.split())
    assert aimux.names() == ["chatgpt/default", "claude/default"]
    assert aimux.account("claude/default")["email"] == "claude@example.com"
    assert f"Not taken: {off} is switched off there" in told
    assert "aimux login chatgpt and aimux login claude" in told
    assert "package.json" not in told
    assert "secret-9" not in told


def test_what_is_kept_in_a_form_of_its_own_is_not_shared(aimux: Commands, tmp_path: Path) -> None:
    given = write(tmp_path / "auth.json", opencode(aimux))
    refused = aimux("import", str(given), "--link", expect=1).stderr
    assert f"{given} has logins in a form of its own, which can't be shared" in refused
    assert aimux.names() == []
    assert "2 logins, and one name" in aimux("import", str(given), "--account", "x", expect=2).stderr


def test_where_no_provider_takes_what_is_kept_it_is_said(aimux: Commands, tmp_path: Path) -> None:
    given = write(tmp_path / "auth.json", {"deepseek": {"type": "api", "key": "sk-secret-9"}})
    refused = aimux("import", str(given), expect=1).stderr
    assert f"Not taken: {given} (deepseek) can't be read as a login" in refused
    assert f"there is no login in {given}" in refused.replace("There", "there")
