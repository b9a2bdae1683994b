"""Which account a login becomes, and whether it takes the place of another."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path
from queue import SimpleQueue

from tests.cli.login.conftest import FILES, desktop
from tests.cli.support import Commands, read_until, type_hidden
from tests.control.live import running


def test_an_account_of_that_name_is_not_replaced_unasked(aimux: Commands, browser: SimpleQueue[str]) -> None:
    key = aimux.live.sim.accounts["claude-key"].api_key
    aimux("login", "claude", "--api-key", "--account", "team", stdin=f"{key}\n")
    refused = desktop(aimux)("login", "claude", "--account", "team", expect=1)
    assert "--force" in refused.stderr
    assert browser.empty()  # nobody was sent away to log in for nothing
    aimux("login", "claude", "--account", "team", "--force")
    assert aimux.account("team")["kind"] == "oauth"


def test_a_person_is_asked_before_a_login_is_replaced(aimux: Commands) -> None:
    first, other = (aimux.live.sim.add_account(f"key-{n}", "anthropic", "api_key").api_key or "" for n in "ab")
    aimux("login", "claude", "--api-key", stdin=first)
    for answer, status, kept in (("n", 1, first), ("y", 0, other)):
        ours, theirs = pty.openpty()
        arguments = ("login", "claude", "--api-key", "--account", "default")
        with aimux.process(*arguments, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            read_until(ours, "Replace its login? [y/N]:")
            os.write(ours, f"{answer}\n".encode())
            if answer == "y":
                read_until(ours, "API key:")
                type_hidden(ours, other)
                read_until(ours, "healthy")
            assert process.wait(30) == status
        os.close(ours)
        assert kept in (Path(aimux.home) / "state" / "claude" / FILES["claude"]).read_text()


def test_logging_in_again_cures_the_same_account(aimux: Commands, browser: SimpleQueue[str]) -> None:
    desktop(aimux)("login", "claude")
    aimux.live.sim.accounts["claude"].revoke()
    aimux("accounts", "test", "default", expect=1)
    assert aimux.account("default")["status"] == "parked"
    aimux("login", "claude")
    assert aimux.names() == ["claude/default"]
    assert aimux.account("default")["status"] == "healthy"


def test_the_same_login_under_a_second_name_is_noticed(aimux: Commands) -> None:
    key = aimux.live.sim.accounts["claude-key"].api_key or ""
    assert "Warning" not in aimux("login", "claude", "--api-key", stdin=key).stderr
    said = aimux("login", "claude", "--api-key", "--account", "again", stdin=key)
    assert "Warning: claude/again has the same login as claude/default: they share its limits" in said.stderr
    assert aimux.account("default")["same_as"] == ["again"]
    assert "claude/again has the same login as claude/default" in aimux("accounts").stderr
    found = aimux("doctor", "--offline", expect=1).stdout  # there is no account of chatgpt
    assert found.count("the same login as") == 1
    assert "account claude/default: the same login as claude/again" in found
    assert "keep one: aimux accounts remove claude/again" in found
    aimux("accounts", "remove", "again", "--yes")
    assert aimux.account("default")["same_as"] == []


def test_a_login_that_gets_renewed_is_not_to_be_there_twice(aimux: Commands, browser: SimpleQueue[str]) -> None:
    desktop(aimux)("login", "claude")
    assert (
        "of two copies the one that is renewed second is logged out"
        in aimux("login", "claude", "--account", "second").stderr
    )


def test_a_name_that_can_be_none_is_refused_before_anybody_logs_in(aimux: Commands, browser: SimpleQueue[str]) -> None:
    for name in ("", "a b", ".hidden", "x" * 65, "a/b"):
        refused = desktop(aimux)("login", "claude", "--account", name, expect=2).stderr
        assert "can't be an account's name: use letters, digits and" in " ".join(refused.split())
    assert browser.empty()


def test_a_second_person_gets_a_name(aimux: Commands, browser: SimpleQueue[str]) -> None:
    sim = aimux.live.sim
    desktop(aimux)("login", "chatgpt")
    sim.add_account("grace", "openai")
    sim.oauth_openai.consent.account = "grace"
    assert "chatgpt/grace: healthy" in aimux("login", "chatgpt").stdout
    assert aimux.names() == ["chatgpt/default", "chatgpt/grace"]


def test_a_login_reaches_the_running_server_at_once(tmp_path: Path, browser: SimpleQueue[str]) -> None:
    with running(tmp_path) as live:
        aimux = desktop(Commands(live, {"HOME": str(tmp_path), "AIMUX_CONFIG": str(live.config)}))
        live.sim.add_account("grace", "anthropic")
        live.sim.oauth_anthropic.consent.account = "grace"
        said = aimux("login", "claude")
        assert "claude/grace: healthy" in said.stdout
        assert said.stderr.startswith(f"Using the server at unix:{tmp_path}/socket.")
        assert live.app.pools["claude"].accounts["grace"].credential is not None
        saved = json.loads((live.state_dir / "claude" / "grace" / FILES["claude"]).read_bytes())
        assert saved["claudeAiOauth"]["accessToken"] == live.sim.accounts["grace"].access_token
