"""claude-code-mux: config.toml with providers and model routes, and oauth_tokens.json beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimux.migrate.credentials import api_key, claude_oauth, codex_oauth, load_json
from aimux.migrate.plan import Fields, Plan, address, clean

NAME = "claude-code-mux"
_WIRE_FORMATS = {"anthropic": "claude", "openai": "chatgpt"}
_UPSTREAMS = {"claude": "https://api.anthropic.com", "chatgpt": "https://api.openai.com"}


def recognise(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("router"), Mapping) and isinstance(data.get("providers", []), list)


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    _server(plan, fields.section("server"))
    tokens = _tokens(plan, path)
    instances: dict[str, str] = {}
    for provider in fields.sections("providers"):
        _provider(plan, provider, tokens, instances)
    for left in tokens:
        plan.note(f"oauth_tokens.json: {left}", "no enabled provider uses it")
    _models(plan, fields, instances)
    if instances:
        first = next(iter(instances.values()))
        plan.config["mounts"] = {"/": first} | {f"/{name}": name for name in dict.fromkeys(instances.values())}
    return plan


def _server(plan: Plan, server: Fields) -> None:
    plan.config["listen"] = address(server.text("host") or "127.0.0.1", server.text("port") or "3456")
    if level := server.text("log_level"):
        plan.config["log_level"] = level
    key = server.text("api_key")
    if key.startswith("$"):
        plan.note("server.api_key", f"lies in the environment variable {key[1:]}: add a user with token: ${{env:…}}")
    elif key:
        plan.add_user("api-key", key, where="server.api_key")
    timeouts = server.section("timeouts")
    for theirs, ours in (("api_timeout_ms", "request_timeout"), ("connect_timeout_ms", "connect_timeout")):
        if milliseconds := timeouts.number(theirs):
            plan.config[ours] = milliseconds / 1000


def _tokens(plan: Plan, path: Path) -> dict[str, Any]:
    """What oauth_tokens.json holds, beside the configuration or at its usual place."""
    for file in (path.parent / "oauth_tokens.json", Path("~/.claude-code-mux/oauth_tokens.json").expanduser()):
        if file.is_file():
            return load_json(file)
    plan.note("oauth_tokens.json", "is not beside the configuration")
    return {}


def _provider(plan: Plan, provider: Fields, tokens: dict[str, Any], instances: dict[str, str]) -> None:
    name, kind = provider.text("name"), provider.text("provider_type")
    oauth = provider.text("auth_type") == "oauth"
    key, base_url = provider.text("api_key"), provider.text("base_url").rstrip("/")
    token_name = provider.text("oauth_provider")
    provider.take("models")
    if provider.take("enabled") is False:
        plan.note(f"provider {name!r}", "is switched off there")
        return
    ours = _WIRE_FORMATS.get(kind)
    if ours is None or (oauth and token_name not in tokens):
        why = f"aimux has no provider for {kind!r}" if ours is None else f"oauth_tokens.json has no {token_name!r}"
        plan.note(f"provider {name!r}", why)
        return
    instance = ours
    if base_url.removesuffix("/v1") not in {"", _UPSTREAMS[ours]}:
        instance = re.sub(r"[^A-Za-z0-9_-]+", "-", clean(name, ours))
        settings = plan.config.setdefault("providers", {})
        settings[instance] = {"type": ours, "base_url": base_url.removesuffix("/v1")}
    if oauth:
        plan.add_account(
            instance, name, _oauth(ours, tokens.pop(token_name)), origin=f"oauth_tokens.json: {token_name}"
        )
    elif key.startswith("$"):
        plan.config.setdefault("providers", {}).setdefault(instance, {})["api_key"] = f"${{env:{key[1:]}}}"
    elif key:
        plan.add_account(instance, name, api_key(key), origin=f"provider {name!r}")
    else:
        plan.note(f"provider {name!r}", "has no credential")
        return
    instances[name] = instance


def _oauth(ours: str, data: object) -> Any:
    token = Fields(data, "oauth_tokens.json")
    access, refresh = token.text("access_token"), token.text("refresh_token")
    if ours == "claude":
        return claude_oauth(access, refresh, token.take("expires_at"))
    return codex_oauth({"access_token": access, "refresh_token": refresh}, "")


def _models(plan: Plan, fields: Fields, instances: dict[str, str]) -> None:
    """Routes by name. The choice by what a request is for (thinking, background) is not aimux's to make."""
    models: dict[str, list[dict[str, Any]]] = {}
    for model in fields.sections("models"):
        name = model.text("name")
        for mapping in model.sections("mappings"):
            provider, actual = mapping.text("provider"), mapping.text("actual_model")
            priority = int(mapping.number("priority") or 0)
            if provider not in instances:
                plan.note(f"model {name!r} by {provider!r}", "that provider did not come along")
                continue
            target: dict[str, Any] = {"provider": instances[provider], "priority": priority}
            models.setdefault(name, []).append(target | ({"model": actual} if actual != name else {}))
    router = fields.section("router")
    default = router.text("default")
    if default in models:
        models["default"] = models[default]
    elif default:
        plan.note("router.default", f"no provider for {default!r} came along")
    if models:
        plan.config["models"] = models
