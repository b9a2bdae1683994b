"""People: users and tokens; giving access, raising limits, and taking access away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard import clients, limit_forms
from aimux.control.dashboard.page import (
    after_refusal,
    ask,
    ask_and_go,
    edited,
    every,
    form,
    go,
    groups_in,
    render,
    segment,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

routes = web.RouteTableDef()

AT_ONCE = 100

ROLES = {
    "member": "uses the gateway, and sees their own usage",
    "viewer": "also sees everybody's usage, and the accounts",
    "admin": "also changes people, accounts and limits",
}


@routes.get("/people")
async def page(request: web.Request) -> web.StreamResponse:
    """Users and tokens have pages of their own: `after` and `tokens` are where these begin."""
    given = request.query
    asked = {name: given[name].strip() for name in ("q", "after", "tokens") if given.get(name, "").strip()}
    q = asked.get("q")
    users, groups, tokens, usage = await asyncio.gather(
        ask(request, "GET", "/users", q=q, after=asked.get("after"), limit=AT_ONCE, details="true"),
        every(request, "/groups"),
        ask(request, "GET", "/tokens", q=q, after=asked.get("tokens"), limit=AT_ONCE),
        every(request, "/usage", by="user", since="30d", limit=10_000),
    )
    names = {user["name"] for user in users["items"]}
    names |= await _there(request, {token["user"] for token in tokens["items"]} - names)
    return render(
        request,
        "people.html",
        title="People",
        asked=asked,
        users=users["items"],
        groups=groups,
        tokens=tokens["items"],
        usage={row["user"]: row for row in usage if row["user"] in names},
        names=names,
        more_users="?" + urlencode({**asked, "after": users["next"]}) if users["next"] else None,
        more_tokens="?" + urlencode({**asked, "tokens": tokens["next"]}) + "#tokens" if tokens["next"] else None,
    )


async def _there(request: web.Request, names: Iterable[str]) -> set[str]:
    """Those of them whose user was not removed."""
    asked = [ask(request, "GET", f"/users/{segment(name)}") for name in names]
    return {found["name"] for found in await asyncio.gather(*asked, return_exceptions=True) if isinstance(found, dict)}


# --- a user ----------------------------------------------------------------------------------------------------------


@routes.get("/people/add")
async def add_page(request: web.Request) -> web.StreamResponse:
    return await _add_page(request, {})


async def _add_page(request: web.Request, filled: Mapping[str, str], refused: Refused | None = None) -> web.Response:
    return render(
        request,
        "user_add.html",
        **after_refusal(refused),
        title="Add a user",
        roles=ROLES,
        groups=await every(request, "/groups"),
        fields=_about(filled),
        filled=filled,
    )


@routes.post("/people/add")
async def add(request: web.Request) -> web.StreamResponse:
    given = await form(request)
    name = given.get("name", "").strip()
    try:
        await ask(request, "POST", "/users", {"name": name, **_about(given)})
    except Refused as refused:
        return await _add_page(request, given, refused)
    if given.get("how") == "invite":
        return await _invited(request, name)
    return await _issued(request, "/tokens", {"user": name, "label": "first"})


@routes.get("/people/users/{name}")
async def user(request: web.Request) -> web.StreamResponse:
    return await _user(request, request.match_info["name"])


async def _user(
    request: web.Request, name: str, refused: Refused | None = None, **filled: Mapping[str, str]
) -> web.Response:
    """Their page. After a refusal it says why, and the form of that name in `filled` has what was typed into it."""
    found, groups, tokens, limits, grants, usage = await asyncio.gather(
        ask(request, "GET", f"/users/{segment(name)}"),
        every(request, "/groups"),
        every(request, "/tokens", user=name),
        limit_forms.limits_of(request, "user", name),
        ask(request, "GET", f"/limits/user/{segment(name)}/grants"),
        ask(request, "GET", "/usage", by="model", since="30d", user=name),
    )
    return render(
        request,
        "user.html",
        **after_refusal(refused),
        title=name,
        user=found,
        groups=groups,
        tokens=tokens,
        limits=limits,
        grants=grants["items"],
        usage=usage,
        roles=ROLES,
        amounts=limit_forms.AMOUNTS,
        forbidden=limit_forms.FORBIDDEN,
        fields=_about(filled["change"]) if "change" in filled else found,
        tokens_limits=await limit_forms.limits_of_tokens(request, tokens),
        filled=filled,
    )


@routes.post("/people/users/{name}")
async def change(request: web.Request) -> web.StreamResponse:
    given, name = await form(request), request.match_info["name"]
    path = f"/users/{segment(name)}"
    try:
        await ask(request, "PATCH", path, await edited(request, path, given, _about(given)))
    except Refused as refused:
        return await _user(request, name, refused, change=given)
    return go(request, f"people/users/{segment(name)}", f"{name} was changed.")


@routes.post("/people/users/{name}/{action}")
async def act(request: web.Request) -> web.StreamResponse:
    given, name, action = await form(request), request.match_info["name"], request.match_info["action"]
    back, path = f"people/users/{segment(name)}", f"/users/{segment(name)}"
    match action:
        case "enable" | "disable":
            on = action == "enable"
            done = f"{name} may call again." if on else f"{name} may not call any more, and what was open has ended."
            return await ask_and_go(request, back, done, "PATCH", path, {"enabled": on})
        case "remove":
            return await ask_and_go(request, "people", f"{name} was removed, with all tokens.", "DELETE", path)
        case "token":
            body: dict[str, Any] = {"user": name, "label": given.get("label", "").strip()}
            if ttl := given.get("ttl", "").strip():
                body["ttl"] = ttl
            if scopes := given.get("scopes", "").split():
                body["scopes"] = scopes
            try:
                return await _issued(request, "/tokens", body)
            except Refused as refused:
                return await _user(request, name, refused, token=given)
        case "invite":
            return await _invited(request, name)
        case "limits" | "grant":
            try:
                done = await limit_forms.changed(request, action, "user", name, given)
            except Refused as refused:
                return await _user(request, name, refused, **{action: given})
            return go(request, back, done)
    raise web.HTTPNotFound


@routes.post("/people/tokens/{id}/{action}")
async def token(request: web.Request) -> web.StreamResponse:
    given, path = await form(request), f"/tokens/{segment(request.match_info['id'])}"
    if request.match_info["action"] == "revoke":
        back = f"people/users/{segment(given.get('user', ''))}" if given.get("user") else "people"
        return await ask_and_go(
            request, back, "The token is refused from now on, and what it had open has ended.", "DELETE", path
        )
    if request.match_info["action"] == "rotate":
        overlap = given.get("overlap", "").strip() or None
        return await _issued(request, f"{path}/rotate", {"overlap": overlap})
    raise web.HTTPNotFound


# --- what they share -------------------------------------------------------------------------------------------------


def _about(given: Mapping[str, str]) -> dict[str, Any]:
    """What a form says of a user."""
    return {
        "email": given.get("email", "").strip() or None,
        "role": given.get("role", "member"),
        "groups": groups_in(given),
        "scopes": given.get("scopes", "").split(),
    }


async def _issued(request: web.Request, path: str, body: Mapping[str, Any]) -> web.StreamResponse:
    issued = await ask(request, "POST", path, body)
    return clients.welcome(request, issued, f"A token for {issued['user']}", for_me=False)


async def _invited(request: web.Request, name: str) -> web.StreamResponse:
    made = await ask(request, "POST", "/invitations", {"user": name})
    address = f"{clients.address(request)}{made['path']}"
    return render(request, "invited.html", title=f"An invitation for {name}", user=name, address=address, made=made)
