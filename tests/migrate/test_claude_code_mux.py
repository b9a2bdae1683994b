"""Its priorities, accounts and models."""

from __future__ import annotations

from tests.migrate.support import Migration

MUX = """
[router]
default = "claude-sonnet"
[[providers]]
name = "subscription"
provider_type = "anthropic"
auth_type = "oauth"
oauth_provider = "max"
models = []
[[providers]]
name = "paid"
provider_type = "anthropic"
api_key = "sk-ant-api03-paid"
models = []
[[providers]]
name = "by-variable"
provider_type = "anthropic"
api_key = "$PAID_TOO"
models = []
[[models]]
name = "claude-sonnet"
[[models.mappings]]
provider = "paid"
actual_model = "claude-sonnet-5"
priority = 2
[[models.mappings]]
provider = "subscription"
actual_model = "claude-sonnet"
priority = 1
[[models.mappings]]
provider = "by-variable"
actual_model = "claude-sonnet"
priority = 3
"""
TOKENS = {"max": {"access_token": "sk-ant-oat01-x", "refresh_token": "rt", "expires_at": "2099-01-01T00:00:00Z"}}


def test_a_paid_key_stays_behind_the_subscription(migrate: Migration) -> None:
    migrate.file("oauth_tokens.json", TOKENS)
    migrate(migrate.file("config.toml", MUX))
    targets = migrate.config["models"]["claude-sonnet"]
    assert sorted(targets, key=lambda target: target["priority"]) == [
        {"account": "claude/subscription", "priority": 1},
        {"account": "claude/paid", "priority": 2, "model": "claude-sonnet-5"},
        {"account": "claude/api-key", "priority": 3},
    ]
    default = sorted(migrate.config["models"]["default"], key=lambda target: target["priority"])
    assert [(target["account"], target["model"]) for target in default] == [
        ("claude/subscription", "claude-sonnet"),
        ("claude/paid", "claude-sonnet-5"),
        ("claude/api-key", "claude-sonnet"),
    ]
    accounts = migrate.config["providers"]["claude"]["accounts"]
    assert {name: account["priority"] for name, account in accounts.items()} == {
        "subscription": 1,
        "paid": 2,
        "api-key": 3,
    }


def test_two_providers_of_one_login_are_one_account(migrate: Migration) -> None:
    migrate.file("oauth_tokens.json", TOKENS)
    text = MUX.replace('api_key = "sk-ant-api03-paid"', 'auth_type = "oauth"\noauth_provider = "max"')
    migrate(migrate.file("config.toml", text.replace('api_key = "$PAID_TOO"', 'api_key = "sk-ant-api03-y"')))
    assert {target["account"] for target in migrate.config["models"]["claude-sonnet"]} == {
        "claude/subscription",
        "claude/by-variable",
    }


def test_an_account_that_can_not_be_read_leaves_no_route_to_it(migrate: Migration) -> None:
    migrate.file("oauth_tokens.json", {"max": {"access_token": "", "refresh_token": ""}})
    said = migrate(migrate.file("config.toml", MUX), expect=1)
    assert "! account 'subscription' from oauth_tokens.json: max" in said
    assert "subscription" not in migrate.output.read_text()


def test_what_speaks_another_format_is_said_and_not_routed_to(migrate: Migration) -> None:
    migrate.file("oauth_tokens.json", TOKENS)
    text = MUX.replace('name = "paid"\nprovider_type = "anthropic"', 'name = "paid"\nprovider_type = "openrouter"')
    said = migrate(migrate.file("config.toml", text), expect=1)
    assert "! model 'claude-sonnet' by 'paid': it speaks another format" in said
    assert migrate.config["providers"]["paid"]["base_url"] == "https://openrouter.ai/api/v1"
    assert migrate.config["mounts"] == {"/": "claude", "/claude": "claude", "/paid": "paid"}
    assert migrate.stored("paid/credential.json") == {"api_key": "sk-ant-api03-paid"}
