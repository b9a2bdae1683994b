"""What the commands say and do: with a server and without, the same."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from aimux.simulator.demo import credential_file
from tests.accounts.disks import failing
from tests.cli.accounts.conftest import commands
from tests.cli.support import Commands
from tests.control.conftest import put
from tests.control.live import running
from tests.running import free_port, serving


def test_the_table_tells_what_there_is(aimux: Commands) -> None:
    aimux("accounts", "test", "claude/default")
    said = aimux("accounts")
    head, *rows = said.stdout.splitlines()
    assert head.split("  ")[0] == "PROVIDER"
    assert [row.split()[:5] for row in rows] == [
        ["chatgpt", "default", "oauth", "plus", "healthy"],
        ["claude", "default", "oauth", "max", "healthy"],
    ]
    assert "  5h 0 % (5 h), 7d 0 % (7 d)" in rows[1]
    assert len(said.stderr.splitlines()) == 1


def test_json_is_what_the_api_gives(aimux: Commands) -> None:
    accounts = aimux.json("accounts")
    assert [account["provider"] for account in accounts] == ["chatgpt", "claude"]
    assert aimux.json("accounts", "show", "claude/default") == accounts[1]
    assert {"status", "reason", "limits", "expires_at", "last_used"} <= accounts[0].keys()


def test_show_tells_everything_and_no_secret(aimux: Commands) -> None:
    said = aimux("accounts", "show", "claude/default").stdout
    assert "aimux renews it" in said
    assert "organization" in said
    assert "sk-ant" not in said + aimux("accounts", "--json").stdout


def test_changes_are_made_and_seen(aimux: Commands) -> None:
    assert "claude/default: disabled" in aimux("accounts", "disable", "claude/default").stdout
    assert aimux.account("claude/default")["status"] == "disabled"
    assert "claude/default: healthy" in aimux("accounts", "enable", "claude/default").stdout
    assert "claude/ann: healthy" in aimux("accounts", "rename", "claude/default", "ann").stdout
    assert aimux.names() == ["chatgpt/default", "claude/ann"]
    before = aimux.live.sim.accounts["claude"].access_token
    assert "claude/ann: healthy; expires in 8 h" in aimux("accounts", "refresh", "ann").stdout
    assert aimux.live.sim.accounts["claude"].access_token != before
    assert "say --yes" in aimux("accounts", "remove", "ann", expect=2).stderr
    assert aimux("accounts", "remove", "ann", "--yes").stdout == "claude/ann is removed.\n"
    assert aimux.names() == ["chatgpt/default"]
    removed = json.loads(aimux("accounts", "remove", "chatgpt/default", "--yes", "--json").stdout)
    assert removed == {"account": "chatgpt/default", "removed": True}


def test_what_a_full_disk_does_not_keep_is_not_said_to_be_done(
    aimux: Commands, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = request.node.callspec.params["aimux"] == "served"
    undone = "Error: It holds for now, and is not kept" if served else "Error: Nothing was changed"
    aimux("accounts", "set", "claude/default", "--weight", "2")
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", failing(errno.ENOSPC))
        for change in (["disable"], ["set", "--weight", "3"]):
            refused = aimux("accounts", change[0], "claude/default", *change[1:], expect=1).stderr
            assert f"{undone}: can't write" in refused
            assert "accounts.json (No space left on device) → see to that" in refused
        shown = aimux.account("claude/default")
        assert (shown["status"], shown["weight"]) == (("disabled", 3) if served else ("healthy", 2))
        refused = aimux("accounts", "rename", "claude/default", "team", expect=1).stderr
        assert "claude/default keeps its name: can't write" in refused
        assert "claude/default" in aimux.names()
        assert aimux.account("claude/default")["weight"] == shown["weight"], "its settings stay with it"
    aimux("accounts", "enable", "claude/default")
    assert "team: healthy" in aimux("accounts", "rename", "claude/default", "team").stdout
    assert aimux.account("claude/team")["weight"] == shown["weight"]


def test_a_login_that_is_kept_beside_a_broken_file_is_put_back_by_enable(aimux: Commands) -> None:
    login = credential_file(aimux.live.sim.add_account("kept", "anthropic"))
    path = put(aimux.live.state_dir, "claude", b"broken", "kept")
    assert "aimux login claude --account kept" in aimux("accounts", "show", "kept").stdout
    path.with_name(f"{path.name}.spare").write_bytes(login)
    path.write_bytes(b"broken anew")
    shown = " ".join(aimux("accounts", "show", "kept").stdout.split())
    assert "aimux accounts enable claude/kept puts it back; or log in again" in shown
    assert "claude/kept: healthy" in aimux("accounts", "enable", "kept").stdout
    assert path.read_bytes() == login
    assert "works: 200" in aimux("accounts", "test", "kept").stdout


def test_weight_priority_and_groups_are_set(aimux: Commands) -> None:
    aimux("groups", "add", "ci", "--reserved")
    said = aimux("accounts", "set", "claude/default", "--weight", "2", "--priority", "1", "--group", "ci").stdout
    assert said == "claude/default: weight 2, priority 1, serves ci alone.\n"
    assert aimux.account("claude/default")["groups"] == ["ci"]
    assert "claude/default" in aimux("groups", "show", "ci").stdout
    freed = aimux.json("accounts", "set", "claude/default", "--no-groups")
    assert (freed["weight"], freed["serves"]) == (2, "everybody")
    assert (
        "aimux groups add nobodys" in aimux("accounts", "set", "claude/default", "--group", "nobodys", expect=1).stderr
    )
    assert "There is nothing to change" in aimux("accounts", "set", "claude/default", expect=2).stderr


def test_a_test_tells_whether_it_works(aimux: Commands) -> None:
    assert "claude/default works: 200 after" in aimux("accounts", "test", "claude/default").stdout
    aimux.live.sim.accounts["claude"].script("429:600")
    failed = aimux("accounts", "test", "claude/default", expect=1).stderr
    assert "claude/default does not work (429): " in failed
    shown = aimux.account("claude/default")
    assert (shown["status"], bool(shown["until"])) == ("cooling", True)
    assert aimux("accounts", "test", "chatgpt/default", "--json").exit_code == 0


def test_a_refusal_is_told_with_its_remedy(aimux: Commands) -> None:
    aimux.live.sim.accounts["claude"].revoke()
    refused = aimux("accounts", "refresh", "claude/default", expect=1).stderr
    assert "(invalid_grant) → log in again: aimux login claude --account default" in refused
    assert aimux.account("claude/default")["status"] == "healthy", "it serves until its access token ends"


def test_a_name_has_to_mean_one_account(aimux: Commands) -> None:
    assert "Which one? chatgpt/default, claude/default" in aimux("accounts", "show", "default", expect=2).stderr
    assert "Did you mean 'claude/default'?" in aimux("accounts", "show", "claude/defualt", expect=2).stderr
    assert "There are: chatgpt/default, claude/default." in aimux("accounts", "test", "zzz", expect=2).stderr
    assert "'a b' can't be an account's name" in aimux("accounts", "rename", "claude/default", "a b", expect=2).stderr
    put(aimux.live.state_dir, "claude", credential_file(aimux.live.sim.add_account("x", "anthropic")), "x")
    assert "already" in aimux("accounts", "rename", "x", "default", expect=1).stderr


def test_the_real_commands_and_a_real_server(tmp_path: Path) -> None:
    with running(tmp_path, serve=False) as live:
        put(live.state_dir, "claude", credential_file(live.sim.accounts["claude"]))
        config = json.loads(live.config.read_text()) | {"listen": f"127.0.0.1:{free_port()}"}
        with serving(config, tmp_path):
            aimux = commands(live, AIMUX_CONFIG=str(tmp_path / "aimux.json"))
            with aimux.process("accounts", "disable", "default") as process:
                said, _ = process.communicate(timeout=60)
            assert process.returncode == 0, said
            assert "Using the server at http://127.0.0.1:" in said
            assert aimux.account("default")["status"] == "disabled"
        with aimux.process("accounts", "enable", "default") as process:
            said, _ = process.communicate(timeout=60)
        assert "No server listens" in said
        assert "claude/default: healthy" in said
