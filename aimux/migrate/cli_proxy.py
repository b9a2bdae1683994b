"""CLIProxyAPI: its config.yaml and the folder with one file for each login, or that folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from yarl import URL

from aimux.migrate.credentials import api_key, claude_oauth, codex_oauth, load_json
from aimux.migrate.fields import Fields, MigrationError, local_path
from aimux.migrate.plan import Plan, address

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.migrate.plan import FoundAccount, MakeCredential

NAME = "cli-proxy-api"
_KEYS = {
    "claude-api-key": ("claude", "anthropic", "https://api.anthropic.com"),
    "codex-api-key": ("chatgpt", "openai", "https://api.openai.com"),
}
_STRATEGIES = {"round-robin": "round_robin", "weighted-round-robin": "round_robin", "fill-first": "priority"}
_ROOTS = ("claude", "chatgpt")
"""The providers whose clients may keep their address: the first one that is there."""
_PROXY = "goes out directly here: aimux takes HTTPS_PROXY of its environment, for all accounts"


def recognise(data: Mapping[str, Any]) -> bool:
    return "auth-dir" in data or ("api-keys" in data and ("remote-management" in data or "port" in data))


def is_auth_folder(folder: Path) -> bool:
    """Whether this is its folder of logins, without the configuration: its files say of which kind they are."""
    for file in folder.glob("*.json"):
        try:
            login = load_json(file)
        except MigrationError:
            continue
        if isinstance(login.get("type"), str) and {"access_token", "token", "email"} & login.keys():
            return True
    return False


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    host, port = fields.text("host"), fields.text("port")
    if host or port:
        plan.config["listen"] = address(host, port or "8317")
    tls = fields.section("tls")
    if tls.flag("enable"):
        plan.tls(tls.text("cert"), tls.text("key"), path.parent)
    if fields.flag("debug"):
        plan.config["log_level"] = "debug"
    if fields.text("proxy-url"):
        plan.note("proxy-url", _PROXY)
    _users(plan, fields)
    _folder(plan, path.parent / local_path(fields.text("auth-dir") or "~/.cli-proxy-api"))
    for field in _KEYS:
        for entry in fields.sections(field):
            _api_key(plan, entry, field)
    for entry in fields.sections("openai-compatibility"):
        _compatible(plan, entry)
    _strategy(plan, fields.section("routing").text("strategy"))
    _mounts(plan)
    return plan


def _users(plan: Plan, fields: Fields) -> None:
    keys = [(f"api-keys[{position}]", key) for position, key in enumerate(fields.texts("api-keys"))]
    for provider in fields.section("auth").sections("providers"):  # as older versions had it
        keys += [(provider.where("api-keys"), key) for key in provider.texts("api-keys")]
    for position, (where, key) in enumerate(keys):
        plan.closed = True
        plan.add_user(f"key-{position + 1}", key, where=where)


# --- logins ----------------------------------------------------------------------------------------------------------


def _folder(plan: Plan, folder: Path) -> None:
    """Add each login of the folder."""
    if not folder.is_dir():
        plan.note("auth-dir", f"{folder} is not there")
        return
    for file in sorted(folder.glob("*.json")):
        try:
            _login(plan, Fields(load_json(file), file.name), file)
        except MigrationError as error:  # a half-written or foreign file takes none of the others along
            plan.loss(file.name, str(error))


def _login(plan: Plan, login: Fields, file: Path) -> None:
    kind, off = login.text("type").lower(), login.flag("disabled")
    if kind not in {"claude", "codex"}:
        leave = plan.note if off else plan.loss
        leave(file.name, f"aimux has no provider for {kind or 'this kind of login'!r}")
        return
    provider = "claude" if kind == "claude" else "chatgpt"
    name, make = login.text("email") or file.stem, _oauth(login, kind)
    account = plan.add_account(provider, name, make, origin=file.name)
    account.disabled = off
    _share(plan, account, login, file.name)
    for field, why in (
        ("prefix", "has no counterpart: name the account in `models` instead"),
        ("proxy_url", _PROXY),
        ("excluded_models", "has no counterpart"),
        ("model_aliases", "are to be written as `models`"),
    ):
        if login.take(field):
            plan.note(f"{file.name}: {field}", why)


def _oauth(login: Fields, kind: str) -> MakeCredential:
    access, refresh = login.text("access_token"), login.text("refresh_token")
    if kind == "codex":
        tokens = {"id_token": login.text("id_token"), "access_token": access, "refresh_token": refresh}
        return codex_oauth(tokens | {"account_id": login.text("account_id")}, login.text("last_refresh"))
    extra = {"accountUuid": login.text("account_uuid"), "organizationUuid": login.text("organization_uuid")}
    return claude_oauth(access, refresh, login.take("expired"), extra)


def _share(plan: Plan, account: FoundAccount, entry: Fields, where: str) -> None:
    """How an account takes part. There the highest priority comes first, here the lowest."""
    if priority := entry.number("priority"):
        account.settings["priority"] = -int(priority)
    weight = entry.number("weight")
    if weight is not None and weight <= 0:
        account.disabled = True
        plan.note(f"{where}: weight", "takes it out of the choice there; it is switched off here")
    elif weight is not None:
        account.settings["weight"] = min(weight, 1000)


# --- keys ------------------------------------------------------------------------------------------------------------


def _api_key(plan: Plan, entry: Fields, field: str) -> None:
    provider, wire, upstream = _KEYS[field]
    key, base_url = entry.text("api-key"), entry.text("base-url").rstrip("/").removesuffix("/v1")
    if not key:
        raise MigrationError(f"{entry.where('api-key')} is empty")
    instance, name = provider, f"{provider}-key"
    if base_url not in {"", upstream}:
        # It sends keys as a bearer to other servers than the vendor's, whatever the format.
        settings = {"type": "compatible", "format": wire, "base_url": entry.text("base-url").rstrip("/")}
        instance, name = plan.new_instance(_host(base_url) or provider, **settings, auth="bearer"), "default"
    account = plan.add_account(instance, name, api_key(key), origin=entry.where("api-key"))
    _share(plan, account, entry, entry.where("weight"))
    _headers(plan, entry, instance)
    _models(plan, entry, instance)
    if entry.text("proxy-url") not in {"", "direct", "none"}:
        plan.note(entry.where("proxy-url"), _PROXY)


def _compatible(plan: Plan, entry: Fields) -> None:
    """A server that speaks OpenAI's format, with any number of keys."""
    name, base_url = entry.text("name"), entry.text("base-url")
    keys = [(one.text("api-key"), one) for one in entry.sections("api-key-entries")]
    keys += [(key, entry) for key in entry.texts("api-keys")]  # as older versions had it
    off = entry.flag("disabled")
    if not base_url:
        plan.loss(entry.where("base-url"), "is empty, so that it is not known where its requests go")
        return
    instance = plan.new_instance(
        name or _host(base_url), type="compatible", format="openai", base_url=base_url.rstrip("/")
    )
    for position, (key, one) in enumerate(keys):
        if not key:
            continue
        account = plan.add_account(instance, f"key-{position + 1}", api_key(key), origin=one.where("api-key"))
        account.disabled = off
        _share(plan, account, one, one.where("weight"))
        if one.text("proxy-url") not in {"", "direct", "none"}:
            plan.note(one.where("proxy-url"), _PROXY)
    if not any(key for key, _ in keys):
        plan.loss(f"provider {name!r}", f"has no API key: aimux login {instance} --api-key")
    _headers(plan, entry, instance)
    if not off:
        _models(plan, entry, instance)


def _headers(plan: Plan, entry: Fields, instance: str) -> None:
    headers = entry.take("headers")
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if str(value).startswith("$"):
            plan.note(entry.where(f"headers.{name}"), "is copied from the client there; here the client's own passes")
        else:
            plan.settings(instance).setdefault("headers", {})[str(name)] = str(value)


def _models(plan: Plan, entry: Fields, instance: str) -> None:
    """Names under which clients ask for its models; repeated ones are tried in turn."""
    for model in entry.sections("models"):
        name, alias = model.text("name"), model.text("alias")
        asked = alias or name
        if not asked or "*" in asked:
            plan.note(model.where("name"), "names no model")
            continue
        targets = plan.config.setdefault("models", {}).setdefault(asked, [])
        target = {"provider": instance} | ({"model": name} if name and name != asked else {})
        if target not in targets:
            targets.append(target)


def _host(url: str) -> str:
    try:
        return URL(url).host or ""
    except ValueError:
        return ""


# --- the whole -------------------------------------------------------------------------------------------------------


def _strategy(plan: Plan, strategy: str) -> None:
    if not strategy:
        return
    ours = _STRATEGIES.get(strategy)
    if ours is None:
        plan.note("routing.strategy", f"aimux has no {strategy!r}")
        return
    for name in dict.fromkeys(account.instance for account in plan.accounts):
        plan.settings(name)["strategy"] = ours


def _mounts(plan: Plan) -> None:
    """Its clients use the root for both wire formats; aimux gives the root to one provider."""
    found = list(dict.fromkeys(account.instance for account in plan.accounts))
    if not found:
        return
    found.sort(key=lambda name: list(_ROOTS).index(name) if name in _ROOTS else len(_ROOTS))
    plan.config["mounts"] = {"/": found[0]} | {f"/{name}": name for name in found}
    serving = {account.instance for account in plan.accounts if not account.disabled}
    for name in found[1:]:
        if name in serving:
            plan.loss(f"clients of {name}", f"they add /{name} to their base URL; the root belongs to {found[0]}")
