"""The provider itself: which upstream a request goes to, and how."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from multidict import CIMultiDict

from aimux.plugin import (
    Credential,
    DeviceCode,
    ErrorAnswer,
    ErrorKind,
    GatewayError,
    LimitWindow,
    MessageMeter,
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
from aimux.plugin.formats import openai, openai_limits, openai_meters
from aimux_chatgpt import credentials, limits
from aimux_chatgpt.login import OAuthClient
from aimux_chatgpt.settings import ChatGPTSettings
from aimux_chatgpt.words import LOGIN_WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aimux.plugin import Body, Headers, Http, LimitState, Lists

# The credential decides which organization and account pay: a client's own choice would only be refused with a 401, and
# that would look like a bad credential.
_DROP = frozenset({"x-api-key", "openai-organization", "openai-project", "chatgpt-account-id"})
_MODEL = re.compile(rb'"model"\s*:\s*"([A-Za-z0-9._:/-]{1,128})"')
_OWNERS = frozenset({"me", "organization", "organizations", "dashboard", "usage"})
_CODEX = re.compile(
    r"/(?:backend-api/)?codex(?:/v1)*(/(?:responses(?:/compact)?|models|alpha/search|memories/trace_summarize)(?:\?.*)?)"
)
"""What Codex asks for below the path of its backend: whatever else lies there is looked at as it is."""
_CLIENT_VERSION = "0.171.0"
"""The models endpoint of the Codex backend asks for one."""


class CodexStream(openai_meters.ResponsesStream):
    """The Codex backend also reports limits in events of its own, and in its stream that the account's is reached."""

    needles = (*openai_meters.ResponsesStream.needles, b'"codex.rate_limits"')

    def __init__(self, login: str) -> None:
        super().__init__()
        self._login = login
        self._model = ""

    def asked(self, message: bytes) -> None:
        if match := _MODEL.search(message, 0, 4096):
            self._model = match[1].decode()

    def read(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "codex.rate_limits":
            self.limits = limits.windows_in(event)
            return
        super().read(event)
        if kind in ("error", "response.failed"):
            self.verdict = limits.in_event(event, login=self._login, model=self._model)


class ChatGPT(Provider):
    name = "chatgpt"
    Settings: ClassVar[type[ProviderSettings]] = ChatGPTSettings
    settings: ChatGPTSettings
    credential_file = "auth.json"
    login_flows = frozenset({"loopback", "paste", "device"})
    login_words = LOGIN_WORDS
    loopback_ports = (1455,)
    hidden_headers = frozenset({"openai-organization", "openai-project", "chatgpt-account-id"})
    wire_format = "openai"
    price_list = "openai"
    limit_header_prefix = openai_limits.PREFIX
    echoed_header = "x-codex-turn-state"

    def __init__(self, settings: ProviderSettings, *, instance: str | None = None) -> None:
        super().__init__(settings, instance=instance)
        self._login = OAuthClient(self.settings, self.instance)

    # --- credentials and login ---------------------------------------------------------------------------------------

    def parse_credential(self, raw: bytes) -> Credential:
        return credentials.parse(raw)

    async def refresh(self, raw: bytes, http: Http) -> bytes:
        refresh_token = credentials.parse(raw).refresh_token
        if refresh_token is None:
            remedy = f"log in again: {self._login.command}"
            raise RefreshRejected("this credential has no refresh token", remedy=remedy)
        return credentials.renewed(raw, await self._login.renew(refresh_token, http))

    def own_credential(self, headers: Headers) -> Credential | None:
        credential = super().own_credential(headers)
        if credential is None:
            return None
        return credentials.brought_along(credential.secret, headers.get("chatgpt-account-id"))

    client_advice = (
        "In Codex it is `experimental_bearer_token` of the model provider in config.toml, or the variable that its "
        "`env_key` names; for an SDK it is OPENAI_API_KEY."
    )

    def vendor_token_advice(self, token: str) -> str | None:
        if credentials.is_openai_jwt(token):
            what = "ChatGPT's own login token"
        elif token.startswith("sk-") and not token.startswith("sk-ant-"):
            what = "what looks like an OpenAI API key"
        else:
            return None
        return (
            f"You sent {what}, not an aimux token. In Codex's config.toml, put the token that aimux gave you into "
            "`experimental_bearer_token` of the model provider (or into the variable that its `env_key` names); "
            "for an SDK set OPENAI_API_KEY to it."
        )

    def redirect_uri(self, flow: str, port: int) -> str:
        return self._login.redirect_uri(port if flow == "loopback" else 0)

    def authorization_url(self, *, redirect_uri: str, state: str, challenge: str) -> str:
        return self._login.authorization_url(redirect_uri, state, challenge)

    async def exchange(self, http: Http, *, code: str, state: str, verifier: str, redirect_uri: str) -> bytes:
        return credentials.from_login(await self._login.exchange(http, code, verifier, redirect_uri))

    async def device_start(self, http: Http) -> DeviceCode:
        return await self._login.device_start(http)

    async def device_poll(self, http: Http, device: DeviceCode) -> bytes | None:
        tokens = await self._login.device_poll(http, device)
        return None if tokens is None else credentials.from_login(tokens)

    def vendor_logins(self, environ: Mapping[str, str], home: Path) -> list[Path]:
        folder = environ.get("CODEX_HOME")
        return [Path(place) / "auth.json" for place in (folder, home / ".codex") if place]

    # --- a request ---------------------------------------------------------------------------------------------------

    def prepare(self, request: RequestHead, credential: Credential) -> Upstream:
        # 2.5 µs for a ChatGPT login and Codex's headers.
        openai.refuse_keys(request)
        target = request.target
        below = target[3:] if target.startswith("/v1/responses") else _below_version(target)
        changed = {"authorization": "Bearer " + credential.secret}
        if request.method == "DELETE" or below[:10] not in {"/responses", "/chat/comp"}:
            _refuse_what_is_everybodys(below, request.method)
        drop = _DROP
        if foreign := [name.lower() for name in request.headers if name[:10].lower() == "anthropic-"]:
            drop = drop.union(foreign)
        if credential.kind != "oauth":
            return Upstream(self.settings.api_base_url, "/v1" + below, changed, drop)
        if below[:10] != "/responses":
            _refuse_what_a_login_cannot(below)
        if below == "/models":  # from an SDK: Codex names its version
            below += f"?client_version={_CLIENT_VERSION}"
        if credential.account_id is not None:
            changed["chatgpt-account-id"] = credential.account_id
        return Upstream(self.settings.base_url, below, changed, drop)

    def list_models(self, request: RequestHead, answer: bytes, names: Mapping[str, str]) -> bytes | None:
        return openai.list_models(request._replace(target=_below_version(request.target)), answer, names)

    def conversation_key(self, request: RequestHead, body: Body) -> str | None:
        return openai.conversation_key(request, body)

    def speaks(self, path: str) -> bool:
        return openai.speaks(path)

    def base_url_advice(self, base: str) -> str:
        return openai.base_url_advice(base)

    def refers_to(self, request: RequestHead, body: Body) -> tuple[str, ...]:
        return openai.refers_to(request, body)

    def lists(self, request: RequestHead) -> Lists:
        return openai.lists(request)

    def cheapest_request(self, credential: Credential) -> tuple[RequestHead, bytes]:
        query = f"?client_version={_CLIENT_VERSION}" if credential.kind == "oauth" else ""
        return RequestHead("GET", f"/v1/models{query}", CIMultiDict()), b""

    # --- an answer ---------------------------------------------------------------------------------------------------

    def classify(self, status: int, headers: Headers, body: bytes, *, model: str = "") -> Verdict:
        return limits.classify(status, headers, body, login=self._login.command, model=model)

    def explained(self, status: int, body: bytes) -> bytes | None:
        return limits.explained(body, status=status)

    def opening(self, headers: Headers, payload: bytes, *, model: str = "") -> Verdict | None:
        return limits.opening(headers, payload, login=self._login.command, model=model)

    def limits(self, headers: Headers) -> tuple[LimitWindow, ...]:
        return limits.windows(headers)

    def meter(self, request: RequestHead, status: int, headers: Headers) -> Meter | None:
        return openai.meter(request, status, headers, responses=partial(CodexStream, self._login.command))

    def websocket(self, request: RequestHead) -> bool:
        return _below_version(request.path) == "/responses"

    def websocket_meter(self, request: RequestHead) -> MessageMeter | None:
        return openai_meters.ResponsesSocket(partial(CodexStream, self._login.command))

    # --- aimux's own limits ------------------------------------------------------------------------------------------

    def counts(self, request: RequestHead) -> bool:
        return openai_limits.counts(request)

    def limit_headers(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> Mapping[str, str]:
        return openai_limits.headers(limits, windows)

    def limit_event(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
        return openai_limits.event(limits, windows)

    def asks_usage(self, request: RequestHead) -> bool:
        return openai_limits.asks_usage(request)

    def usage(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
        return openai_limits.usage(limits, windows)

    # --- aimux's own errors ------------------------------------------------------------------------------------------

    def error(self, error: GatewayError) -> ErrorAnswer:
        return openai.error(error)

    def stream_error(self, error: GatewayError, request: RequestHead) -> bytes:
        return openai.stream_error(error, request)

    def websocket_error(self, error: GatewayError, request: RequestHead) -> bytes:
        return openai.websocket_error(error)


def _below_version(target: str) -> str:
    """The target without `/v1`: SDK bases come with it, without it, twice, or with a slash too many. Those for Codex
    also with its backend's own path, which other gateways have and pi adds by itself."""
    target = "/" + target.lstrip("/")
    while target.startswith("/v1/"):
        target = "/" + target[3:].lstrip("/")
    codex = _CODEX.fullmatch(target)
    return codex[1] if codex is not None else target


def _segments(below: str) -> list[str]:
    return plain_path(below.partition("?")[0]).lower().strip("/").split("/")


def _refuse_what_is_everybodys(below: str, method: str) -> None:
    """A fine-tuned model is in everybody's list of models, and can't be restored. A webhook hears of everybody's
    answers, batches and calls. `/v1/me` tells who owns a key: their name, e-mail address and telephone number."""
    first, *_ = _segments(below)
    if first in _OWNERS:
        raise RequestRefused(
            "aimux does not serve what belongs to the owner of an account: their name, their organization, its people, "
            "keys and bills.",
            kind=ErrorKind.NOT_FOUND,
        )
    if first == "webhook_endpoints":
        raise RequestRefused(
            "aimux does not serve an account's webhooks, which hear of what everybody does: its owner can set them up "
            "at OpenAI.",
            kind=ErrorKind.FORBIDDEN,
        )
    if method == "DELETE" and first == "models":
        raise RequestRefused(
            "aimux does not delete models, as everybody uses them: the account's owner can do that at OpenAI.",
            kind=ErrorKind.FORBIDDEN,
        )


def _refuse_what_a_login_cannot(below: str) -> None:
    segments = _segments(below)
    if segments[:2] == ["chat", "completions"]:
        raise RequestRefused(
            "Chat Completions needs an OpenAI API key, and this account is a ChatGPT login: use /v1/responses instead."
        )
    if segments[0] in {"api", "backend-api", "wham"}:
        # Codex's `/status` asks here; the answer names the account's owner.
        raise RequestRefused(
            "aimux does not serve the endpoints that belong to the account itself; its limits are in the "
            "x-codex-* headers of every answer.",
            kind=ErrorKind.NOT_FOUND,
        )
