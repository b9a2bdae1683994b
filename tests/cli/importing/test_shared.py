"""`aimux import --link`: a login that the vendor's own program and aimux share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aimux.simulator.demo import credential_file
from tests.cli.importing.files import write
from tests.cli.support import Commands
from tests.control.live import running


def own_login(aimux: Commands, name: str) -> tuple[Path, dict[str, Any]]:
    """A login of Claude Code's with keys that aimux knows nothing of, whose account nobody else has."""
    sim = aimux.live.sim
    account = sim.accounts.get(name) or sim.add_account(name, "anthropic")
    content = json.loads(credential_file(account))
    content["mcpOAuth"] = {"server": {"accessToken": "of somebody else"}}
    content["claudeAiOauth"]["futureKey"] = [1, 2]
    return write(Path(aimux.home) / ".claude" / ".credentials.json", content), content


def test_a_shared_login_is_renewed_in_the_vendors_own_file(aimux: Commands, tmp_path: Path) -> None:
    path, before = own_login(aimux, "linked")
    said = aimux("import", "--link")
    assert f"{path} is shared:" in said.stdout
    assert "Only one program" not in said.stdout
    link = tmp_path / "state" / "claude" / ".credentials.json"
    assert link.is_symlink()
    assert aimux.account("default")["shared_with"] == str(path)
    aimux("accounts", "refresh", "default")
    after = json.loads(path.read_bytes())
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert after["claudeAiOauth"]["refreshToken"] == aimux.live.sim.accounts["linked"].refresh_token
    assert after["claudeAiOauth"]["refreshToken"] != before["claudeAiOauth"]["refreshToken"]
    assert after["mcpOAuth"] == before["mcpOAuth"]
    assert after["claudeAiOauth"].keys() >= before["claudeAiOauth"].keys()
    assert after["claudeAiOauth"]["futureKey"] == [1, 2]
    assert "works: 200" in aimux("accounts", "test", "default").stdout


def test_what_the_vendors_cli_writes_is_taken(aimux: Commands) -> None:
    path, _ = own_login(aimux, "both")
    aimux("import", "--link")
    account = aimux.live.sim.accounts["both"]
    aimux.live.sim.tokens["anthropic"].renew(account.family)  # Claude Code has renewed it
    path.write_bytes(credential_file(account))
    assert "works: 200" in aimux("accounts", "test", "default").stdout
    aimux("accounts", "refresh", "default")
    assert json.loads(path.read_bytes())["claudeAiOauth"]["refreshToken"] == account.refresh_token


def test_sharing_twice_is_once(aimux: Commands) -> None:
    path, _ = own_login(aimux, "twice")
    aimux("import", "--link")
    assert f"is linked to {path} already" in aimux("import", "--link").stdout
    assert aimux.names() == ["claude/default"]


def test_an_account_gives_way_to_a_link_only_by_force(aimux: Commands, tmp_path: Path) -> None:
    path, _ = own_login(aimux, "forced")
    aimux("import")
    assert "--force" in aimux("import", "--link", expect=1).stderr
    assert not (tmp_path / "state" / "claude" / ".credentials.json").is_symlink()
    aimux("import", "--link", "--force")
    assert aimux.account("default")["shared_with"] == str(path)


def test_an_account_stays_where_the_link_would_not_work(aimux: Commands, tmp_path: Path) -> None:
    path, _ = own_login(aimux, "forced")
    key = aimux.live.sim.accounts["claude-key"].api_key or ""
    aimux("login", "claude", "--api-key", "--account", "default", stdin=key)
    path.chmod(0o644)
    assert f"chmod 600 {path}" in aimux("import", "--link", "--force", "--account", "default", expect=1).stderr
    kept = tmp_path / "state" / "claude" / ".credentials.json"
    assert not kept.is_symlink()
    assert key in kept.read_text()
    assert not [left for left in kept.parent.iterdir() if left.name.startswith(".aimux-")]


def test_a_login_that_others_can_read_is_not_shared(aimux: Commands) -> None:
    path, _ = own_login(aimux, "open")
    path.chmod(0o644)
    refused = aimux("import", "--link", expect=1).stderr
    assert f"chmod 600 {path}" in refused
    assert aimux.names() == []


def test_removing_a_shared_login_leaves_it_to_its_owner(aimux: Commands) -> None:
    path, before = own_login(aimux, "left")
    aimux("import", "--link")
    aimux("accounts", "remove", "default", "--yes")
    assert json.loads(path.read_bytes()) == before
    assert aimux.names() == []


def test_renaming_a_shared_login_keeps_it_shared(aimux: Commands) -> None:
    path, _ = own_login(aimux, "renamed")
    aimux("import", "--link")
    aimux("accounts", "rename", "default", "work")
    assert aimux.account("work")["shared_with"] == str(path)
    aimux("accounts", "refresh", "work")


def test_a_new_login_takes_a_links_place_and_not_the_vendors_file(aimux: Commands) -> None:
    path, before = own_login(aimux, "spared")
    aimux("import", "--link")
    key = aimux.live.sim.accounts["claude-key"].api_key or ""
    aimux("login", "claude", "--api-key", "--account", "default", "--force", stdin=key)
    assert json.loads(path.read_bytes()) == before
    assert aimux.account("default")["shared_with"] is None


def test_a_running_server_has_it_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as live:
        aimux = Commands(live, {"HOME": str(tmp_path / "home"), "AIMUX_CONFIG": str(live.config)})
        for name, options in (("copied", ()), ("shared", ("--link",))):
            path, _ = own_login(aimux, name)
            aimux("import", "--account", name, *options)
            account = live.app.pools["claude"].accounts[name]
            assert account.credential is not None
            assert account.credential.secret == live.sim.accounts[name].access_token
            assert aimux.account(name)["shared_with"] == (str(path) if options else None)
