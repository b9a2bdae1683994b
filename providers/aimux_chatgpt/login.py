"""ChatGPT's OAuth: the browser flow, the device flow, and renewal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from yarl import URL

from aimux.plugin import DeviceCode, HttpUnavailable, LoginError, number
from aimux.plugin.oauth import PERMANENT, redeem, renew

if TYPE_CHECKING:
    from aimux.plugin import Http
    from aimux_chatgpt.settings import ChatGPTSettings

_PERMANENT = PERMANENT | {
    "refresh_token_expired",
    "refresh_token_reused",
    "refresh_token_invalidated",
    "invalid_refresh_token",
    "app_session_expired",
    "app_session_terminated",
    "token_expired",
}
"""With 400 as well as 401. The session's end is that of its refresh token (openai/codex#27351)."""
_DEVICE_SECONDS = 15 * 60.0


class OAuthClient:
    """Speaks to the authorization server of the settings. `instance` is the provider's name in the configuration."""

    def __init__(self, settings: ChatGPTSettings, instance: str) -> None:
        self._settings = settings
        self._instance = instance
        self.command = f"aimux login {instance}"

    async def renew(self, refresh_token: str, http: Http) -> dict[str, Any]:
        """The token endpoint's answer. Raises RefreshRejected, RefreshUnavailable."""
        request = {
            "client_id": self._settings.client_id,
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
        }
        return await renew(
            http,
            self._settings.tokens_at,
            instance=self._instance,
            json=request,
            permanent=_PERMANENT,
            permanent_statuses=frozenset({401}),
        )

    def redirect_uri(self, port: int) -> str:
        """The registered URI; a pasted address comes from the same page, which then fails to load."""
        return str(URL(self._settings.redirect_url).with_port(port)) if port else self._settings.redirect_url

    def authorization_url(self, redirect_uri: str, state: str, challenge: str) -> str:
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "id_token_add_organizations": "true",
            "codex_cli_simplified_flow": "true",
            "state": state,
        }
        return f"{self._settings.sign_in_at}?{urlencode(query)}"

    async def exchange(self, http: Http, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._settings.client_id,
            "code_verifier": verifier,
        }
        return await redeem(http, self._settings.tokens_at, instance=self._instance, form=form)

    async def device_start(self, http: Http) -> DeviceCode:
        url = f"{self._settings.issuer}/api/accounts/deviceauth/usercode"
        try:
            answer = await http.request("POST", url, json={"client_id": self._settings.client_id})
        except HttpUnavailable as error:
            raise LoginError(str(error)) from None
        started = answer.json()
        device, user_code = started.get("device_auth_id"), started.get("user_code") or started.get("usercode")
        if answer.status != 200 or not isinstance(device, str) or not isinstance(user_code, str):
            raise LoginError(
                f"the device flow could not be started (the server answered {answer.status}); use the browser instead"
            )
        return DeviceCode(
            verification_url=f"{self._settings.issuer}/codex/device",
            user_code=user_code,
            interval=number(started.get("interval")) or 5.0,
            expires_in=_DEVICE_SECONDS,
            secret=json.dumps({"device_auth_id": device, "user_code": user_code}),
        )

    async def device_poll(self, http: Http, device: DeviceCode) -> dict[str, Any] | None:
        """The exchanged tokens, or None while the person has not confirmed (or the server is out of sorts)."""
        url = f"{self._settings.issuer}/api/accounts/deviceauth/token"
        try:
            answer = await http.request("POST", url, json=json.loads(device.secret))
        except HttpUnavailable:
            return None
        if answer.status in {403, 404, 429} or answer.status >= 500:
            return None
        granted = answer.json()
        code, verifier = granted.get("authorization_code"), granted.get("code_verifier")
        if answer.status != 200 or not isinstance(code, str) or not isinstance(verifier, str):
            raise LoginError(f"the device flow ended with status {answer.status}; start again")
        return await self.exchange(http, code, verifier, f"{self._settings.issuer}/deviceauth/callback")
