"""claude-code-mux: its OAuth API. `provider_id` there is an account's name here.

The PKCE verifier stays with aimux. What is called `verifier` in these answers is the login's state.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aimux_compat.answers import Failed, ask, every_account, given, text, told

if TYPE_CHECKING:
    from aimux.plugin import Api

PROVIDERS = {"max": "claude", "console": "claude", "openai-codex": "chatgpt"}
"""`oauth_type` → provider."""
_INSTRUCTIONS = "Open the URL and sign in. You get a code: paste it in the next step."


def authorize(api: Api) -> list[web.RouteDef]:
    @told
    async def begin(request: web.Request) -> web.Response:
        kind = text(await given(request), "oauth_type", default="max")
        begun = await ask(api, "POST", f"/oauth/{_provider(kind)}/authorize", {})
        answer = {"url": begun["authorization_url"], "verifier": begun["state"], "instructions": _INSTRUCTIONS}
        return web.json_response(answer)

    return [web.post("", begin)]


def exchange(api: Api) -> list[web.RouteDef]:
    @told
    async def end(request: web.Request) -> web.Response:
        body = await given(request)
        name, code, state = (text(body, field) for field in ("provider_id", "code", "verifier"))
        guessed = "openai-codex" if any(word in name.lower() for word in ("openai", "codex", "chatgpt")) else "max"
        provider = _provider(text(body, "oauth_type", default=guessed))
        ended = {"code": code, "state": state, "account": name, "replace": True}
        account = await ask(api, "POST", f"/oauth/{provider}/exchange", ended)
        message = "OAuth authentication successful! Token saved."
        return web.json_response(
            {"success": True, "message": message, "provider_id": name, "expires_at": account["expires_at"] or ""}
        )

    return [web.post("", end)]


def callback(_api: Api) -> list[web.RouteDef]:
    @told
    async def show(request: web.Request) -> web.Response:
        if error := request.query.get("error"):
            raise Failed(400, "oauth_error", f"The sign-in failed: {error[:100]}")
        return web.Response(text=request.query.get("code", "No code received"))

    return [web.get("", show)]


def tokens(api: Api) -> list[web.RouteDef]:
    @told
    async def every(_request: web.Request) -> web.Response:
        found = [one for provider in dict.fromkeys(PROVIDERS.values()) for one in await _accounts(api, provider)]
        return web.json_response([_shown(one) for one in found if one["kind"] == "oauth"])

    @told
    async def delete(request: web.Request) -> web.Response:
        name = text(await given(request), "provider_id")
        await ask(api, "DELETE", f"/accounts/{await _full_name(api, name)}")
        return web.json_response({"success": True, "message": f"Token for '{name}' deleted"})

    @told
    async def refresh(request: web.Request) -> web.Response:
        name = text(await given(request), "provider_id")
        account = await ask(api, "POST", f"/accounts/{await _full_name(api, name)}/refresh")
        message = "Token refreshed successfully"
        return web.json_response(
            {"success": True, "message": message, "provider_id": name, "expires_at": account["expires_at"] or ""}
        )

    return [web.get("", every), web.post("/delete", delete), web.post("/refresh", refresh)]


def _provider(kind: str) -> str:
    if kind not in PROVIDERS:
        raise Failed(400, "invalid_request_error", f"`oauth_type` is one of {', '.join(PROVIDERS)} here.")
    return PROVIDERS[kind]


async def _accounts(api: Api, provider: str) -> list[dict[str, Any]]:
    """A provider's accounts: an empty list if it is not served."""
    try:
        return await every_account(api, provider)
    except Failed as failed:
        if failed.status == 404:
            return []
        raise


async def _full_name(api: Api, name: str) -> str:
    """Raises Failed if no account has that name."""
    for provider in dict.fromkeys(PROVIDERS.values()):
        if any(one["name"] == name for one in await _accounts(api, provider)):
            return f"{provider}/{name}"
    raise Failed(404, "not_found_error", f"There is no account {name!r}.")


def _shown(account: dict[str, Any]) -> dict[str, Any]:
    ends = datetime.fromisoformat(account["expires_at"]) if account["expires_at"] else None
    left = (ends - datetime.now(UTC)).total_seconds() if ends is not None else None
    return {
        "provider_id": account["name"],
        "expires_at": account["expires_at"] or "",
        "is_expired": left is not None and left <= 0,
        "needs_refresh": left is not None and left <= 300,
    }
