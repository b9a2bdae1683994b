"""platform.claude.com's OAuth: authorization, the page with the code to paste, JSON token endpoint, setup tokens."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from aimux.simulator.answers import SimulatedAnswer, edge_answer, html_answer, json_answer
from aimux.simulator.oauth import LOOPBACK, OAuthServer, RefusedLogin
from aimux.simulator.tokens import Issued, RefusedToken

if TYPE_CHECKING:
    from yarl import URL

    from aimux.simulator.accounts import Vendor
    from aimux.simulator.answers import Call

CALLBACK = "/oauth/code/callback"
REAL_CALLBACK = "https://platform.claude.com/oauth/code/callback"


class AnthropicOAuth(OAuthServer):
    vendor: Vendor = "anthropic"

    def redirect_allowed(self, url: URL, origin: str) -> bool:
        if str(url) in {REAL_CALLBACK, f"{origin}/oauth/anthropic{CALLBACK}"}:
            return True
        return url.scheme == "http" and url.host in LOOPBACK and url.path == "/callback"

    def fault(self, call: Call, status: int) -> SimulatedAnswer:
        if status in {404, 502, 504}:
            return edge_answer(status)
        if status in {400, 401, 403}:
            return _invalid_grant("Refresh token not found or invalid", status)
        kind = "rate_limit_error" if status == 429 else "api_error"
        error = {"type": "error", "error": {"type": kind, "message": f"Simulated error {status}"}}
        return json_answer(status, error, [("retry-after", f"{call.scenario.seconds or 1:g}")])

    def respond(self, call: Call) -> SimulatedAnswer:
        match call.method, call.path:
            case ("GET" | "POST", "/oauth/authorize" | "/cai/oauth/authorize"):
                return self.authorize(call)
            case ("GET", "/oauth/code/callback"):
                return self._paste_page(call)
            case ("POST", "/v1/oauth/token"):
                return self._token(call)
        return edge_answer(404)

    def _paste_page(self, call: Call) -> SimulatedAnswer:
        """What the person copies: the code and the state, joined by `#`."""
        pasted = f"{call.params.get('code', '')}#{call.params.get('state', '')}"
        return html_answer(
            200, "Authentication code", f'<p>Paste this: <code id="code">{html.escape(pasted)}</code></p>'
        )

    def _token(self, call: Call) -> SimulatedAnswer:
        request = call.json
        if call.content_type() != "application/json" or not request:
            return _malformed()
        match request.get("grant_type"):
            case "authorization_code":
                return self._exchange({name: str(value) for name, value in request.items()})
            case "refresh_token":
                return self._refresh(call, {name: str(value) for name, value in request.items()})
        error = {"error": "unsupported_grant_type", "error_description": "Unsupported grant_type"}
        return json_answer(400, error)

    def _exchange(self, request: dict[str, str]) -> SimulatedAnswer:
        wanted = ("code", "redirect_uri", "client_id", "code_verifier", "state")
        if any(not request.get(name) for name in wanted):
            return _malformed()
        try:
            grant = self.codes.redeem(
                request["code"],
                client_id=request["client_id"],
                redirect_uri=request["redirect_uri"],
                verifier=request["code_verifier"],
            )
        except RefusedLogin:
            return _invalid_grant("Invalid 'code' in request.")
        if grant.state != request["state"]:
            return _invalid_grant("Invalid 'state' in request.")
        return _issued(self.tokens.login(grant.account, grant.client_id, grant.scope))

    def _refresh(self, call: Call, request: dict[str, str]) -> SimulatedAnswer:
        try:
            family = self.tokens.family_of(request.get("refresh_token", ""), request.get("client_id", ""))
        except RefusedToken as refused:
            expired = refused.reason == "expired"
            return _invalid_grant("Refresh token expired" if expired else "Refresh token not found or invalid")
        if not set(request.get("scope", "").split()) <= set(family.scope.split()):
            error = {"error": "invalid_scope", "error_description": "The requested scope is invalid or not granted."}
            return json_answer(400, error)
        call.account = family.account
        return _issued(self.tokens.renew(family, rotate=call.scenario.rotate))


def _issued(issued: Issued) -> SimulatedAnswer:
    account = issued.family.account
    body: dict[str, object] = {
        "token_type": "Bearer",
        "access_token": issued.access_token,
        "expires_in": round(issued.expires_in),
        "scope": issued.family.scope,
        "organization": {"uuid": account.organization, "name": f"{account.name}'s Organization"},
        "account": {"uuid": account.account_id, "email_address": account.email},
    }
    if issued.refresh_token is not None:
        body["refresh_token"] = issued.refresh_token
    return json_answer(200, body)


def _invalid_grant(description: str, status: int = 400) -> SimulatedAnswer:
    return json_answer(status, {"error": "invalid_grant", "error_description": description})


def _malformed() -> SimulatedAnswer:
    error = {"type": "invalid_request_error", "message": "Invalid request format"}
    return json_answer(400, {"type": "error", "error": error})
