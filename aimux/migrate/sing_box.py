"""sing-box: the services of type ccm (Claude Code) and ocm (Codex) of its JSON configuration. Served at the root."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.migrate.credentials import as_it_is
from aimux.migrate.fields import MigrationError, local_path
from aimux.migrate.plan import Plan, address

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.migrate.fields import Fields

NAME = "sing-box"
_PROVIDERS = {"ccm": "claude", "ocm": "chatgpt"}
_CREDENTIALS = {
    "ccm": ("CLAUDE_CONFIG_DIR", "~/.claude", ".credentials.json"),
    "ocm": ("CODEX_HOME", "~/.codex", "auth.json"),
}


class _User(NamedTuple):
    name: str
    token: str
    where: str
    provider: str


def recognise(data: Mapping[str, Any]) -> bool:
    services = data.get("services")
    return isinstance(services, list) and any(
        isinstance(service, Mapping) and service.get("type") in tuple(_PROVIDERS) for service in services
    )


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    mounts: dict[str, str] = {}
    users: list[_User] = []
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
            plan.loss(f"{tag} at {listen}", f"its clients move to {plan.config['listen']} and the prefix /{provider}")
        mounts[f"/{provider}"] = provider
        found = _service(plan, service, kind, tag, path)
        users += found
        if not found:
            plan.note(f"users of the {tag}", "are not named: it asked nobody for a token. With users, aimux does")
    if not mounts:
        raise MigrationError(f"{path} has no service of type ccm or ocm")
    plan.config["mounts"] = mounts
    _users(plan, users)
    return plan


def _service(plan: Plan, service: Fields, kind: str, tag: str, path: Path) -> list[_User]:
    """Add what the service has; returns its users."""
    provider = _PROVIDERS[kind]
    variable, home, name = _CREDENTIALS[kind]
    given = service.text("credential_path")
    usual = local_path(os.environ.get(variable) or home) / name
    file = path.parent / local_path(given) if given else usual
    if file.is_file():
        plan.add_account(provider, tag, as_it_is(file), origin=str(file), file=file)
    else:
        plan.loss(f"the account of the {tag}", f"{file} is not there (in the keychain?): run `aimux login {provider}`")
    headers = service.take("headers")
    if isinstance(headers, Mapping) and headers:
        plan.settings(provider)["headers"] = {str(name): _first(value) for name, value in headers.items()}
    tls = service.section("tls")
    if tls.flag("enabled"):
        plan.tls(tls.text("certificate_path"), tls.text("key_path"), path.parent)
    return [
        _User(name := user.text("name"), user.text("token"), f"user {name!r} of the {tag}", provider)
        for user in service.sections("users")
    ]


def _users(plan: Plan, users: list[_User]) -> None:
    """Limit each to the accounts of the services that accepted the token, unless all of them accepted everybody's."""
    plan.closed = bool(users)
    served: dict[str, set[str]] = {}
    for user in users:
        served.setdefault(user.token, set()).add(user.provider)
    providers = set().union(*served.values())
    bound = any(taken != providers for taken in served.values())
    known: dict[str, str] = {}
    for user in users:
        if (owner := known.get(user.token)) is not None:
            if owner != user.name:
                plan.note(user.where, "is the same token as another user's")
            continue
        known[user.token] = user.name
        groups = tuple(sorted(served[user.token])) if bound else ()
        plan.add_user(user.name, user.token, where=user.where, groups=groups)
    for account in plan.accounts:
        if bound and account.instance in providers:
            account.settings["groups"] = [account.instance]


def _first(value: object) -> str:
    """sing-box takes a list for a header, aimux one value."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
