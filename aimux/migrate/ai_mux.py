"""ai-mux: its configuration has aimux's own fields and its state folder aimux's own layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimux.migrate.credentials import as_it_is
from aimux.migrate.fields import MigrationError, local_path
from aimux.migrate.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.migrate.fields import Fields

NAME = "ai-mux"
_FILES = {"claude": ".credentials.json", "chatgpt": "auth.json"}
_SAME = ("log_level", "request_timeout", "refresh_check_interval")
_STATE_FOLDERS = ("~/.ai-mux", "~/.aimux")
"""The default that it documents, and the one that is in its code."""


def recognise(data: Mapping[str, Any]) -> bool:
    providers = data.get("providers")
    return isinstance(providers, list) and all(name in tuple(_FILES) for name in providers)


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    plan.config["listen"] = fields.text("listen") or ":8080"
    plan.config |= {name: value for name in _SAME if (value := fields.take(name)) is not None}
    tls = fields.section("tls")
    if tls.flag("enabled"):
        plan.tls(tls.text("cert_path"), tls.text("key_path"), path.parent)
    for position, user in enumerate(fields.sections("users")):
        plan.closed = True
        plan.add_user(user.text("name"), user.text("token"), where=f"users[{position}].token")
    providers = fields.texts("providers")
    if unknown := [name for name in providers if name not in _FILES]:
        raise MigrationError(f"providers: ai-mux has none named {unknown[0]!r}")
    plan.config["providers"] = {name: {} for name in providers}
    state = _state_folder(fields.text("state_dir"), path.parent)
    for name in providers:
        if (file := state / name / _FILES[name]).is_file():
            plan.add_account(name, "default", as_it_is(file), origin=str(file), file=file)
        else:
            plan.loss(f"the {name} account", f"{file} is not there")
    return plan


def _state_folder(given: str, folder: Path) -> Path:
    if given:
        return folder / local_path(given)
    usual = [Path(name).expanduser() for name in _STATE_FOLDERS]
    return next((state for state in usual if state.is_dir()), usual[0])
