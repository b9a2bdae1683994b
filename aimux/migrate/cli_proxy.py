"""CLIProxyAPI: its config.yaml and the folder with one file for each login, or that folder alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarl import URL

from aimux.migrate.credentials import api_key, claude_oauth, codex_oauth, load_json
from aimux.migrate.plan import Fields, MigrationError, Plan, address, unique

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.migrate.plan import MakeCredential

NAME = "cli-proxy-api"
_KEYS = {
    "claude-api-key": ("claude", "https://api.anthropic.com"),
    "codex-api-key": ("chatgpt", "https://api.openai.com"),
}
_STRATEGIES = {"round-robin": "round_robin", "weighted-round-robin": "round_robin", "fill-first": "priority"}


def recognise(data: Mapping[str, Any]) -> bool:
    return "auth-dir" in data or ("api-keys" in data and "remote-management" in data)


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    host, port = fields.text("host"), fields.text("port")
    if host or port:
        plan.config["listen"] = address(host, port or "8317")
    tls = fields.section("tls")
    if tls.take("enable"):
        plan.config["tls"] = {"enabled": True, "cert_path": tls.text("cert"), "key_path": tls.text("key")}
    if fields.take("debug"):
        plan.config["log_level"] = "debug"
    for position, key in enumerate(fields.texts("api-keys")):
        plan.add_user(f"key-{position + 1}", key, where=f"api-keys[{position}]")
    disabled = _folder(plan, path.parent / Path(fields.text("auth-dir") or "~/.cli-proxy-api").expanduser())
    for field in _KEYS:
        for entry in fields.sections(field):
            _api_key(plan, entry, field)
    _strategy(plan, fields.section("routing").text("strategy"))
    _mounts(plan)
    for name in disabled:
        plan.note(name, "is disabled there; `aimux accounts disable` does the same here")
    return plan


def _folder(plan: Plan, folder: Path) -> list[str]:
    """Add each login of the folder; the ones that are switched off are returned."""
    if not folder.is_dir():
        plan.note("auth-dir", f"{folder} is not there")
        return []
    disabled = []
    for file in sorted(folder.glob("*.json")):
        login = Fields(load_json(file), file.name)
        kind = login.text("type")
        if kind not in {"claude", "codex"}:
            plan.note(file.name, f"aimux has no provider for {kind or 'this kind of login'!r}")
            continue
        provider = "claude" if kind == "claude" else "chatgpt"
        plan.add_account(provider, login.text("email") or file.stem, _oauth(login, kind), origin=file.name)
        if login.take("disabled"):
            disabled.append(file.name)
        if login.take("proxy_url"):
            plan.note(f"{file.name}: proxy_url", "aimux takes HTTPS_PROXY for all accounts")
    return disabled


def _oauth(login: Fields, kind: str) -> MakeCredential:
    access, refresh = login.text("access_token"), login.text("refresh_token")
    if kind == "codex":
        tokens = {"id_token": login.text("id_token"), "access_token": access, "refresh_token": refresh}
        return codex_oauth(tokens | {"account_id": login.text("account_id")}, login.text("last_refresh"))
    extra = {"accountUuid": login.text("account_uuid"), "organizationUuid": login.text("organization_uuid")}
    return claude_oauth(access, refresh, login.take("expired"), extra)


def _api_key(plan: Plan, entry: Fields, field: str) -> None:
    provider, upstream = _KEYS[field]
    key, base_url = entry.text("api-key"), entry.text("base-url").rstrip("/").removesuffix("/v1")
    if not key:
        raise MigrationError(f"{entry.where('api-key')} is empty")
    if base_url in {"", upstream}:
        plan.add_account(provider, f"{provider}-key", api_key(key), origin=field)
        return
    instances = plan.config.setdefault("providers", {})
    name = unique(re.sub(r"[^A-Za-z0-9]+", "-", URL(base_url).host or "")[:50].strip("-") or provider, list(instances))
    instances[name] = {"type": provider, "base_url": base_url}
    plan.add_account(name, "default", api_key(key), origin=f"{field} for {base_url}")


def _strategy(plan: Plan, strategy: str) -> None:
    if not strategy:
        return
    ours = _STRATEGIES.get(strategy)
    if ours is None:
        plan.note("routing.strategy", f"aimux has no {strategy!r}")
        return
    for name in dict.fromkeys(account.instance for account in plan.accounts):
        plan.config.setdefault("providers", {}).setdefault(name, {})["strategy"] = ours


def _mounts(plan: Plan) -> None:
    """Its clients use the root for both wire formats; aimux gives the root to one provider."""
    found = list(dict.fromkeys(account.instance for account in plan.accounts))
    if not found:
        return
    plan.config["mounts"] = {"/": found[0]} | {f"/{name}": name for name in found}
    for name in found[1:]:
        plan.note(f"clients of {name}", f"they add /{name} to their base URL; the root belongs to {found[0]}")
