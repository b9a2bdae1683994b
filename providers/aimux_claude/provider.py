"""The provider itself: credentials, login, and the way of a request to Anthropic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode

from multidict import CIMultiDict

from aimux.plugin import (
    Credential,
    ErrorAnswer,
    ErrorKind,
    GatewayError,
    Hints,
    LimitWindow,
    LoginError,
    Meter,
    Provider,
    ProviderSettings,
    RefreshRejected,
    RequestHead,
    RequestRefused,
    Upstream,
    Verdict,
    plain_path,
)
from aimux.plugin.formats import anthropic, anthropic_limits, openai
from aimux.plugin.oauth import redeem, renew
from aimux_claude import credentials, limits
from aimux_claude.settings import ClaudeSettings
from aimux_claude.words import LOGIN_WORDS

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence

    from aimux.plugin import Body, Headers, Http, LimitState

BETA = "anthropic-beta"
OAUTH_BETA = "oauth-2025-04-20"
_EVERY_KEYS = frozenset(
    {"messages", "complete", "models", "files", "skills", "user_profiles"}
    | {"agents", "deployments", "deployment_runs", "dreams", "environments", "memory_stores", "sessions", "vaults"}
)
"""What lies below `/v1` for every key of the API. An account with a key passes everything but …"""
_ORGANIZATION = ("organizations", "compliance")
"""… what a personal or a service account's key opens besides: its organization's people, keys and bills."""
_CLOUD, _AGENTS = frozenset({"environments", "sessions"}), "managed-agents-"
_NO_LOGIN_HELPS = {
    "account_on_hold": "look at https://claude.ai/restricted; when it is over, renew the login: aimux accounts refresh"
}
_DROP_KEY = frozenset({"x-api-key"})
_DROP_BEARER = frozenset({"authorization"})
_DROP_BEARER_AND_BETA = frozenset({"authorization", BETA})


class Claude(Provider):
    name = "claude"
    Settings: ClassVar[type[ProviderSettings]] = ClaudeSettings
    settings: ClaudeSettings
    credential_file = ".credentials.json"
    login_flows = frozenset({"loopback", "paste"})
    login_words = LOGIN_WORDS
    hidden_headers = frozenset({"anthropic-organization-id"})
    wire_format = "anthropic"
    price_list = "anthropic"
    limit_header_prefix = anthropic_limits.PREFIX

    # --- credentials -------------------------------------------------------------------------------------------------

    def parse_credential(self, raw: bytes) -> Credential:
        return credentials.parse(raw)

    async def refresh(self, raw: bytes, http: Http) -> bytes:
        credential = credentials.parse(raw)
        if credential.refresh_token is None:
            remedy = f"make a new token with `claude setup-token`, or log in: {self._login}"
            raise RefreshRejected("this credential has no refresh token", remedy=remedy)
        request = {
            "grant_type": "refresh_token",
            "refresh_token": credential.refresh_token,
            "client_id": self.settings.client_id,
        }
        if credential.scopes:
            request["scope"] = " ".join(credential.scopes)
        answer = await renew(
            http, self.settings.token_url, instance=self.instance, json=request, remedies=_NO_LOGIN_HELPS
        )
        return credentials.renewed(raw, answer)

    client_advice = "In Claude Code put it into ANTHROPIC_AUTH_TOKEN and start it anew; /login does not help here."

    def vendor_token_advice(self, token: str) -> str | None:
        if not token.startswith("sk-ant-"):
            return None
        what = "an Anthropic API key" if token.startswith(credentials.API_KEY) else "Claude's own login token"
        return (
            f"You sent {what}, not an aimux token. Set ANTHROPIC_AUTH_TOKEN to the token that aimux gave you "
            "(while it is unset, Claude Code sends its own login); unset ANTHROPIC_API_KEY and CLAUDE_CODE_OAUTH_TOKEN."
        )

    def own_credential(self, headers: Headers) -> Credential | None:
        credential = super().own_credential(headers)
        return credentials.brought_along(credential.secret) if credential is not None else None

    # --- login -------------------------------------------------------------------------------------------------------

    def redirect_uri(self, flow: str, port: int) -> str:
        return f"http://localhost:{port}/callback" if flow == "loopback" else self.settings.redirect_url

    def authorization_url(self, *, redirect_uri: str, state: str, challenge: str) -> str:
        query = {
            "code": "true",
            "client_id": self.settings.client_id,
            "response_type": "code",
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": state,
        }
        return f"{self.settings.authorize_url}?{urlencode(query)}"

    async def exchange(self, http: Http, *, code: str, state: str, verifier: str, redirect_uri: str) -> bytes:
        request = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self.settings.client_id,
            "code_verifier": verifier,
            "state": state,
        }
        answer = await redeem(http, self.settings.token_url, instance=self.instance, json=request)
        return credentials.from_login(answer, self.settings.scopes)

    def setup_token_file(self, token: str) -> bytes:
        token = "".join(token.split())  # a terminal breaks it into lines
        if not token.startswith(credentials.SETUP_TOKEN):
            kind = "is an API key: use --api-key" if token.startswith(credentials.API_KEY) else "is none"
            raise LoginError(f"a setup token begins with {credentials.SETUP_TOKEN}; this {kind}")
        return credentials.from_setup_token(token)

    def vendor_logins(self, environ: Mapping[str, str], home: Path) -> list[Path]:
        # The first keeps the login alone, whatever the second says.
        named = (environ.get("CLAUDE_SECURESTORAGE_CONFIG_DIR"), environ.get("CLAUDE_CONFIG_DIR"))
        folders = [Path(folder) for folder in named if folder]
        names = (".credentials.json", "credentials.json", "auth.json", "oauth.json", "config.json")
        return [place / name for place in (*folders, home / ".claude") for name in names]

    @property
    def _login(self) -> str:
        return f"aimux login {self.instance}"

    # --- a request ---------------------------------------------------------------------------------------------------

    def prepare(self, request: RequestHead, credential: Credential) -> Upstream:
        # 1.6 µs for an OAuth account and Claude Code's headers.
        target, headers = request.target, request.headers
        oauth = credential.kind == "oauth"
        if not target.startswith("/v1/messages"):
            target = anthropic.versioned(target)
            _refuse_the_accounts_own(request, target, oauth=oauth)
        betas = headers.getall(BETA, None)
        if oauth:
            changed = {"authorization": "Bearer " + credential.secret}
            if betas is None:
                changed[BETA] = OAUTH_BETA
            elif not _names(betas, OAUTH_BETA):
                # An SDK with `betas=[]` sends an empty value, and an empty name among others is refused.
                named = [line for line in [line.strip(" ,\t") for line in betas] if line]
                changed[BETA] = ",".join([*named, OAUTH_BETA])
            return Upstream(self.settings.base_url, target, changed, _DROP_KEY)
        changed = {"x-api-key": credential.secret}
        if betas is None or not _names(betas, OAUTH_BETA):
            return Upstream(self.settings.base_url, target, changed, _DROP_BEARER)
        kept = [beta for beta in _listed(betas) if beta != OAUTH_BETA]
        if kept:
            changed[BETA] = ",".join(kept)
            return Upstream(self.settings.base_url, target, changed, _DROP_BEARER)
        return Upstream(self.settings.base_url, target, changed, _DROP_BEARER_AND_BETA)

    def list_models(self, request: RequestHead, answer: bytes, names: Mapping[str, str]) -> bytes | None:
        return anthropic.list_models(request, answer, names)

    def conversation_key(self, request: RequestHead, body: Body) -> str | None:
        return anthropic.conversation_key(request, body)

    def hints(self, request: RequestHead) -> Hints:
        # With CLAUDE_CODE_GATEWAY_HINT_HEADERS=1 the class, the agents' ids always.
        headers = request.headers
        return Hints(
            headers.get("x-claude-code-request-class", ""),
            headers.get("x-claude-code-agent-id", ""),
            headers.get("x-claude-code-parent-agent-id", ""),
        )

    def speaks(self, path: str) -> bool:
        return anthropic.speaks(path)

    def base_url_advice(self, base: str) -> str:
        return anthropic.base_url_advice(base)

    def refers_to(self, request: RequestHead, body: Body) -> tuple[str, ...]:
        return anthropic.refers_to(request, body)

    replayed_ids = "msg_"  # of message threads, which end after five minutes, and earlier where Anthropic wants it

    def own_addresses(self, request: RequestHead) -> re.Pattern[bytes] | None:
        return anthropic.own_addresses(request)

    def cheapest_request(self, credential: Credential) -> tuple[RequestHead, bytes]:
        return RequestHead("GET", "/v1/models?limit=1", CIMultiDict({"anthropic-version": "2023-06-01"})), b""

    # --- an answer ---------------------------------------------------------------------------------------------------

    def classify(self, status: int, headers: Headers, body: bytes, *, model: str = "") -> Verdict:
        return limits.classify(status, headers, body, model=model, login=self._login)

    def opening(self, headers: Headers, payload: bytes, *, model: str = "") -> Verdict | None:
        return anthropic.opening(payload)

    def limits(self, headers: Headers) -> tuple[LimitWindow, ...]:
        return limits.windows(headers)

    def extra_usage(self, headers: Headers) -> bool:
        return limits.is_paid(headers)

    def meter(self, request: RequestHead, status: int, headers: Headers) -> Meter | None:
        meter = anthropic.meter(request, status, headers)
        if (meter is None or not meter.consumes) and plain_path(request.path).lower().endswith("/chat/completions"):
            return openai.meter(request, status, headers)  # a key opens Anthropic's layer for OpenAI's SDKs, too
        return meter

    # --- aimux's own limits ------------------------------------------------------------------------------------------

    def counts(self, request: RequestHead) -> bool:
        return anthropic_limits.counts(request)

    def limit_headers(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> Mapping[str, str]:
        return anthropic_limits.headers(limits, windows)

    def asks_usage(self, request: RequestHead) -> bool:
        return anthropic_limits.asks_usage(request)

    def usage(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
        return anthropic_limits.usage(limits, windows)

    # --- aimux's own errors ------------------------------------------------------------------------------------------

    def error(self, error: GatewayError) -> ErrorAnswer:
        return anthropic.error(error)

    def stream_error(self, error: GatewayError, request: RequestHead) -> bytes:
        return anthropic.stream_error(error, request)


def _listed(betas: list[str]) -> list[str]:
    return [beta.strip() for line in betas for beta in line.split(",") if beta.strip()]


def _names(betas: list[str], wanted: str) -> bool:
    return any(wanted in line for line in betas) and wanted in _listed(betas)


def _refuse_the_accounts_own(request: RequestHead, target: str, *, oauth: bool) -> None:
    """A login opens all of its owner's Claude: their name and keys, their connectors to mail and the like, their cloud
    sessions with access to their repositories, their consents. Only what Anthropic documents for every key is served.

    `/api/hello` is Claude Code's probe for a connection. Claude Code's cloud sessions and remote control lie at the
    paths of managed agents, which name a beta of their own.
    """
    segments = plain_path(target.partition("?")[0]).lower().strip("/").split("/")
    if segments == [""] or segments == ["api", "hello"]:
        return
    resource = segments[1] if segments[0] == "v1" and len(segments) > 1 else ""
    served = resource in _EVERY_KEYS if oauth else resource not in _ORGANIZATION
    if oauth and resource in _CLOUD and ("bridge" in segments or _AGENTS not in request.headers.get(BETA, "")):
        served = False
    if not served:
        raise RequestRefused(
            "aimux serves Anthropic's documented API, and nothing that belongs to the account itself: neither its "
            "organization (/v1/organizations/…) nor what a login opens (/api/…, /v1/oauth/…, /v1/code/…, connectors, "
            "cloud sessions).",
            kind=ErrorKind.NOT_FOUND,
        )
