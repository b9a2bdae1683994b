"""`aimux import`: every format, every place, copied and shared."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aimux.simulator.demo import credential_file
from tests.cli.support import Commands
from tests.control.live import Live, running

LATER = int(time.time()) + 8 * 3600
SECRET = "sk-ant-oat01-a-login-for-these-tests"


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("import"), serve=False) as live:
        yield live


@pytest.fixture
def aimux(nobody: Live, tmp_path: Path) -> Commands:
    """Commands that work on files; home and state folder are their own."""
    environ = {"HOME": str(tmp_path), "AIMUX_CONFIG": str(nobody.config), "AIMUX_STATE_DIR": str(tmp_path / "state")}
    return Commands(nobody, environ)


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(raw)
    return path


def vendors_logins(aimux: Commands, home: Path | None = None) -> tuple[Path, Path]:
    """Claude Code's and Codex's logins in a home."""
    home, sim = home or Path(aimux.home), aimux.live.sim
    return (
        write(home / ".claude" / ".credentials.json", credential_file(sim.accounts["claude"])),
        write(home / ".codex" / "auth.json", credential_file(sim.accounts["chatgpt"])),
    )


# --- formats ---------------------------------------------------------------------------------------------------------


FLAT = {"access_token": SECRET, "refresh_token": "rt-1"}
CAMEL = {"accessToken": SECRET, "refreshToken": "rt-1", "expiresAt": LATER * 1000}
FORMATS: list[tuple[object, str, str]] = [
    ({"claudeAiOauth": CAMEL}, "claude", "renewable"),
    ({"claudeAiOauth": {"accessToken": SECRET}, "mcpOAuth": {"x": 1}}, "claude", "lasting"),
    (CAMEL, "claude", "renewable"),
    (FLAT | {"expires_at": LATER}, "claude", "renewable"),
    ({"oauthToken": SECRET}, "claude", "lasting"),
    ({"oauth_token": SECRET}, "claude", "lasting"),
    ({"anthropic": FLAT | {"expires_at": "2099-01-01T00:00:00Z"}}, "claude", "renewable"),
    ({"api_key": "sk-ant-api03-a-key"}, "claude", "key"),
    (SECRET.encode() + b"\n", "claude", "lasting"),
    (b"sk-ant-api03-a-bare-key", "claude", "key"),
    ({"OPENAI_API_KEY": "sk-proj-a-key", "tokens": None}, "chatgpt", "key"),
    ({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-proj-a-key", "tokens": {"access_token": "x"}}, "chatgpt", "key"),
    ({"api_key": "sk-proj-a-key"}, "chatgpt", "key"),
    (b"sk-proj-a-bare-key", "chatgpt", "key"),
]


@pytest.mark.parametrize(("content", "provider", "what"), FORMATS, ids=range(len(FORMATS)))
def test_every_format_is_understood(aimux: Commands, tmp_path: Path, content: object, provider: str, what: str) -> None:
    given = write(tmp_path / "given.json", content)
    said = aimux("import", str(given))
    assert f"{provider}/default: healthy" in said.stdout
    shown = aimux.account(f"{provider}/default")
    assert shown["kind"] == ("api_key" if what == "key" else "oauth")
    assert shown["renewable"] is (what == "renewable")
    kept = tmp_path / "state" / provider / (".credentials.json" if provider == "claude" else "auth.json")
    assert kept.read_bytes() == given.read_bytes()
    assert SECRET not in said.output
    assert ("Only one program" in said.stdout) is (what == "renewable")


def test_a_login_of_chatgpt_is_told_from_a_login_of_claude(aimux: Commands, tmp_path: Path) -> None:
    flat = json.loads(credential_file(aimux.live.sim.accounts["chatgpt"]))["tokens"]
    given = write(tmp_path / "given.json", flat | {"expires_at": LATER})
    assert "chatgpt/default: healthy" in aimux("import", str(given)).stdout


def test_what_could_be_of_two_providers_is_asked_for(aimux: Commands, tmp_path: Path) -> None:
    given = write(tmp_path / "given.json", {"access_token": "opaque-token-of-somebody"})
    refused = aimux("import", str(given), expect=2).stderr
    assert "--provider" in refused
    assert "opaque" not in refused
    assert "chatgpt/default: healthy" in aimux("import", str(given), "--provider", "chatgpt").stdout


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x00\xff", {"what": "is this"}, [1], b" " * (1024 * 1024 + 1)], ids=range(6)
)
def test_what_is_no_login_is_refused_with_reasons(aimux: Commands, tmp_path: Path, content: Any) -> None:
    refused = aimux("import", str(write(tmp_path / "given.json", content)), expect=1).stderr
    assert "can't be read as a login" in refused
    assert "claude: it " in refused
    assert not (tmp_path / "state" / "claude" / ".credentials.json").exists()


def test_several_logins_in_one_file_need_migrate(aimux: Commands, tmp_path: Path) -> None:
    one = {"access_token": SECRET, "refresh_token": "rt"}
    given = write(tmp_path / "oauth_tokens.json", {"a": one, "b": one})
    assert "aimux migrate" in aimux("import", str(given), "--provider", "claude", expect=1).stderr


EXPORTED = json.dumps({"claudeAiOauth": CAMEL, "mcpOAuth": {"café": {}}}, ensure_ascii=False)


@pytest.mark.parametrize(
    "content",
    [
        EXPORTED.encode().hex().encode() + b"\n",
        EXPORTED.encode("utf-16"),
        b"\xef\xbb\xbf" + EXPORTED.encode() + b"\r\n",
    ],
    ids=["keychain", "powershell", "byte order mark"],
)
def test_what_other_systems_export_is_understood(aimux: Commands, tmp_path: Path, content: bytes) -> None:
    said = aimux("import", str(write(tmp_path / "given.txt", content)))
    assert "claude/default: healthy" in said.stdout
    kept = (tmp_path / "state" / "claude" / ".credentials.json").read_text()
    assert json.loads(kept) == json.loads(EXPORTED)


def test_a_file_named_by_a_bare_word_keeps_its_name_in_messages(
    aimux: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "login", b"no login")
    assert f"Error: {tmp_path}/login can't be read as a login" in aimux("import", "login", expect=1).stderr


# --- what other programs keep ---------------------------------------------------------------------------------------


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


# --- places ----------------------------------------------------------------------------------------------------------


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


# --- shared ----------------------------------------------------------------------------------------------------------


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


# --- with a server ---------------------------------------------------------------------------------------------------


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
