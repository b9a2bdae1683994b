"""Every form of its data."""

from __future__ import annotations

import json

import pytest

from tests.migrate.support import Migration, new_tokens

PROXY = "storage: {data_folder: data}\noauth:\n  redirect_uri: https://x.example/callback\n"
PROXY += "  scope: 'user:profile user:inference'\n  client_id: c\nclaude: {base_url: ''}\nserver: {port: 4000}\n"
ACCOUNT = {"id": "1", "name": "A", "access_token": "sk-ant-oat01-a", "refresh_token": "rt-a", "expires_at": 4070908800}


@pytest.mark.parametrize(
    "files",
    [
        {"accounts.json": [ACCOUNT]},
        {"account.json": {key: value for key, value in ACCOUNT.items() if key not in {"id", "name"}}},
        {"account_1.json": ACCOUNT},
        {"accounts.json": [ACCOUNT], "account_1.json": ACCOUNT | {"access_token": "older"}},
        {"accounts.json": {"org-1": {"status": "active", "oauth_token": ACCOUNT}}},
    ],
    ids=["list", "one", "each", "both", "map"],
)
def test_every_form_of_claude_proxys_accounts_comes_along(migrate: Migration, files: dict[str, object]) -> None:
    for name, content in files.items():
        migrate.file(f"data/{name}", content)
    migrate.file("data/tokens.json", [{"name": "ann", "key": "key-of-ann-long-enough", "status": "active"}])
    said = migrate(migrate.file("config.yaml", PROXY))
    oauth = migrate.stored("claude/.credentials.json")["claudeAiOauth"]
    assert (oauth["accessToken"], oauth["refreshToken"], oauth["expiresAt"]) == (
        "sk-ant-oat01-a",
        "rt-a",
        4070908800000,
    )
    settings = migrate.config["providers"]["claude"]
    assert settings["redirect_url"] == "https://x.example/callback"
    assert settings["scopes"] == "user:profile user:inference"
    assert ("is in a newer file too" in said) is (len(files) == 2)


def test_what_came_along_in_json(migrate: Migration) -> None:
    migrate.file("data/accounts.json", {})
    told = json.loads(migrate(migrate.file("config.yaml", PROXY), "--json", expect=1))
    assert (told["source"], told["output"]) == ("claude-proxy", str(migrate.output))
    assert any(note["what"] == "accounts" and note["essential"] for note in told["stayed_behind"])


def test_a_data_folder_alone_is_read(migrate: Migration) -> None:
    migrate.file("data/account_1.json", ACCOUNT)
    migrate.file(
        "data/account_2.json", ACCOUNT | {"id": "2", "name": "B", "status": "inactive", "refresh_token": "rt-b"}
    )
    migrate.file("data/tokens.json", [{"name": "ann", "key": "key-of-ann-long-enough", "status": "active"}])
    assert "claude/B, disabled" in migrate(migrate.folder / "data")
    assert migrate.stored("accounts.json")["accounts"]["claude"] == {"B": {"disabled": True}}


def test_a_proxy_without_its_data_is_no_success(migrate: Migration) -> None:
    said = migrate(migrate.file("config.yaml", PROXY), expect=1)
    assert "! its accounts: none are in" in said
    assert "! its tokens:" in said
    assert list(new_tokens(said)) == ["owner"]


def test_a_containers_folder_is_found_beside_the_configuration(migrate: Migration) -> None:
    migrate.file("data/account_1.json", ACCOUNT)
    migrate.file("data/tokens.json", [{"name": "ann", "key": "key-of-ann-long-enough"}])
    migrate(migrate.file("config.yaml", PROXY.replace("data_folder: data", "data_folder: /nowhere-data")))
    assert migrate.config["users"][0]["name"] == "ann"
