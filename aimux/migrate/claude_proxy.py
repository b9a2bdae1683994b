"""claude-proxy: config.yaml, and a data folder with accounts.json and tokens.json. Served at the root."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimux.migrate.credentials import claude_oauth
from aimux.migrate.plan import Fields, MigrationError, Plan, address

NAME = "claude-proxy"
_OAUTH_SETTINGS = ("client_id", "authorize_url", "token_url")
_DEFAULTS = {"https://claude.ai/oauth/authorize", "https://console.anthropic.com/v1/oauth/token"}
"""Its sample's endpoints. The second is gone upstream, and aimux has newer ones."""


def recognise(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("storage"), Mapping) and isinstance(data.get("claude", data.get("oauth")), Mapping)


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    server, logger = fields.section("server"), fields.section("logger")
    plan.config["listen"] = address(server.text("host"), server.text("port") or "4000")
    plan.config["mounts"] = {"/": "claude", "/claude": "claude"}
    if timeout := server.text("request_timeout"):
        plan.config["request_timeout"] = timeout
    if level := logger.text("level"):
        plan.config["log_level"] = level
    if form := logger.text("format"):
        plan.config["log_format"] = form
    _settings(plan, fields)
    if key := fields.section("auth").text("api_key"):
        plan.add_user("api-key", key, where="auth.api_key")
    folder = Path(fields.section("storage").text("data_folder") or "data").expanduser()
    _data(plan, path.parent / folder)
    return plan


def _settings(plan: Plan, fields: Fields) -> None:
    oauth, claude = fields.section("oauth"), fields.section("claude")
    settings = {name: value for name in _OAUTH_SETTINGS if (value := oauth.text(name)) and value not in _DEFAULTS}
    if (base_url := claude.text("base_url").rstrip("/")) not in {"", "https://api.anthropic.com"}:
        settings["base_url"] = base_url
    if settings:
        plan.config["providers"] = {"claude": settings}


def _data(plan: Plan, folder: Path) -> None:
    for account in _records(plan, folder / "accounts.json"):
        name = account.text("name") or account.text("id")
        status = account.text("status")
        if not account.text("access_token") and not account.text("refresh_token"):
            plan.note(f"account {name!r}", "holds no token")
            continue
        make = claude_oauth(
            account.text("access_token"),
            account.text("refresh_token"),
            account.take("expires_at"),
            {"organizationUuid": account.text("organization_uuid")},
        )
        plan.add_account("claude", name, make, origin=f"{folder / 'accounts.json'}: {name}")
        if status == "inactive":
            plan.note(f"account {name!r}", f"is {status} there; `aimux accounts disable` does the same here")
    for token in _records(plan, folder / "tokens.json"):
        name, status = token.text("name") or token.text("id"), token.text("status")
        if status not in {"", "active"}:
            plan.note(f"token {name!r}", f"is {status} and was left out")
            continue
        plan.add_user(name, token.text("key"), where=f"token {name!r}")
        if token.text("role") == "admin":
            plan.note(f"the admin role of token {name!r}", "users of aimux are no admins: set `admin` for that")


def _records(plan: Plan, path: Path) -> list[Fields]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        plan.note(str(path), "is not there; name the data folder in storage.data_folder if it moved")
        return []
    except (OSError, ValueError):
        raise MigrationError(f"{path} can't be read as JSON") from None
    if not isinstance(data, list):
        raise MigrationError(f"{path} holds no list")
    return [Fields(record, path.name) for record in data]
