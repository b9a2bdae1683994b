"""Link.Assistant.Router: tokens for an administrator, signed as it signed them (`auth.jwt` with its TOKEN_SECRET)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from aimux_compat.answers import Failed, ask, given, text, told

if TYPE_CHECKING:
    from aimux.plugin import Api

USUAL_HOURS = 24


def tokens(api: Api) -> list[web.RouteDef]:
    @told
    async def issue(request: web.Request) -> web.Response:
        body = await given(request)
        hours, label = body.get("ttl_hours", USUAL_HOURS), text(body, "label", default="")
        if not isinstance(hours, int) or isinstance(hours, bool) or hours < 1:
            raise Failed(400, "invalid_request_error", "`ttl_hours` is not a whole number of hours.")
        if body.get("account") is not None:
            message = "A token is bound to accounts by its user's groups here: leave `account` out."
            raise Failed(400, "invalid_request_error", message)
        issued = await ask(api, "POST", "/tokens/signed", {"label": label, "ttl": f"{hours}h"})
        answer = {"token": issued["token"], "ttl_hours": hours, "label": label, "account": None}
        return web.json_response(answer)

    @told
    async def revoke(request: web.Request) -> web.Response:
        subject = text(await given(request), "id")
        await ask(api, "POST", "/revocations", {"subject": subject})
        return web.json_response({"revoked": subject})

    return [web.post("", issue), web.post("/revoke", revoke)]
