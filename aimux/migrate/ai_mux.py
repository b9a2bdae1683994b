"""ai-mux: its configuration has aimux's own fields and its state folder aimux's own layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimux.migrate.credentials import as_it_is
from aimux.migrate.plan import Fields, MigrationError, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "ai-mux"
_FILES = {"claude": ".credentials.json", "chatgpt": "auth.json"}
_SAME = ("log_level", "request_timeout", "refresh_check_interval")


def recognise(data: Mapping[str, Any]) -> bool:
    providers = data.get("providers")
    return isinstance(providers, list) and all(name in tuple(_FILES) for name in providers)


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    plan.config["listen"] = fields.text("listen") or ":8080"
    plan.config |= {name: value for name in _SAME if (value := fields.take(name)) is not None}
    tls = fields.section("tls")
    if tls.take("enabled"):
        plan.config["tls"] = {
            "enabled": True,
            "cert_path": tls.text("cert_path"),
            "key_path": tls.text("key_path"),
        }
    for position, user in enumerate(fields.sections("users")):
        plan.add_user(user.text("name"), user.text("token"), where=f"users[{position}].token")
    providers = fields.texts("providers")
    if unknown := [name for name in providers if name not in _FILES]:
        raise MigrationError(f"providers: ai-mux has none named {unknown[0]!r}")
    plan.config["providers"] = {name: {} for name in providers}
    state = Path(fields.text("state_dir") or "~/.aimux").expanduser()
    for name in providers:
        if (file := path.parent / state / name / _FILES[name]).is_file():
            plan.add_account(name, "default", as_it_is(file), origin=str(file))
        else:
            plan.note(f"the {name} account", f"{file} is not there")
    return plan
