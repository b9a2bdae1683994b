"""claude-proxy: config.yaml, and a data folder with its accounts and tokens.json. Served at the root."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aimux.migrate.credentials import claude_oauth
from aimux.migrate.fields import Fields, MigrationError, local_path
from aimux.migrate.plan import Plan, address

if TYPE_CHECKING:
    from pathlib import Path

NAME = "claude-proxy"
_OAUTH_SETTINGS = {
    "client_id": "client_id",
    "authorize_url": "authorize_url",
    "token_url": "token_url",
    "redirect_uri": "redirect_url",
    "scope": "scopes",
}
_GONE = frozenset({"https://console.anthropic.com/v1/oauth/token", "https://api.claude.ai/oauth/token"})
"""Token endpoints in its samples that now answer 404."""
_DATA = "~/.claude-proxy/data"


def recognise(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("storage"), Mapping) and isinstance(data.get("claude", data.get("oauth")), Mapping)


def is_data_folder(folder: Path) -> bool:
    """Whether this is its data folder, without the configuration."""
    return (folder / "tokens.json").is_file() or any(_account_files(folder))


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME, closed=True)
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
    plan.administrator("auth.api_key", fields.section("auth").text("api_key"))
    plan.config["compatibility"] = [NAME]
    folder = _data_folder(fields.section("storage").text("data_folder"), path.parent)
    _accounts(plan, folder)
    _tokens(plan, folder / "tokens.json")
    return plan


def _settings(plan: Plan, fields: Fields) -> None:
    oauth, claude = fields.section("oauth"), fields.section("claude")
    for theirs, ours in _OAUTH_SETTINGS.items():
        value = oauth.text(theirs)
        if value in _GONE:
            plan.note(f"oauth.{theirs}", "is gone at Anthropic: aimux's own default is used")
        elif value:
            plan.settings("claude")[ours] = value
    if (base_url := claude.text("base_url").rstrip("/")) not in {"", "https://api.anthropic.com"}:
        plan.settings("claude")["base_url"] = base_url


def _data_folder(given: str, beside: Path) -> Path:
    """`/data` is a container's: what is mounted there is usually beside the configuration."""
    folder = beside / local_path(given or _DATA)
    return folder if folder.is_dir() or not (beside / "data").is_dir() else beside / "data"


# --- its data folder -------------------------------------------------------------------------------------------------


def _account_files(folder: Path) -> Iterator[Path]:
    """The current form, then the older ones."""
    for name in ("accounts.json", "account.json"):
        if (folder / name).is_file():
            yield folder / name
    yield from sorted(folder.glob("account_*.json"))


def _accounts(plan: Plan, folder: Path) -> None:
    seen: set[str] = set()
    for file in _account_files(folder):
        for position, account in enumerate(_records(file)):
            name = account.text("name") or account.text("id") or account.text("organization_uuid")
            identity = account.text("id") or account.text("organization_uuid") or f"{file.name}[{position}]"
            if identity in seen:
                plan.note(f"account {name!r} in {file.name}", "is in a newer file too, which counts")
                continue
            seen.add(identity)
            _account(plan, account, name or file.stem, file)
    if not seen:
        plan.loss("its accounts", f"none are in {folder}: name its data folder in storage.data_folder")


def _account(plan: Plan, account: Fields, name: str, file: Path) -> None:
    tokens = account if "oauth_token" not in account else account.section("oauth_token")
    access, refresh = tokens.text("access_token"), tokens.text("refresh_token")
    if not access and not refresh:
        plan.note(f"account {name!r}", "holds no token")
        return
    owner = {"organizationUuid": account.text("organization_uuid")}
    make = claude_oauth(access, refresh, tokens.take("expires_at"), owner)
    found = plan.add_account("claude", name, make, origin=f"{file}: {name}")
    found.disabled = account.text("status") == "inactive"


def _tokens(plan: Plan, file: Path) -> None:
    if not file.is_file():
        plan.loss("its tokens", f"{file} is not there: name its data folder in storage.data_folder")
        return
    for token in _records(file):
        name, status = token.text("name") or token.text("id"), token.text("status")
        if status not in {"", "active"}:
            plan.note(f"token {name!r}", f"is {status} and was left out")
            continue
        plan.add_user(name, token.text("key"), where=f"token {name!r}")
        if token.text("role") == "admin":
            plan.note(f"the admin role of token {name!r}", "users of aimux are not admins: set `admin` for that")


def _records(path: Path) -> list[Fields]:
    """The records of a file: a list, a mapping by organization (its first form), or the file itself is one."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise MigrationError(f"{path} can't be read as JSON") from None
    if isinstance(data, Mapping):
        if "access_token" in data or not all(isinstance(value, Mapping) for value in data.values()):
            data = [data]
        else:
            data = [{"organization_uuid": owner, **record} for owner, record in data.items()]
    if not isinstance(data, list):
        raise MigrationError(f"{path} holds no list")
    return [Fields(record, path.name) for record in data]
