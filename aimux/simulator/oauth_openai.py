"""auth.openai.com: authorization, tokens (a form to exchange, JSON or a form to refresh), revocation, device flow."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimux.simulator.accounts import SCOPES, Account, Vendor, stable
from aimux.simulator.answers import SimulatedAnswer, edge_answer, html_answer, json_answer
from aimux.simulator.oauth import CODE_LIFETIME, LOOPBACK, Accounts, Grant, OAuthServer, RefusedLogin, challenge
from aimux.simulator.tokens import Issued, RefusedToken

if TYPE_CHECKING:
    from yarl import URL

    from aimux.simulator.answers import Call
    from aimux.simulator.tokens import TokenStore

DEVICE_CALLBACK = "/deviceauth/callback"
DEVICE_LIFETIME = 900.0
REFUSALS = {
    "reused": "Your refresh token has already been used to generate a new access token. Please try signing in again.",
    "expired": "Your refresh token has expired. Please try signing in again.",
    "invalidated": "Your session has ended. Please log in again.",
}


@dataclass(slots=True)
class Device:
    """A device flow under way. `account` is who approved it, `denied` that somebody said no."""

    client_id: str
    user_code: str
    verifier: str
    expires_at: float
    account: Account | None = None
    denied: bool = False


class OpenAIOAuth(OAuthServer):
    """`consent` holds for device codes too: with `ask` they are pending until the page, or `decide_device`, is used."""

    vendor: Vendor = "openai"

    def __init__(self, tokens: TokenStore, accounts: Accounts) -> None:
        super().__init__(tokens, accounts)
        self.device_interval = 5
        """Seconds between two polls, as the server asks for them."""
        self.devices: dict[str, Device] = {}
        """By `device_auth_id`."""

    def redirect_allowed(self, url: URL, origin: str) -> bool:
        return url.scheme == "http" and url.host in LOOPBACK and url.path == "/auth/callback"

    def fault(self, call: Call, status: int) -> SimulatedAnswer:
        if status in {404, 502, 504}:
            return edge_answer(status)
        if status in {400, 401}:
            return _refusal(call.scenario.detail or "invalidated", status)
        error = {"message": f"Simulated error {status}", "type": "server_error", "param": None, "code": None}
        return json_answer(status, {"error": error}, [("retry-after", f"{call.scenario.seconds or 1:g}")])

    def respond(self, call: Call) -> SimulatedAnswer:
        match call.method, call.path:
            case ("GET" | "POST", "/oauth/authorize"):
                return self.authorize(call)
            case ("POST", "/oauth/token"):
                return self._token(call)
            case ("POST", "/oauth/revoke"):
                self.tokens.revoke(str(_fields(call).get("token", "")))
                return json_answer(200, {})
            case ("POST", "/api/accounts/deviceauth/usercode"):
                return self._device_start(call)
            case ("POST", "/api/accounts/deviceauth/token"):
                return self.device_poll(call)
            case ("GET" | "POST", "/codex/device"):
                return self._device_page(call)
        return edge_answer(404)

    # --- tokens ------------------------------------------------------------------------------------------------------

    def _token(self, call: Call) -> SimulatedAnswer:
        fields = _fields(call)
        match fields.get("grant_type"):
            case "authorization_code":
                if call.content_type() != "application/x-www-form-urlencoded":
                    return _error(400, "invalid_request_error", "The request must be form-encoded.")
                return self._exchange(fields)
            case "refresh_token":
                return self._refresh(call, fields)
        return _error(400, "unsupported_grant_type", "Unsupported grant_type.")

    def _exchange(self, fields: dict[str, str]) -> SimulatedAnswer:
        try:
            grant = self.codes.redeem(
                fields.get("code", ""),
                client_id=fields.get("client_id", ""),
                redirect_uri=fields.get("redirect_uri", ""),
                verifier=fields.get("code_verifier", ""),
            )
        except RefusedLogin as refused:
            return _error(400, "token_exchange_user_error", f"Could not exchange the code: {refused}.")
        return _issued(self.tokens.login(grant.account, grant.client_id, grant.scope))

    def _refresh(self, call: Call, fields: dict[str, str]) -> SimulatedAnswer:
        try:
            family = self.tokens.family_of(fields.get("refresh_token", ""), fields.get("client_id", ""))
        except RefusedToken as refused:
            return _refusal(refused.reason if refused.reason in REFUSALS else "invalidated")
        call.account = family.account
        return _issued(self.tokens.renew(family, rotate=call.scenario.rotate))

    # --- device flow -------------------------------------------------------------------------------------------------

    def _device_start(self, call: Call) -> SimulatedAnswer:
        client_id = str(call.json.get("client_id", ""))
        if not client_id:
            return _error(400, "invalid_request_error", "client_id is missing.")
        serial = stable("device", call.number)
        device = Device(
            client_id, f"{serial[:4]}-{serial[4:9]}".upper(), f"simulator-{serial}", call.now + DEVICE_LIFETIME
        )
        device_auth_id = f"deviceauth_simulator-{serial[-32:]}"
        self.devices[device_auth_id] = device
        body = {
            "device_auth_id": device_auth_id,
            "user_code": device.user_code,
            "interval": str(self.device_interval),
        }
        return json_answer(200, body)

    def decide_device(self, user_code: str, *, approve: bool = True, account: str | None = None) -> None:
        """What the person does on the page. Raises RefusedLogin for a wrong code."""
        for device in self.devices.values():
            if device.user_code == user_code.strip().upper():
                device.denied = not approve
                device.account = self.sign_in(account) if approve else None
                return
        raise RefusedLogin("that code is unknown")

    def device_poll(self, call: Call) -> SimulatedAnswer:
        device_auth_id = str(call.json.get("device_auth_id", ""))
        device = self.devices.get(device_auth_id)
        if device is None or device.user_code != call.json.get("user_code") or device.expires_at <= call.now:
            return _error(404, "deviceauth_not_found", "Device authorization is unknown or has expired.")
        if self.consent.mode != "ask" and device.account is None:
            self.decide_device(device.user_code, approve=self.consent.mode == "approve")
        if device.denied:
            return _error(400, "deviceauth_denied", "Device authorization was denied.")
        if device.account is None:
            return _error(403, "deviceauth_authorization_unknown", "Device authorization is unknown. Please try again.")
        del self.devices[device_auth_id]
        code = self.codes.issue(
            Grant(
                device.account,
                device.client_id,
                f"{call.origin}/oauth/openai{DEVICE_CALLBACK}",
                SCOPES["openai"],
                challenge(device.verifier),
                "",
                call.now + CODE_LIFETIME,
            )
        )
        body = {
            "authorization_code": code,
            "code_challenge": challenge(device.verifier),
            "code_verifier": device.verifier,
        }
        return json_answer(200, body)

    def _device_page(self, call: Call) -> SimulatedAnswer:
        note = ""
        if call.method == "POST":
            try:
                approve = call.form.get("decision") == "approve"
                self.decide_device(call.form.get("user_code", ""), approve=approve, account=call.form.get("account"))
                note = "<p>Done: go back to your terminal.</p>"
            except RefusedLogin as refused:
                note = f"<p>{html.escape(str(refused))}</p>"
        form = (
            '<form method="post"><input name="user_code" placeholder="XXXX-XXXXX"> '
            '<button name="decision" value="approve">Authorize</button> '
            '<button name="decision" value="deny">Decline</button></form>'
        )
        return html_answer(200, "Enter the code of your device", note + form)


def _fields(call: Call) -> dict[str, str]:
    if call.content_type() == "application/json":
        return {name: str(value) for name, value in call.json.items()}
    return call.form


def _issued(issued: Issued) -> SimulatedAnswer:
    """No account id: that is in the tokens' claims alone."""
    body: dict[str, object] = {
        "token_type": "Bearer",
        "access_token": issued.access_token,
        "id_token": issued.id_token,
        "expires_in": round(issued.expires_in),
        "scope": issued.family.scope,
    }
    if issued.refresh_token is not None:
        body["refresh_token"] = issued.refresh_token
    return json_answer(200, body)


def _refusal(reason: str, status: int = 401) -> SimulatedAnswer:
    return _error(status, f"refresh_token_{reason}", REFUSALS.get(reason, REFUSALS["invalidated"]))


def _error(status: int, code: str, message: str) -> SimulatedAnswer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return json_answer(status, {"error": error})
