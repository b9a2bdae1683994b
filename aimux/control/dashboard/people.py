"""People: users, groups and tokens; giving access, raising limits, and taking access away."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard import clients
from aimux.control.dashboard.page import ask, edited, every, form, go, render, segment, shown, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

routes = web.RouteTableDef()

AT_ONCE = 100

ROLES = {
    "member": "uses the gateway, and sees their own usage",
    "viewer": "also sees everybody's usage, and the accounts",
    "admin": "also changes people, accounts and limits",
}
AMOUNTS = {
    "concurrent_requests": "Requests at once",
    "requests_per_minute": "Requests a minute",
    "tokens_per_minute": "Tokens a minute",
    "tokens_per_day": "Tokens a day",
    "tokens_per_week": "Tokens a week",
    "tokens_per_month": "Tokens a month",
    "cost_per_day": "$ a day",
    "cost_per_week": "$ a week",
    "cost_per_month": "$ a month",
}
FORBIDDEN = {
    "overage": "No paid extra usage",
    "long_context": "No requests so long that a token costs more",
}
LIMITS_SET = "The limits of {} hold from the next request on."
_NUMBER = re.compile(
    r"\$? ?(?P<whole>[0-9]{1,20}|[0-9]{1,3}(?:[, _][0-9]{3}){1,6})"
    r"(?P<fraction>(?:\.[0-9]{1,20})?(?:e-[0-9]{1,3})?) ?(?P<unit>[kmbg]?)",
    re.IGNORECASE,
)
_SEPARATORS = str.maketrans("", "", ", _")
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


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
    return render(request, "user_add.html", title="Add a user", roles=ROLES, groups=await every(request, "/groups"))


@routes.post("/people/add")
async def add(request: web.Request) -> web.StreamResponse:
    given = await form(request)
    name = given.get("name", "").strip()
    body = {"name": name, **_about(given, await _groups(request))}
    await ask(request, "POST", "/users", body)
    if given.get("how") == "invite":
        return await _invited(request, name)
    return await _issued(request, {"user": name, "label": "first"})


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
        _limits(request, "user", name),
        ask(request, "GET", f"/limits/user/{segment(name)}/grants"),
        ask(request, "GET", "/usage", by="model", since="30d", user=name),
    )
    return render(
        request,
        "user.html",
        **_after(refused),
        title=name,
        user=found,
        groups=groups,
        tokens=tokens,
        limits=limits,
        grants=grants["items"],
        usage=usage,
        roles=ROLES,
        amounts=AMOUNTS,
        forbidden=FORBIDDEN,
        tokens_limits=await _limits_of_tokens(request, tokens),
        filled=filled,
    )


@routes.post("/people/users/{name}")
async def change(request: web.Request) -> web.StreamResponse:
    given, name = await form(request), request.match_info["name"]
    path, about = f"/users/{segment(name)}", _about(given, await _groups(request))
    changes = await edited(request, path, given, about)
    return await _back(request, f"people/users/{segment(name)}", f"{name} was changed.", ("PATCH", path, changes))


@routes.post("/people/users/{name}/{action}")
async def act(request: web.Request) -> web.StreamResponse:
    given, name, action = await form(request), request.match_info["name"], request.match_info["action"]
    back, path = f"people/users/{segment(name)}", f"/users/{segment(name)}"
    match action:
        case "enable" | "disable":
            on = action == "enable"
            done = f"{name} may call again." if on else f"{name} may not call any more, and what was open has ended."
            return await _back(request, back, done, ("PATCH", path, {"enabled": on}))
        case "remove":
            return await _back(request, "people", f"{name} was removed, with all tokens.", ("DELETE", path, None))
        case "token":
            body: dict[str, Any] = {"user": name, "label": given.get("label", "").strip()}
            if ttl := given.get("ttl", "").strip():
                body["ttl"] = ttl
            if scopes := given.get("scopes", "").split():
                body["scopes"] = scopes
            return await _issued(request, body)
        case "invite":
            return await _invited(request, name)
        case "limits":
            try:
                await _set_limits(request, "user", name, given)
            except Refused as refused:
                return await _user(request, name, refused, limits=given)
            return go(request, back, LIMITS_SET.format(name))
        case "grant":
            try:
                await _grant(request, "user", name, given)
            except Refused as refused:
                return await _user(request, name, refused, grant=given)
            return go(request, back, "Granted.")
    raise web.HTTPNotFound


@routes.post("/people/tokens/{id}/{action}")
async def token(request: web.Request) -> web.StreamResponse:
    given, path = await form(request), f"/tokens/{segment(request.match_info['id'])}"
    if request.match_info["action"] == "revoke":
        back = f"people/users/{segment(given.get('user', ''))}" if given.get("user") else "people"
        return await _back(
            request, back, "The token is refused from now on, and what it had open has ended.", ("DELETE", path, None)
        )
    if request.match_info["action"] == "rotate":
        overlap = given.get("overlap", "").strip() or None
        issued = await ask(request, "POST", f"{path}/rotate", {"overlap": overlap})
        return await _welcome(request, issued)
    raise web.HTTPNotFound


# --- groups ----------------------------------------------------------------------------------------------------------


@routes.post("/people/groups")
async def add_group(request: web.Request) -> web.StreamResponse:
    given = await form(request)
    name = given.get("name", "").strip()
    body = {"name": name, "reserved": bool(given.get("reserved"))}
    return await _back(request, "people", f"The group {name} is there.", ("POST", "/groups", body))


@routes.get("/people/groups/{name}")
async def group(request: web.Request) -> web.StreamResponse:
    return await _group(request, request.match_info["name"])


async def _group(
    request: web.Request, name: str, refused: Refused | None = None, **filled: Mapping[str, str]
) -> web.Response:
    """As `_user`; `after` is where the members begin."""
    after = request.query.get("after")
    found, limits, grants, members = await asyncio.gather(
        ask(request, "GET", f"/groups/{segment(name)}"),
        _limits(request, "group", name),
        ask(request, "GET", f"/limits/group/{segment(name)}/grants"),
        ask(request, "GET", "/users", group=name, after=after, limit=AT_ONCE),
    )
    return render(
        request,
        "group.html",
        **_after(refused),
        title=name,
        group=found,
        limits=limits,
        grants=grants["items"],
        members=members["items"],
        after=after,
        more="?" + urlencode({"after": members["next"]}) if members["next"] else None,
        amounts=AMOUNTS,
        forbidden=FORBIDDEN,
        filled=filled,
    )


@routes.post("/people/groups/{name}")
async def change_group(request: web.Request) -> web.StreamResponse:
    given, name = await form(request), request.match_info["name"]
    body = {"reserved": bool(given.get("reserved")), "scopes": given.get("scopes", "").split()}
    path, back = f"/groups/{segment(name)}", f"people/groups/{segment(name)}"
    changes = await edited(request, path, given, body)
    return await _back(request, back, f"{name} was changed.", ("PATCH", path, changes))


@routes.post("/people/groups/{name}/{action}")
async def act_group(request: web.Request) -> web.StreamResponse:
    given, name = await form(request), request.match_info["name"]
    match request.match_info["action"]:
        case "remove":
            return await _back(
                request, "people", f"The group {name} was removed.", ("DELETE", f"/groups/{segment(name)}", None)
            )
        case "limits":
            try:
                await _set_limits(request, "group", name, given)
            except Refused as refused:
                return await _group(request, name, refused, limits=given)
            return go(request, f"people/groups/{segment(name)}", LIMITS_SET.format(name))
        case "grant":
            try:
                await _grant(request, "group", name, given)
            except Refused as refused:
                return await _group(request, name, refused, grant=given)
            return go(request, f"people/groups/{segment(name)}", "Granted.")
    raise web.HTTPNotFound


# --- what they share -------------------------------------------------------------------------------------------------


async def _back(request: web.Request, back: str, done: str, operation: tuple[str, str, Any]) -> web.Response:
    """Do it, and go back with a message about the result."""
    try:
        await ask(request, *operation)
    except Refused as refused:
        return go(request, back, told(refused), "bad")
    return go(request, back, done)


def _after(refused: Refused | None) -> dict[str, Any]:
    """What a page that is shown after a refusal has in addition."""
    if refused is None:
        return {}
    return {"status": refused.problem.status, "notices": [{"level": "bad", "text": told(refused)}]}


async def _groups(request: web.Request) -> list[str]:
    """The ticked groups: a form has each field once, so every group is a field of its own."""
    given = await request.post()
    return [str(name).removeprefix("group:") for name in given if str(name).startswith("group:")]


def _about(given: Mapping[str, str], groups: list[str]) -> dict[str, Any]:
    return {
        "email": given.get("email", "").strip() or None,
        "role": given.get("role", "member"),
        "groups": groups,
        "scopes": given.get("scopes", "").split(),
    }


async def _limits(request: web.Request, kind: str, name: str) -> dict[str, Any]:
    """What was set, what holds, and how much of it is used."""
    path = f"/limits/{kind}/{segment(name)}"
    own, holding = await asyncio.gather(ask(request, "GET", path), ask(request, "GET", f"{path}/usage"))
    return {"own": own, "usage": holding["items"], "forbidden": holding["forbidden"], "of": f"{kind}:{name}"}


async def _limits_of_tokens(request: web.Request, tokens: Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Those of them that have limits of their own, with their limits."""
    held = {one["name"] for one in (await ask(request, "GET", "/limits"))["items"] if one["kind"] == "token"}
    limited = [token for token in tokens if token["id"] in held and token["state"] == "active"]
    found = await asyncio.gather(*(_limits(request, "token", one["id"]) for one in limited))
    return [*zip(limited, found, strict=True)]


async def _set_limits(request: web.Request, kind: str, name: str, given: Mapping[str, str]) -> None:
    """The changes made in the form; everything else stays, also what somebody else set meanwhile. Refused."""
    wanted = {name: _number(text) if (text := given.get(name, "").strip()) else None for name in AMOUNTS}
    before = shown(given)
    changes: dict[str, Any] = {name: amount for name, amount in wanted.items() if amount != before.get(name)}
    words = {name: "forbid" if given.get(name) else "allow" for name in FORBIDDEN}
    changes |= {name: word for name, word in words.items() if word != before.get(name, "allow")}
    await ask(request, "PATCH", f"/limits/{kind}/{segment(name)}", changes)


async def _grant(request: web.Request, kind: str, name: str, given: Mapping[str, str]) -> None:
    """More of a limit, as the form says. Refused."""
    amount = _number(given.get("amount", "").strip())
    grant = {"limit": given.get("limit"), "amount": amount, "until": given.get("until", "").strip()}
    await ask(request, "POST", f"/limits/{kind}/{segment(name)}/grants", grant)


def _number(text: str) -> float | int:
    """As people write it: 1000000, 1,000,000, 1 000 000, 2.5, 2M, 500k. A comma that may begin a fraction is refused:
    otherwise 5,50 would become 550."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise Refused(422, "invalid", f"{text!r} is not an amount.", remedy="write it like 250000, 250k or 2.5M")
    # As a float 4.1M is not whole.
    value = Decimal(match["whole"].translate(_SEPARATORS) + match["fraction"]) * _FACTORS[match["unit"].lower()]
    return int(value) if value == value.to_integral_value() else float(value)


async def _issued(request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
    return await _welcome(request, await ask(request, "POST", "/tokens", body))


async def _welcome(request: web.Request, issued: Mapping[str, Any]) -> web.StreamResponse:
    """Shows a token, this once, with everything that its user has to set."""
    return render(
        request,
        "welcome.html",
        title=f"A token for {issued['user']}",
        issued=issued,
        settings=clients.settings(request, issued["token"]),
        for_me=False,
    )


async def _invited(request: web.Request, name: str) -> web.StreamResponse:
    made = await ask(request, "POST", "/invitations", {"user": name})
    address = f"{clients.address(request)}{made['path']}"
    return render(request, "invited.html", title=f"An invitation for {name}", user=name, address=address, made=made)
