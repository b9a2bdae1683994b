"""maxmux: one YAML file with a setup token and the keys of those who may call. Served at the root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.migrate.credentials import setup_token
from aimux.migrate.plan import Plan, address

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aimux.migrate.fields import Fields

NAME = "maxmux"
_UPSTREAM = "https://api.anthropic.com"


def recognise(data: Mapping[str, Any]) -> bool:
    return "virtual_keys" in data or ("oauth_token" in data and "upstream" in data)


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME, closed=True)
    plan.config["listen"] = address("", fields.text("port") or "4000")
    plan.config["mounts"] = {"/": "claude", "/claude": "claude"}
    if (upstream := fields.text("upstream").rstrip("/")) not in {"", _UPSTREAM}:
        plan.settings("claude")["base_url"] = upstream
    if token := fields.text("oauth_token"):
        plan.add_account("claude", "default", setup_token(token), origin="oauth_token")
    for position, key in enumerate(fields.texts("virtual_keys")):
        plan.add_user(f"key-{position + 1}", key, where=f"virtual_keys[{position}]")
    return plan
