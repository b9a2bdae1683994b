"""What both authorization servers share: the consent page, and single-use codes that are bound to PKCE.

Nobody has to click: `consent` is `approve` or `deny` for tests and headless demos; `ask` shows a page with buttons.
"""

from __future__ import annotations

import base64
import hashlib
import html
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlencode

from yarl import URL

from aimux.simulator.accounts import SCOPES, Account, Vendor, stable
from aimux.simulator.answers import SimulatedAnswer, html_answer
from aimux.simulator.scenarios import Script

if TYPE_CHECKING:
    from aimux.simulator.answers import Call
    from aimux.simulator.tokens import TokenStore

CODE_LIFETIME = 600.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class RefusedLogin(Exception):
    """An authorization request or a code is not good; the text says why, for a person."""


@dataclass(slots=True)
class Grant:
    """What a code stands for until it is exchanged, once."""

    account: Account
    client_id: str
    redirect_uri: str
    scope: str
    challenge: str
    state: str
    expires_at: float


@dataclass(slots=True)
class Consent:
    """What happens on the consent page: `account` signs in (None: the vendor's first one that can)."""

    mode: Literal["approve", "deny", "ask"] = "approve"
    account: str | None = None


class Accounts(Protocol):
    """What the servers need of the simulator's accounts."""

    def __call__(self, vendor: Vendor) -> list[Account]: ...


@dataclass(slots=True)
class CodeStore:
    """Codes that were handed out and not yet used."""

    tokens: TokenStore
    grants: dict[str, Grant] = field(default_factory=dict)
    issued: int = 0

    def issue(self, grant: Grant) -> str:
        self.issued += 1
        code = f"ac_simulator-{stable(grant.account.name, grant.challenge, self.issued)[:40]}"
        self.grants[code] = grant
        return code

    def redeem(self, code: str, *, client_id: str, redirect_uri: str, verifier: str) -> Grant:
        """The grant of a code, which is then used up, even if the rest is wrong. Raises RefusedLogin."""
        grant = self.grants.pop(code, None)
        if grant is None:
            raise RefusedLogin("the code is unknown or was used already")
        if grant.expires_at <= self.tokens.clock():
            raise RefusedLogin("the code has expired")
        if grant.client_id != client_id or grant.redirect_uri != redirect_uri:
            raise RefusedLogin("the code was issued to another client or redirect_uri")
        if challenge(verifier) != grant.challenge:
            raise RefusedLogin("code_verifier does not match the code_challenge")
        return grant


class OAuthServer(ABC):
    """Base of both servers. `script` decides about token requests that name no account; accounts have their own."""

    vendor: Vendor
    required = ("client_id", "redirect_uri", "state", "code_challenge")

    def __init__(self, tokens: TokenStore, accounts: Accounts) -> None:
        self.tokens = tokens
        self.codes = CodeStore(tokens)
        self.consent = Consent()
        self.script = Script()
        self._accounts = accounts

    def script_of(self, call: Call) -> Script | None:
        """The script of the account that a token request is about."""
        owner = self.tokens.owner(str(call.json.get("refresh_token") or call.form.get("refresh_token", "")))
        return owner.on_refresh if owner else None

    def authenticate(self, call: Call) -> SimulatedAnswer | None:
        """Nothing here needs a credential."""
        return None

    @abstractmethod
    def fault(self, call: Call, status: int) -> SimulatedAnswer:
        """The server's own error of this status."""

    @abstractmethod
    def respond(self, call: Call) -> SimulatedAnswer:
        """Answer a request to any of the endpoints."""

    @abstractmethod
    def redirect_allowed(self, url: URL, origin: str) -> bool:
        """Whether the vendor's client is registered with this redirect_uri."""

    def sign_in(self, wanted: str | None = None) -> Account:
        """The account that signs in. Raises RefusedLogin if none can."""
        wanted = wanted or self.consent.account
        for account in self._accounts(self.vendor):
            if account.kind != "api_key" and wanted in {None, account.name}:
                return account
        raise RefusedLogin(f"there is no account {wanted or 'with a login'} in the simulator")

    def authorize(self, call: Call) -> SimulatedAnswer:
        """GET and POST of the authorization endpoint."""
        params = call.params
        try:
            self._check_request(call)
        except RefusedLogin as refused:
            # Never redirect to a URI that an invalid request gives.
            return html_answer(400, "Invalid authorization request", f"<p>{html.escape(str(refused))}</p>")
        decision: str = self.consent.mode
        chosen: str | None = None
        if decision == "ask":
            if call.method != "POST":
                return self._page(call)
            decision, chosen = call.form.get("decision", "deny"), call.form.get("account")
        if decision != "approve":
            return self._redirect(call, {"error": "access_denied", "state": params["state"]})
        try:
            account = self.sign_in(chosen)
        except RefusedLogin as refused:
            return html_answer(400, "Nobody can sign in", f"<p>{html.escape(str(refused))}</p>")
        code = self.codes.issue(
            Grant(
                account,
                params["client_id"],
                params["redirect_uri"],
                params.get("scope") or SCOPES[self.vendor],
                params["code_challenge"],
                params["state"],
                call.now + CODE_LIFETIME,
            )
        )
        return self._redirect(call, {"code": code, "state": params["state"]})

    def _check_request(self, call: Call) -> None:
        params = call.params
        for name in self.required:
            if not params.get(name):
                raise RefusedLogin(f"{name} is missing")
        if params.get("response_type") != "code":
            raise RefusedLogin("response_type must be code")
        if params.get("code_challenge_method") != "S256":
            raise RefusedLogin("code_challenge_method must be S256")
        if not self.redirect_allowed(URL(params["redirect_uri"]), call.origin):
            raise RefusedLogin("redirect_uri is not registered for this client")

    def _redirect(self, call: Call, query: dict[str, str]) -> SimulatedAnswer:
        target = call.params["redirect_uri"]
        separator = "&" if "?" in target else "?"
        return SimulatedAnswer(302, [("location", f"{target}{separator}{urlencode(query)}")])

    def _page(self, call: Call) -> SimulatedAnswer:
        choices = "".join(
            f'<option value="{html.escape(a.name)}">{html.escape(a.email)} ({html.escape(a.plan)})</option>'
            for a in self._accounts(self.vendor)
            if a.kind != "api_key"
        )
        client = html.escape(call.params["client_id"])
        form = (
            f"<p>The application <code>{client}</code> asks for access to a simulated {self.vendor} account.</p>"
            f'<form method="post"><select name="account">{choices}</select> '
            '<button name="decision" value="approve">Authorize</button> '
            '<button name="decision" value="deny">Decline</button></form>'
        )
        return html_answer(200, "Sign in to the simulator", form)


def challenge(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
