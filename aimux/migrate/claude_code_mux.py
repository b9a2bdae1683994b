"""claude-code-mux: config.toml with providers and model routes, and oauth_tokens.json beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimux.migrate.credentials import api_key, claude_oauth, codex_oauth, load_json
from aimux.migrate.fields import Fields
from aimux.migrate.plan import FoundAccount, Plan, address

NAME = "claude-code-mux"
_OWN = {
    "anthropic": ("claude", "anthropic", "https://api.anthropic.com"),
    "openai": ("chatgpt", "openai", "https://api.openai.com"),
}
"""Type there → provider here, wire format, and the vendor's address, which need not be written."""
_COMPATIBLE = {
    "z.ai": ("anthropic", "https://api.z.ai/api/anthropic"),
    "minimax": ("anthropic", "https://api.minimax.io/anthropic"),
    "zenmux": ("anthropic", "https://zenmux.ai/api/anthropic"),
    "kimi-coding": ("anthropic", "https://api.kimi.com/coding"),
    "openrouter": ("openai", "https://openrouter.ai/api/v1"),
    "deepinfra": ("openai", "https://api.deepinfra.com/v1/openai"),
    "novita": ("openai", "https://api.novita.ai/v3/openai"),
    "baseten": ("openai", "https://inference.baseten.co/v1"),
    "together": ("openai", "https://api.together.xyz/v1"),
    "fireworks": ("openai", "https://api.fireworks.ai/inference/v1"),
    "groq": ("openai", "https://api.groq.com/openai/v1"),
    "nebius": ("openai", "https://api.studio.nebius.ai/v1"),
    "cerebras": ("openai", "https://api.cerebras.ai/v1"),
    "moonshot": ("openai", "https://api.moonshot.cn/v1"),
}
_FIXED = "api-key"
"""The account that a provider's `api_key` in the configuration makes."""


class _Providers:
    """The providers that were taken over, by their names there: the account of each, and the format that it speaks."""

    def __init__(self) -> None:
        self.accounts: dict[str, FoundAccount] = {}
        self.logins: dict[str, FoundAccount] = {}
        """By name in oauth_tokens.json. Two accounts of one login would log each other out."""
        self.formats: dict[str, str] = {}
        """By provider of the configuration."""

    @property
    def root(self) -> str | None:
        """The provider whose clients keep their address: they speak Anthropic's format."""
        own = [name for name, wire in self.formats.items() if wire == "anthropic"]
        return next(iter(own or self.formats), None)


def recognise(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("router"), Mapping) and isinstance(data.get("providers", []), list)


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    _server(plan, fields.section("server"))
    tokens = _tokens(plan, path)
    unused = dict(tokens)
    found = _Providers()
    for provider in fields.sections("providers"):
        _provider(plan, provider, tokens, unused, found)
    for left in unused:
        plan.note(f"oauth_tokens.json: {left}", "no enabled provider uses it")
    plan.settle_names()
    if found.root is not None:
        plan.config["mounts"] = {"/": found.root} | {f"/{name}": name for name in found.formats}
    _models(plan, fields, found)
    plan.config["compatibility"] = [NAME]
    return plan


def _server(plan: Plan, server: Fields) -> None:
    plan.config["listen"] = address(server.text("host") or "127.0.0.1", server.text("port") or "3456")
    if level := server.text("log_level"):
        plan.config["log_level"] = level
    key = server.text("api_key")
    plan.closed = bool(key)
    if key.startswith("$"):
        value = os.environ.get(key[1:], "")
        if value:
            plan.add_user("api-key", value, where="server.api_key")
        else:
            plan.replace_token("api-key", where="server.api_key", why=f"lies in the variable {key[1:]}, not set here")
    elif key:
        plan.add_user("api-key", key, where="server.api_key")
    timeouts = server.section("timeouts")
    for theirs, ours in (("api_timeout_ms", "request_timeout"), ("connect_timeout_ms", "connect_timeout")):
        if milliseconds := timeouts.number(theirs):
            plan.config[ours] = milliseconds / 1000


def _tokens(plan: Plan, path: Path) -> dict[str, Any]:
    """The content of oauth_tokens.json, beside the configuration or at its usual place."""
    for file in (path.parent / "oauth_tokens.json", Path("~/.claude-code-mux/oauth_tokens.json").expanduser()):
        if file.is_file():
            return load_json(file)
    plan.note("oauth_tokens.json", "is not beside the configuration")
    return {}


# --- providers -------------------------------------------------------------------------------------------------------


def _provider(
    plan: Plan, provider: Fields, tokens: Mapping[str, Any], unused: dict[str, Any], found: _Providers
) -> None:
    name, kind, key = provider.text("name"), provider.text("provider_type"), provider.text("api_key")
    base_url, token_name = provider.text("base_url").rstrip("/"), provider.text("oauth_provider")
    if provider.text("auth_type") == "oauth":
        token_name = token_name or name
    if provider.take("models"):
        plan.note(f"models of provider {name!r}", "have no counterpart: an account serves whatever it is asked for")
    if provider.take("enabled") is False:
        plan.note(f"provider {name!r}", "is switched off there")
        return
    if kind not in _OWN and kind not in _COMPATIBLE:
        plan.loss(f"provider {name!r}", f"aimux has no provider for {kind!r}")
        return
    if token_name and token_name not in tokens:
        plan.loss(f"provider {name!r}", f"oauth_tokens.json has no {token_name!r}")
        return
    if not token_name and not key:
        plan.loss(f"provider {name!r}", "has no credential")
        return
    if token_name in found.logins:
        found.accounts[name] = found.logins[token_name]
        return
    instance, wire = _instance(plan, name, kind, base_url, login=bool(token_name))
    if token_name:
        unused.pop(token_name, None)
        make = _oauth(instance, wire, tokens[token_name])
        account = plan.add_account(instance, name, make, origin=f"oauth_tokens.json: {token_name}")
        found.logins[token_name] = account
    elif key.startswith("$"):
        if "api_key" in plan.settings(instance):  # a provider takes one from the environment
            instance = plan.new_instance(name, type=_OWN[kind][0])
        plan.settings(instance)["api_key"] = f"${{env:{key[1:]}}}"
        account = FoundAccount(instance, _FIXED, api_key(""))
    else:
        account = plan.add_account(instance, name, api_key(key), origin=f"provider {name!r}")
    found.accounts[name] = account
    found.formats[instance] = wire


def _instance(plan: Plan, name: str, kind: str, base_url: str, *, login: bool) -> tuple[str, str]:
    """The provider in the configuration that takes it, and its wire format."""
    if kind in _COMPATIBLE:
        wire, usual = _COMPATIBLE[kind]
        return plan.new_instance(name, type="compatible", format=wire, base_url=base_url or usual), wire
    ours, wire, usual = _OWN[kind]
    if base_url.removesuffix("/v1") in {"", usual}:
        return ours, wire
    if login:
        return plan.new_instance(name, type=ours, base_url=base_url), wire
    return plan.new_instance(name, type="compatible", format=wire, base_url=base_url), wire


def _oauth(instance: str, wire: str, data: object) -> Any:
    token = Fields(data, "oauth_tokens.json")
    access, refresh = token.text("access_token"), token.text("refresh_token")
    if wire == "anthropic":
        return claude_oauth(access, refresh, token.take("expires_at"))
    return codex_oauth({"access_token": access, "refresh_token": refresh}, "")


# --- models ----------------------------------------------------------------------------------------------------------


def _models(plan: Plan, fields: Fields, found: _Providers) -> None:
    """Routes by name. The choice by what a request is for (thinking, background) is not aimux's to make."""
    models: dict[str, list[dict[str, Any]]] = {}
    first: dict[str, int] = {}
    """Account → the best of its priorities, which also holds for models without a route."""
    for model in fields.sections("models"):
        name = model.text("name")
        for mapping in model.sections("mappings"):
            provider, actual = mapping.text("provider"), mapping.text("actual_model")
            priority = int(mapping.number("priority") or 0)
            account = found.accounts.get(provider)
            if account is None:
                plan.loss(f"model {name!r} by {provider!r}", "that provider did not come along")
                continue
            if found.root is not None and found.formats[account.instance] != found.formats[found.root]:
                why = f"it speaks another format than /, and aimux translates none: ask for it at /{account.instance}"
                plan.loss(f"model {name!r} by {provider!r}", why)
                continue
            target = {"account": account.full_name, "priority": priority}
            models.setdefault(name, []).append(target | ({"model": actual} if actual not in {"", name} else {}))
            first[account.full_name] = min(priority, first.get(account.full_name, priority))
    if patterns := [name for name in models if name == "default" or name.endswith("*") or name.startswith("/")]:
        for name in patterns:
            plan.loss(f"model {name!r}", "means something else in aimux's `models`; write it there as it is meant")
            del models[name]
    default = fields.section("router").text("default")
    if default in models:
        # There, whatever else a client asks for becomes this model.
        models["default"] = [{"model": default} | target for target in models[default]]
    elif default:
        plan.loss("router.default", f"no provider for {default!r} came along")
    if models:
        plan.config["models"] = models
    _priorities(plan, found, first)


def _priorities(plan: Plan, found: _Providers, first: Mapping[str, int]) -> None:
    """Among several accounts of one provider, the one preferred by name is also preferred for any other model."""
    instances = [account.instance for account in found.accounts.values()]
    for account in found.accounts.values():
        if instances.count(account.instance) > 1 and (priority := first.get(account.full_name)):
            account.settings["priority"] = priority
            if account.name == _FIXED:
                plan.settings(account.instance).setdefault("accounts", {})[_FIXED] = account.settings
