"""sing-box: the services of type ccm (Claude Code) and ocm (Codex) of its JSON configuration. Served at the root."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimux.migrate.credentials import as_it_is
from aimux.migrate.plan import Fields, MigrationError, Plan, address

NAME = "sing-box"
_PROVIDERS = {"ccm": "claude", "ocm": "chatgpt"}
_CREDENTIALS = {
    "ccm": ("CLAUDE_CONFIG_DIR", "~/.claude", ".credentials.json"),
    "ocm": ("CODEX_HOME", "~/.codex", "auth.json"),
}


def recognise(data: Mapping[str, Any]) -> bool:
    services = data.get("services")
    return isinstance(services, list) and any(
        isinstance(service, Mapping) and service.get("type") in _PROVIDERS for service in services
    )


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    mounts: dict[str, str] = {}
    for position, service in enumerate(fields.sections("services")):
        kind = service.text("type")
        if kind not in _PROVIDERS:
            plan.note(f"services[{position}]", f"is of type {kind!r}, which has nothing to do with aimux")
            continue
        provider = _PROVIDERS[kind]
        tag = service.text("tag") or f"{kind} service"
        listen = address(service.text("listen"), service.text("listen_port") or "8080")
        if "listen" not in plan.config:
            plan.config["listen"] = listen
            mounts |= {"/": provider}
        elif mounts["/"] != provider or plan.config["listen"] != listen:
            plan.note(f"{tag} at {listen}", f"its clients move to {plan.config['listen']} and the prefix /{provider}")
        mounts[f"/{provider}"] = provider
        _service(plan, service, kind, tag, path)
    if not mounts:
        raise MigrationError(f"{path} has no service of type ccm or ocm")
    plan.config["mounts"] = mounts
    return plan


def _service(plan: Plan, service: Fields, kind: str, tag: str, path: Path) -> None:
    provider = _PROVIDERS[kind]
    variable, home, name = _CREDENTIALS[kind]
    given = service.text("credential_path")
    usual = Path(os.environ.get(variable) or home).expanduser() / name
    file = path.parent / Path(given).expanduser() if given else usual
    if file.is_file():
        plan.add_account(provider, tag, as_it_is(file), origin=str(file))
    else:
        plan.note(f"the account of the {tag}", f"{file} is not there (in the keychain?): run `aimux login {provider}`")
    for user in service.sections("users"):
        user_name = user.text("name")
        plan.add_user(user_name, user.text("token"), where=f"user {user_name!r} of the {tag}")
    headers = service.take("headers")
    if isinstance(headers, Mapping) and headers:
        settings = plan.config.setdefault("providers", {}).setdefault(provider, {})
        settings["headers"] = {str(name): _first(value) for name, value in headers.items()}
    tls = service.section("tls")
    if tls.take("enabled"):
        certificate, key = tls.text("certificate_path"), tls.text("key_path")
        if certificate and key:
            plan.config["tls"] = {
                "enabled": True,
                "cert_path": str(path.parent / certificate),
                "key_path": str(path.parent / key),
            }
        else:
            plan.note(
                f"TLS of the {tag}",
                "has no certificate_path and key_path: set `tls`, or clients must use http",
            )


def _first(value: object) -> str:
    """sing-box takes a list for a header, aimux one value."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
