"""claude-proxy: its OAuth pages and the accounts behind them, which are those of the provider `claude` here.

The PKCE verifier stays with aimux. What is called `code_verifier` in these answers is the login's state once more.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aimux_compat.answers import Failed, ask, every_account, given, text, told

if TYPE_CHECKING:
    from aimux.plugin import Api
    from aimux_compat.answers import Handler

PROVIDER = "claude"
_STATUS = {"healthy": "active", "cooling": "rate_limited", "parked": "invalid", "disabled": "inactive"}


def authorize(api: Api) -> list[web.RouteDef]:
    @told
    async def begin(_request: web.Request) -> web.Response:
        begun = await ask(api, "POST", f"/oauth/{PROVIDER}/authorize", {})
        answer = {"authorization_url": begun["authorization_url"], "state": begun["state"]}
        return web.json_response(answer | {"code_verifier": begun["state"]})

    return [web.get("", begin)]


def exchange(api: Api) -> list[web.RouteDef]:
    return [web.post("", _ending(api))]


def callback(_api: Api) -> list[web.RouteDef]:
    """The redirect URI of an OAuth client of one's own: shows what it brought, for whoever finishes the login."""

    @told
    async def show(request: web.Request) -> web.Response:
        brought = {name: request.query.get(name, "") for name in ("code", "state")}
        if not all(brought.values()):
            raise Failed(400, "oauth_error", "Missing code or state parameter")
        return web.json_response(brought)

    return [web.get("", show)]


def accounts(api: Api) -> list[web.RouteDef]:
    @told
    async def every(_request: web.Request) -> web.Response:
        return web.json_response({"accounts": [_shown(one) for one in await every_account(api, PROVIDER)]})

    @told
    async def one(request: web.Request) -> web.Response:
        account = await ask(api, "GET", f"/accounts/{PROVIDER}/{_name(request.match_info['id'])}")
        return web.json_response({"account": _shown(account)})

    @told
    async def remove(request: web.Request) -> web.Response:
        await ask(api, "DELETE", f"/accounts/{PROVIDER}/{_name(request.match_info['id'])}")
        return web.json_response({"message": "account deleted successfully"})

    return [web.get("", every), web.post("", _ending(api)), web.get("/{id}", one), web.delete("/{id}", remove)]


def _ending(api: Api) -> Handler:
    @told
    async def end(request: web.Request) -> web.Response:
        body = await given(request)
        name, code, state = (text(body, field) for field in ("name", "code", "state"))
        if not hmac.compare_digest(text(body, "code_verifier").encode(), state.encode()):
            raise Failed(400, "oauth_error", "Code verifier mismatch")
        ended = {"code": code, "state": state, "account": _name(name)}
        account = await ask(api, "POST", f"/oauth/{PROVIDER}/exchange", ended)
        answer = {"success": True, "message": "Account configured successfully", "account": _shown(account)}
        return web.json_response(answer)

    return end


def _name(given: str) -> str:
    """As aimux takes one. Raises Failed."""
    name = re.sub(r"[^A-Za-z0-9._@+-]+", "-", given).strip("-._@+")[:64]
    if not name:
        raise Failed(400, "invalid_request_error", "An account's name needs a letter or digit.")
    return name


def _shown(account: dict[str, Any]) -> dict[str, Any]:
    """One account as it was shown there. When it was made is not known here."""
    return {
        "id": account["name"],
        "name": account["name"],
        "organization_uuid": account["organization"] or "",
        "expires_at": account["expires_at"] or "",
        "status": _STATUS[account["status"]],
        "last_refresh_error": account["reason"] if account["status"] == "parked" else "",
    } | ({"rate_limited_until": account["until"]} if account["until"] else {})
