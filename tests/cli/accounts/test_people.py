"""`aimux users`, `groups`, `tokens`, `audit` and `reload`, with a running server and without one."""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from aimux.people.tokens import form
from tests.cli.accounts.conftest import commands
from tests.cli.support import Commands
from tests.control.conftest import MESSAGE
from tests.control.live import running, write_config
from tests.running import free_port

MEMBER = "members-token-0123456789"
ADMIN = "admins-token-0123456789"


def test_people_from_the_command_line(aimux: Commands) -> None:
    assert "no user yet" in aimux("users").stdout
    aimux("groups", "add", "dev", "--reserved")
    said = aimux("users", "add", "ann", "--group", "dev", "--role", "viewer", "--email", "ann@example.com").stdout
    assert "aimux tokens issue --user ann" in said
    issued = aimux.json("tokens", "issue", "--user", "ann", "--label", "laptop", "--ttl", "30d", "--scope", "claude")
    assert issued.keys() == {"id", "token", "user", "label", "expires_at"}
    assert form(issued["token"]) == "whole"
    other = aimux("tokens", "issue", "--user", "ann")
    assert form(other.stdout.strip()) == "whole"
    assert "shown this once" in other.stderr
    listed = aimux.json("tokens", "list", "--user", "ann")["items"]
    assert {token["id"]: token["scopes"] for token in listed}[issued["id"]] == ["provider:claude"]
    assert issued["token"] not in aimux("tokens").stdout
    table = aimux("users", "list", "--group", "dev").stdout
    assert re.search(r"^ann +viewer +dev +everything +ann@example.com +enabled$", table, re.MULTILINE)
    assert "its accounts serve nobody else" in aimux("groups", "show", "dev").stdout
    aimux("users", "set", "ann", "--role", "admin", "--no-groups", "--scope", "chatgpt", "--email", "")
    user = aimux.json("users", "show", "ann")
    assert (user["role"], user["groups"], user["scopes"], user["email"]) == ("admin", [], ["provider:chatgpt"], None)
    rotated = aimux.json("tokens", "rotate", issued["id"], "--overlap", "1h")
    assert rotated["label"] == "laptop"
    aimux("tokens", "revoke", rotated["id"])
    aimux("tokens", "revoke", "-", stdin=other.stdout)
    states = {token["id"]: token["state"] for token in aimux.json("tokens", "list")["items"]}
    assert sorted(states.values()) == ["active", "revoked", "revoked"]
    assert states[issued["id"]] == "active"
    aimux("users", "disable", "ann")
    assert "disabled" in aimux("users").stdout
    aimux("users", "enable", "ann")
    aimux("groups", "set", "dev", "--not-reserved")
    aimux("groups", "remove", "dev", "--yes")
    assert "say --yes" in aimux("users", "remove", "ann", expect=2).stderr
    aimux("users", "remove", "ann", "--yes")
    assert aimux.json("users")["items"] == []
    entries = aimux.json("audit")["items"]
    assert [entry["action"] for entry in entries][:2] == ["user.remove", "group.remove"]
    assert "role: viewer → admin" in aimux("audit", "--target", "user:ann").stdout
    assert aimux.json("audit", "--actor", entries[0]["actor"], "--since", "1h", "--last", "500")["items"] == entries
    assert "No such change was made" in aimux("audit", "--actor", "ann").stdout
    assert re.search(r"user\.remove +user:ann +role: admin", aimux("audit").stdout)
    assert f"{len(entries)} entries, whole" in aimux("audit", "verify").stdout


def test_what_can_not_be_is_said_in_words(aimux: Commands) -> None:
    for arguments, words in {
        ("users", "add", "ann", "--group", "nosuch"): "no group 'nosuch'; there is none yet → aimux groups add nosuch",
        ("users", "add", "with space"): "Error: name: A name has at most 100 letters",
        ("users", "show", "nobody"): "no user 'nobody'",
        ("tokens", "issue", "--user", "nobody"): "no user 'nobody'",
        ("tokens", "list", "--user", "nobody"): "no user 'nobody'",
        ("tokens", "revoke", "tok_nosuch"): "no token 'tok_nosuch'",
    }.items():
        refused = aimux(*arguments, expect=1)
        assert words in refused.stderr, refused.stderr
    assert "looks like tok_" in aimux("tokens", "revoke", "aimux_a-secret-by-mistake", expect=2).stderr
    assert "There is nothing to change" in aimux("users", "set", "ann", expect=2).stderr


def test_a_label_is_shown_so_that_no_terminal_obeys_it(aimux: Commands) -> None:
    aimux("users", "add", "ann")
    aimux("tokens", "issue", "--user", "ann", "--label", "red \u009b31m \u202e")
    assert r"red \x9b31m \u202e" in aimux("tokens").stdout


def test_tokens_are_imported_from_a_file_of_hashes(aimux: Commands, tmp_path: Path) -> None:
    aimux("users", "add", "ann")
    hashes = [hashlib.sha256(f"token-{number}".encode()).hexdigest() for number in range(4)]
    file = tmp_path / "hashes"
    file.write_text(
        f"# of the old gateway\n\n{hashes[0]}  ann  laptop of ann\n{hashes[1].upper()} bob\n"
        f"token_sha256: {hashes[2]}\n{hashes[3]}  -\n"
    )
    assert "Line 5 names no user" in aimux("tokens", "import", str(file), expect=2).stderr
    assert "there is no user bob: say --yes" in aimux("tokens", "import", str(file), "--user", "ann", expect=2).stderr
    assert aimux.json("tokens", "list")["items"] == []
    assert "4 tokens are taken over." in aimux("tokens", "import", str(file), "--user", "ann", "--yes").stdout
    listed = aimux.json("tokens", "list")["items"]
    assert sorted((token["user"], token["label"]) for token in listed) == [
        ("ann", ""),
        ("ann", ""),
        ("ann", "laptop of ann"),
        ("bob", ""),
    ]
    assert "0 tokens are taken over, 4 were known." in aimux("tokens", "import", str(file), "--user", "ann").stdout
    file.write_text("not a hash\n")
    assert "Line 1 does not begin with a SHA-256" in aimux("tokens", "import", str(file), expect=2).stderr


def served_with(aimux: Commands, token: str) -> int:
    """A client's request: the status."""
    url = f"http://{json.loads(aimux.live.config.read_text())['listen']}/claude/v1/messages"
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
    }
    asked = urllib.request.Request(url, json.dumps(MESSAGE).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_command_beside_a_running_server_is_heard_within_a_second(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    users = [{"name": "ada", "token": ADMIN}]
    with running(tmp_path, listen=listen, users=users) as live:
        aimux = commands(live)
        issued = aimux.json("tokens", "issue", "--user", "ada")
        assert served_with(aimux, issued["token"]) == 200
        # The same state folder, and a configuration that leads to no server: the database itself is changed.
        beside = commands(live)
        file = tmp_path / "beside.json"
        file.write_text(json.dumps(json.loads(live.config.read_text()) | {"listen": f"127.0.0.1:{free_port()}"}))
        beside.environ["AIMUX_CONFIG"] = str(file)
        assert "No server listens" in beside("tokens", "revoke", issued["id"]).stderr
        deadline = time.monotonic() + 1.0
        while served_with(aimux, issued["token"]) == 200:
            assert time.monotonic() < deadline
        assert served_with(aimux, issued["token"]) == 401


def test_a_users_own_token_does_what_the_role_allows(tmp_path: Path) -> None:
    users = [
        {"name": "mia", "token": MEMBER},
        {"name": "vic", "token": "viewers-token-0123456789", "role": "viewer"},
        {"name": "ada", "token": ADMIN, "role": "admin"},
    ]
    with running(tmp_path, users=users) as live:
        aimux = commands(live)
        aimux.environ["AIMUX_ADMIN_TOKEN"] = MEMBER
        assert "needs the role viewer; mia has the role member" in aimux("users", expect=1).stderr
        aimux.environ["AIMUX_ADMIN_TOKEN"] = "viewers-token-0123456789"
        aimux("users")
        assert "needs the role admin" in aimux("users", "add", "eve", expect=1).stderr
        aimux.environ["AIMUX_ADMIN_TOKEN"] = ADMIN
        aimux("users", "add", "eve")
        assert aimux.json("audit")["items"][0]["actor"] == "ada"


def test_nothing_is_changed_behind_another_aimux(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    with running(tmp_path / "theirs", listen=listen) as theirs:
        aimux = commands(theirs)
        mine = tmp_path / "ours"
        aimux.environ["AIMUX_CONFIG"] = str(write_config(mine, theirs.sim, listen=listen))
        for arguments in (
            ("users", "add", "ann"),
            ("login", "claude", "--api-key"),
            ("tokens", "issue", "--user", "x"),
        ):
            refused = aimux(*arguments, stdin="sk-ant-api03-0123456789abcdef\n", expect=1).stderr
            assert f"keeps its state in {theirs.state_dir}, not in {mine / 'state'}: nothing was changed" in refused
            assert f"AIMUX_STATE_DIR={theirs.state_dir} aimux" in refused
        process = aimux.process("users", "add", "ann", "--role", "viewer")
        told, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        assert f"AIMUX_STATE_DIR={theirs.state_dir} aimux users add ann --role viewer\n" in told
        assert "Another aimux, with another state folder" in aimux("users").stderr
        assert not (mine / "state" / "claude").exists()
        aimux.environ["AIMUX_STATE_DIR"] = str(theirs.state_dir)
        aimux("users", "add", "ann")
        # A key that isn't that server's: the same advice.
        del aimux.environ["AIMUX_STATE_DIR"]
        aimux.environ["AIMUX_ADMIN_TOKEN"] = "some-other-key-0123456789"
        refused = aimux("users", expect=1).stderr
        assert f"its own is in {theirs.state_dir / 'admin.key'}" in refused


def test_the_users_secrets_need_not_be_there(tmp_path: Path) -> None:
    with running(tmp_path, users=[{"name": "ann", "token": MEMBER}]) as live:
        aimux = commands(live)
        config = json.loads(live.config.read_text())
        config["users"] = [{"name": "ann", "token": "${cred:ann}"}, {"name": "bob", "token_file": "/no/such/file"}]
        config["providers"]["claude"]["api_key"] = "${cred:anthropic}"
        live.config.write_text(json.dumps(config))
        assert [user["name"] for user in aimux.json("users")["items"]] == ["ann"]
        assert aimux.names() == ["chatgpt/default", "claude/default"]
        refused = aimux("check-config", expect=1).stderr
        assert "CREDENTIALS_DIRECTORY" in refused
    # Without the server as well: names and accounts are there, only the tokens are unknown.
    assert [user["name"] for user in aimux.json("users")["items"]] == ["ann", "bob"]
    assert aimux.names() == ["chatgpt/default", "claude/default"]
    config["database"] = {"url": "${cred:database}"}
    live.config.write_text(json.dumps(config))
    assert "database.url" in aimux("users", expect=1).stderr


def test_reload(tmp_path: Path) -> None:
    with running(tmp_path) as live:
        aimux = commands(live)
        assert "was reloaded" in aimux("reload").stdout
        config: dict[str, Any] = json.loads(live.config.read_text())
        live.config.write_text(json.dumps(config | {"log_level": "loud", "users": [{"name": "x"}]}))
        refused = aimux("reload", expect=1).stderr
        assert "log_level" in refused
        assert "users[0]: has no token" in refused
        assert "the old one stays" in refused
        live.config.write_text(json.dumps(config | {"drain_timeout": "7s", "refresh_check_interval": "1h"}))
        result = aimux.json("reload")
        assert result["after_restart"] == ["refresh_check_interval"]
        assert live.app.config.drain_timeout == 7
    assert "no running server" in aimux("reload", expect=1).stderr
