"""`aimux import`: where it looks, and what names it gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aimux.simulator.demo import credential_file
from tests.cli.importing.files import SECRET, vendors_logins, write
from tests.cli.support import Commands


def test_the_vendors_own_logins_are_found(aimux: Commands) -> None:
    vendors_logins(aimux)
    aimux("import")
    assert aimux.names() == ["chatgpt/default", "claude/default"]


def test_their_own_variables_are_followed_and_both_places_count(aimux: Commands, tmp_path: Path) -> None:
    sim = aimux.live.sim
    vendors_logins(aimux)
    other = sim.accounts.get("ida") or sim.add_account("ida", "anthropic")
    write(tmp_path / "elsewhere" / ".credentials.json", credential_file(other))
    aimux.environ["CLAUDE_CONFIG_DIR"] = str(tmp_path / "elsewhere")
    aimux.environ["CODEX_HOME"] = str(tmp_path / "nothing-there")
    aimux("import")
    assert aimux.names() == ["chatgpt/default", "claude/account-2", "claude/default"]
    assert aimux.account("claude/default")["organization"] == other.organization


def test_a_folder_is_a_home_or_a_vendors_own(aimux: Commands, tmp_path: Path) -> None:
    vendors_logins(aimux, tmp_path / "backup")
    aimux("import", str(tmp_path / "backup" / ".claude"))
    assert aimux.names() == ["claude/default"]
    aimux("import", str(tmp_path / "backup"), "--provider", "chatgpt")
    assert aimux.names() == ["chatgpt/default", "claude/default"]


@pytest.mark.parametrize("what", ["login", "key", "both", "of the simulator", "flat"])
def test_a_codex_folder_is_no_login_of_claude(aimux: Commands, tmp_path: Path, what: str) -> None:
    """`auth.json` is a name that a Claude home may have too, and an access token is a field that many formats have."""
    login = json.loads(credential_file(aimux.live.sim.accounts["chatgpt"]))
    key = {"OPENAI_API_KEY": "sk-proj-a-key"}
    content = {
        "login": {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": {"access_token": "opaque"}},
        "key": key,
        "both": login | key,
        "of the simulator": login,
        "flat": {"access_token": "opaque", "refresh_token": "rt"},
    }[what]
    write(tmp_path / ".codex" / "auth.json", content)
    aimux("import", str(tmp_path / ".codex"))
    assert aimux.names() == ["chatgpt/default"]
    assert not list((tmp_path / "state").rglob(".credentials.json"))


def test_in_a_claude_folder_the_same_file_is_claudes(aimux: Commands, tmp_path: Path) -> None:
    write(tmp_path / ".claude" / "auth.json", {"access_token": "opaque", "refresh_token": "rt"})
    aimux("import", str(tmp_path / ".claude"))
    assert aimux.names() == ["claude/default"]


def test_in_a_folder_of_another_name_it_is_asked_for_once(aimux: Commands, tmp_path: Path) -> None:
    file = write(tmp_path / "backup" / "auth.json", {"access_token": "opaque", "refresh_token": "rt"})
    refused = aimux("import", str(tmp_path / "backup"), expect=1).stderr
    assert refused.count(f"{file} could be a login of claude, chatgpt: say --provider") == 1
    assert aimux.names() == []


def test_both_vendors_files_in_one_folder_are_told_apart(aimux: Commands, tmp_path: Path) -> None:
    write(tmp_path / "backup" / ".credentials.json", credential_file(aimux.live.sim.accounts["claude"]))
    write(tmp_path / "backup" / "auth.json", credential_file(aimux.live.sim.accounts["chatgpt"]))
    said = aimux("import", str(tmp_path / "backup"))
    assert aimux.names() == ["chatgpt/default", "claude/default"]
    assert "is no login" not in said.stderr


def test_the_best_file_of_a_folder_counts(aimux: Commands, tmp_path: Path) -> None:
    folder = tmp_path / ".claude"
    write(folder / ".credentials.json", {"mcpOAuth": {}})
    write(folder / "auth.json", {"oauthToken": SECRET})
    write(folder / "config.json", {"oauthToken": SECRET + "-older"})
    said = aimux("import")
    assert str(folder / "auth.json") in said.stdout
    assert str(folder / ".credentials.json") not in said.output
    assert aimux.names() == ["claude/default"]


def test_nothing_to_import_says_where_it_looked_and_why_not(aimux: Commands, tmp_path: Path) -> None:
    assert "there is no login on this machine" in aimux("import", expect=1).stderr
    write(tmp_path / ".claude" / ".credentials.json", {"claudeAiOauth": {}})
    refused = aimux("import", expect=1).stderr
    assert f"{tmp_path}/.claude/.credentials.json is not a login of claude: it " in refused
    assert f"there is no login in {tmp_path}" in aimux("import", str(tmp_path), expect=1).stderr
    aimux("import", str(tmp_path / "missing"), expect=2)
    assert "There is no provider 'what'" in aimux("import", "--provider", "what", expect=2).stderr


def test_names_are_given_and_kept(aimux: Commands) -> None:
    vendors_logins(aimux)
    assert "2 logins, and one name" in aimux("import", "--account", "mine", expect=2).stderr
    aimux("import", "--provider", "claude", "--account", "mine")
    assert aimux.names() == ["claude/mine"]
    assert "--force" in aimux("import", "--provider", "claude", expect=1).stderr
    aimux("import", "--provider", "claude", "--force")
    assert aimux.names() == ["claude/mine"]


@pytest.mark.parametrize("options", [(), ("--link",)])
def test_the_others_come_along_where_one_is_there_already(aimux: Commands, options: tuple[str, ...]) -> None:
    vendors_logins(aimux)
    aimux("import", "--provider", "chatgpt")
    refused = aimux("import", *options, expect=1).stderr
    assert "Not taken: There is an account chatgpt/default already: --force replaces it" in refused
    assert "1 of 2 logins were left where they are" in refused
    assert aimux.names() == ["chatgpt/default", "claude/default"]


def test_what_was_taken_in_json(aimux: Commands) -> None:
    vendors_logins(aimux)
    told = aimux.json("import", "--provider", "chatgpt")
    assert [(account["provider"], account["name"]) for account in told["items"]] == [("chatgpt", "default")]
    said = aimux("import", "--link", "--json", expect=1)
    assert [account["provider"] for account in json.loads(said.stdout)["items"]] == ["claude"]
    assert "1 of 2 logins were left where they are" in said.stderr
    again = aimux.json("import", "--link", "--provider", "claude")
    assert [account["name"] for account in again["items"]] == ["default"]
