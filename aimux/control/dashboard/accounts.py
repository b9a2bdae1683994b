"""Accounts: their state and why, and adding, changing and removing them."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.problems import Refused, sentence
from aimux.control.dashboard import account_views
from aimux.control.dashboard.page import (
    after_refusal,
    ask,
    away,
    edited,
    every,
    form,
    go,
    groups_in,
    if_known,
    render,
    segment,
    told,
)
from aimux.control.state import control_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aimux.plugin.provider import Provider

routes = web.RouteTableDef()

ACTIONS = {
    "enable": "{} serves again.",
    "disable": "{} serves nobody until it is enabled again. Requests under way go on.",
    "refresh": "{} was renewed.",
}
"""Operation → the message when it is done."""
WAYS = {
    "browser": "Log in with a browser",
    "device": "Log in with a device code",
    "setup_token": "Setup token",
    "api_key": "API key",
    "file": "Credential file",
}
"""How an account can be added → what that is called."""

NO_LOGIN = "urn:aimux:no-login"

UNSET = {"weight": "1", "priority": "0"}
"""The settings of an account that nobody changed."""

KEPT = ("way", "account", "replace")
"""What a login is for, with its settings: carried along, so that another one can be begun."""


@routes.get("/accounts")
async def page(request: web.Request) -> web.StreamResponse:
    """All of a few accounts. Many have pages, what needs somebody first; `q` and `status` choose among them, and `from`
    is how many are passed over."""
    asked = {name: given for name in ("q", "status", "from") if (given := request.query.get(name, "").strip())}
    all_of_them = account_views.rows(await every(request, "/accounts"))
    q, status = asked.get("q", "").lower(), asked.get("status")
    chosen = [
        row
        for row in all_of_them
        if (status is None or row["status"] == status) and (q in row["id"].lower() or q in (row["email"] or "").lower())
    ]
    if len(all_of_them) > account_views.AT_ONCE:
        chosen = account_views.urgent_first(chosen)
    start = int(asked["from"]) if re.fullmatch(r"[0-9]{1,6}", asked.get("from", "")) else 0
    end = start + account_views.AT_ONCE
    return render(
        request,
        "accounts.html",
        title="Accounts",
        accounts=chosen[start:end],
        first=start + 1,
        found=len(chosen),
        counts=account_views.counts(all_of_them),
        many=len(all_of_them) > account_views.AT_ONCE,
        asked=asked,
        more="?" + urlencode({**asked, "from": end}) if end < len(chosen) else None,
        providers=sorted(_providers(request)),
        notices=away(request),
    )


@routes.get("/accounts/import")
async def imports(request: web.Request) -> web.StreamResponse:
    """Logins that another program keeps."""
    return _import_page(request)


@routes.post("/accounts/import")
async def take(request: web.Request) -> web.StreamResponse:
    """What is left is listed on the page: it may be more than a notice holds."""
    given = await form(request)
    file = given.get("file", "").strip() or given.get("text", "").strip()
    if not file:
        return _import_page(request, "There is no file and no text: give one of them.")
    try:
        done = await ask(request, "POST", "/accounts/import", {"file": file, "check": bool(given.get("check"))})
    except Refused as refused:
        if refused.problem.type != NO_LOGIN:
            return _import_page(request, told(refused))
        left = [{"where": fault.where, "reason": fault.message} for fault in refused.problem.errors or ()]
        return _import_page(request, refused.problem.detail, left=left)
    names = ", ".join(f"{account['provider']}/{account['name']}" for account in done["items"])
    if not done["left"]:
        return go(request, "accounts", f"Added: {names}.")
    return _import_page(request, f"Added: {names}. The others were left.", "warn", done["left"])


def _import_page(
    request: web.Request, text: str = "", level: str = "bad", left: Sequence[Mapping[str, str]] = ()
) -> web.Response:
    notices = [{"level": level, "text": text}] if text else []
    return render(request, "account_import.html", title="Import logins", left=left, notices=notices)


@routes.get("/accounts/add/{provider}")
async def ways(request: web.Request) -> web.StreamResponse:
    """The ways in which an account of this provider can be added."""
    return await _ways_page(request, request.query)


async def _ways_page(request: web.Request, given: Mapping[str, str], refused: Refused | None = None) -> web.Response:
    """`given` is what was chosen and typed so far. Secrets alone are to be given anew after a refusal."""
    name = request.match_info["provider"]
    provider = _provider(request, name)
    found = _ways(provider)
    return render(
        request,
        "account_add.html",
        **after_refusal(refused),
        title=f"Add an account of {name}",
        provider=name,
        ways=found,
        chosen=given.get("way") if given.get("way") in found else found[0],
        titles=WAYS,
        words=provider.login_words,
        account=given.get("account", "default"),
        replace=given.get("replace") == "1",
        unchecked=refused is not None and not given.get("check"),
        unset=_typed(UNSET),
        settings=_typed(UNSET | _settings(given)),
        groups=sorted(group["name"] for group in await every(request, "/groups")),
    )


@routes.post("/accounts/add/{provider}")
async def add(request: web.Request) -> web.StreamResponse:
    """By key, setup token or file."""
    given, provider = await form(request), request.match_info["provider"]
    body: dict[str, Any] = {"provider": provider, "name": given.get("account", "") or "default"}
    body |= {name: given[name].strip() for name in ("api_key", "setup_token", "file") if given.get(name, "").strip()}
    body |= {name: True for name in ("replace", "check") if given.get(name)}
    try:
        if not body.keys() & {"api_key", "setup_token", "file"}:
            raise Refused(422, "nothing", "There is no key, no token and no file.", remedy="give one of them")
        account = await ask(request, "POST", "/accounts", body)
    except Refused as refused:
        return await _ways_page(request, given, refused)
    return await _added(request, account, given, "was added")


@routes.post("/accounts/login/{provider}")
async def login(request: web.Request) -> web.StreamResponse:
    """Begin a login: the vendor's page opens, or a code is shown."""
    given, provider = await form(request), request.match_info["provider"]
    body: dict[str, Any] = {"account": given.get("account", "") or None, "replace": bool(given.get("replace"))}
    flow = "device" if given.get("way") == "device" else "authorize"
    try:
        started = await ask(request, "POST", f"/oauth/{segment(provider)}/{flow}", body)
    except Refused as refused:
        return await _ways_page(request, given, refused)
    return _login_page(request, flow, started, given)


@routes.post("/accounts/exchange/{provider}")
async def exchange(request: web.Request) -> web.StreamResponse:
    """The code that the person pasted. A wrong one ends the login: another one can be begun where it was."""
    given, provider = await form(request), request.match_info["provider"]
    body = {"code": given.get("code", "").strip(), "state": given.get("state", "")}
    try:
        account = await ask(request, "POST", f"/oauth/{segment(provider)}/exchange", body)
    except Refused as refused:
        return await _ways_page(request, given, refused)
    return await _added(request, account, given, "is logged in")


@routes.post("/accounts/device/{provider}")
async def device(request: web.Request) -> web.StreamResponse:
    """Whether the person has confirmed."""
    given, provider = await form(request), request.match_info["provider"]
    try:
        state = await ask(request, "POST", f"/oauth/{segment(provider)}/device/poll", {"id": given.get("id", "")})
    except Refused as refused:
        return await _ways_page(request, given, refused)
    if state["account"]:
        return await _added(request, state["account"], given, "is logged in")
    started = {name: given.get(name, "") for name in ("id", "user_code", "verification_url", "interval")}
    return _login_page(
        request, "device", started, given, "Nobody has confirmed yet. Confirm on the vendor's page, then look again."
    )


def _login_page(
    request: web.Request, flow: str, started: Mapping[str, Any], given: Mapping[str, str], text: str = ""
) -> web.Response:
    provider = request.match_info["provider"]
    return render(
        request,
        "account_login.html",
        title=f"Log in to {provider}",
        provider=provider,
        flow=flow,
        words=_provider(request, provider).login_words,
        started=started,
        kept={name: value for name, value in given.items() if name in KEPT} | _settings(given),
        notices=[{"level": "", "text": text}] if text else [],
    )


@routes.get("/accounts/{provider}/{name}")
async def account(request: web.Request) -> web.StreamResponse:
    return await _account(request)


async def _account(
    request: web.Request, refused: Refused | None = None, filled: Mapping[str, str] | None = None
) -> web.Response:
    """Its page. After a refusal it says why, and the form has what was typed into it."""
    (row,) = account_views.rows([await ask(request, "GET", f"/{_place(request.match_info)}")])
    usage, groups = await asyncio.gather(
        if_known(ask(request, "GET", "/usage", by="day", since="14d", account=row["id"])), every(request, "/groups")
    )
    names = sorted({group["name"] for group in groups} | {*row["groups"]})
    settings = {"weight": f"{row['weight']:g}", "priority": row["priority"], "groups": row["groups"]}
    return render(
        request,
        "account.html",
        **{"notices": away(request)} | after_refusal(refused),
        title=row["id"],
        account=row,
        usage=usage,
        groups=names,
        settings=settings if filled is None else _typed(filled),
        filled=filled,
    )


@routes.post("/accounts/{provider}/{name}/{action}")
async def act(request: web.Request) -> web.StreamResponse:
    given, action = await form(request), request.match_info["action"]
    back, name = _place(request.match_info), "{provider}/{name}".format(**request.match_info)
    path = f"/{back}"
    try:
        if action in ACTIONS:
            await ask(request, "POST", f"{path}/{action}")
            return go(request, back, ACTIONS[action].format(name))
        if action == "change":
            changed = await ask(request, "PATCH", path, await edited(request, path, given, _change(given)))
            return go(request, back, f"{name} was changed: it serves {changed['serves']}.")
        if action == "rename":
            renamed = await ask(request, "POST", f"{path}/rename", {"name": given.get("name", "").strip()})
            return go(request, _place(renamed), f"{name} is called {renamed['name']} from now on.")
        if action == "test":
            tested = await ask(request, "POST", f"{path}/test")
            return go(request, back, _tested(name, tested), "ok" if tested["ok"] else "bad")
        if action == "remove":
            await ask(request, "DELETE", path)
            return go(request, "accounts", f"{name} was removed.")
    except Refused as refused:
        if action == "change":
            return await _account(request, refused, given)
        return go(request, back, told(refused), "bad")
    raise web.HTTPNotFound


def _typed(given: Mapping[str, str]) -> dict[str, Any]:
    """What a form says of whom an account serves, to be shown again."""
    return {name: given.get(name, "") for name in UNSET} | {"groups": groups_in(given)}


def _change(given: Mapping[str, str]) -> dict[str, Any]:
    """What was typed; the API reports what is not a number."""
    body: dict[str, Any] = {"groups": groups_in(given)}
    for field, read in (("weight", float), ("priority", int)):
        text = given.get(field, "").strip()
        try:
            body[field] = read(text)
        except ValueError:
            body[field] = text
    return body


def _settings(given: Mapping[str, str]) -> dict[str, str]:
    """The fields that say whom an account serves, and when."""
    return {name: value for name, value in given.items() if name in UNSET or name.startswith("group:")}


async def _added(
    request: web.Request, account: Mapping[str, Any], given: Mapping[str, str], done: str
) -> web.StreamResponse:
    """Set whom it serves, and return a message about the result."""
    name, settings = f"{account['provider']}/{account['name']}", _settings(given)
    text = f"{name} {done} and is {account['status']}."
    if settings and settings != UNSET:
        try:
            await ask(request, "PATCH", f"/{_place(account)}", _change(settings))
        except Refused as refused:
            return go(
                request, _place(account), f"{text} Whom it serves, and when, was not changed: {told(refused)}", "warn"
            )
    return go(request, "accounts", text)


def _tested(name: str, tested: Mapping[str, Any]) -> str:
    if tested["ok"]:
        return f"{name} answered in {tested['seconds'] * 1000:,.0f} ms."
    remedy = f" {sentence(tested['remedy'])}" if tested["remedy"] else ""
    return f"{name} does not serve: {tested['reason'] or 'the upstream gave no answer'}.{remedy}"


def _place(info: Mapping[str, Any]) -> str:
    """An account's path, both in the API and below the dashboard."""
    return f"accounts/{segment(info['provider'])}/{segment(info['name'])}"


def _providers(request: web.Request) -> Mapping[str, Provider]:
    return {name: route.provider for name, route in control_of(request).gateway.setup.routes.items()}


def _provider(request: web.Request, name: str) -> Provider:
    found = _providers(request).get(name)
    if found is None:
        raise Refused(404, "not-found", f"There is no provider {name!r}.")
    return found


def _ways(provider: Provider) -> list[str]:
    """The ways in which this provider's accounts can be added."""
    from aimux.plugin import Provider as Plain

    offered = {
        "browser": bool(provider.login_flows & {"loopback", "paste"}),
        "device": "device" in provider.login_flows,
        "setup_token": type(provider).setup_token_file is not Plain.setup_token_file,
    }
    return [way for way in WAYS if offered.get(way, True)]
