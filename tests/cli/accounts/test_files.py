"""Without a server: the commands work on its files."""

from __future__ import annotations

import json
import os

import pytest

from tests.cli.support import Commands
from tests.control.conftest import put


def test_without_a_server_the_next_start_finds_what_was_done(unserved: Commands) -> None:
    said = unserved("accounts", "disable", "claude/default")
    state_dir = unserved.live.state_dir
    assert said.stderr == f"No server listens on unix:{unserved.live.folder}/socket: using {state_dir}.\n"
    saved = json.loads((state_dir / "accounts.json").read_bytes())
    assert saved["accounts"]["claude"]["default"] == {"disabled": True}


def test_looking_writes_nothing(unserved: Commands) -> None:
    before = {path: path.stat().st_mtime_ns for path in unserved.live.state_dir.rglob("*")}
    unserved("accounts")
    unserved("accounts", "show", "claude/default")
    after = {path: path.stat().st_mtime_ns for path in unserved.live.state_dir.rglob("*")}
    assert after == before


def test_with_no_account_it_says_how_to_get_one(unserved: Commands) -> None:
    for name in unserved.names():
        unserved("accounts", "remove", name, "--yes")
    assert "aimux login PROVIDER, or aimux import" in unserved("accounts").stdout
    assert unserved.json("accounts") == []
    assert "There is none yet: aimux login PROVIDER" in unserved("accounts", "show", "x", expect=2).stderr


def test_another_users_files_are_left_alone(unserved: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert "belongs to another user" in unserved("accounts", expect=1).stderr


def test_a_credential_that_cant_be_read_is_shown_with_the_reason(unserved: Commands) -> None:
    put(unserved.live.state_dir, "claude", b'{"claudeAiOauth": ')
    row = unserved("accounts").stdout.splitlines()[2]
    assert "parked: claude/default: .credentials.json is not valid JSON" in row


def test_the_configuration_may_stand_anywhere_in_the_command(unserved: Commands) -> None:
    config = unserved.environ.pop("AIMUX_CONFIG")
    for arguments in (
        ("--config", config, "accounts", "show", "claude/default"),
        ("accounts", "--config", config, "show", "claude/default"),
        ("accounts", "show", "claude/default", "--config", config),
    ):
        assert "claude/default" in unserved(*arguments).stdout
