"""Any server that speaks Anthropic's or OpenAI's format and takes an API key: OpenRouter, vLLM, Ollama and friends.

The configuration may have several, under names of their own:

    providers:
      openrouter: {type: compatible, format: openai, base_url: https://openrouter.ai/api/v1}
      kimi: {type: compatible, format: anthropic, base_url: https://api.moonshot.ai/anthropic, auth: bearer}
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from aimux.plugin import (
    RELAY,
    Action,
    Credential,
    CredentialError,
    ErrorAnswer,
    GatewayError,
    HttpUrl,
    Meter,
    Provider,
    ProviderSettings,
    Register,
    RequestHead,
    Upstream,
    Verdict,
    credential_text,
    hookimpl,
    is_object,
    load_object,
    number,
    plain_path,
    retry_after,
)
from aimux.plugin.formats import anthropic, anthropic_limits, openai, openai_limits, openai_problems
from aimux.plugin.oauth import header_safe, jwt_claims, read_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aimux.plugin import Body, Headers, LimitState, LimitWindow, Lists
    from aimux.plugin.formats import Format, LimitFormat

_NO_CREDIT_RECHECK = 900.0
_DROP = frozenset({"authorization", "x-api-key"})
_ENDPOINT = re.compile(r"/(?:messages|responses|(?:chat/)?completions|models)$")
"""People copy whole endpoints, too."""
_SPENT = re.compile(
    r"(?:you(?:'|\u2019)ve reached your (?:[\w()-]+ ){0,6}usage limit|usage limit reached for|"
    r"weekly/monthly limit exhausted|insufficient balance|key limit exceeded|you have run out of credits|"
    r"your (?:newly created )?team (?:[\w-]+ )?(?:has either used all available credits|doesn't have any credits))\b",
    re.IGNORECASE,
)
"""How Kimi, Zhipu, MiniMax, OpenRouter and xAI say that a plan or credit is used up: with a 403, a 429 without
`retry-after`, or a 500."""
_SPENT_CODES = frozenset(
    {
        "exceeded_current_quota_error",
        "1113",
        "1308",
        "1309",
        "1310",
        "insufficient_balance",
        "insufficient_balance_error",
        "insufficient_user_quota",
        "arrearage",
        "accountoverdueerror",
    }
)
"""Of Kimi, Zhipu, MiniMax, new-api, Alibaba and Volcengine."""
_TOO_MUCH = re.compile(r"This request requires more credits, or fewer max_tokens|Prompt tokens limit exceeded: ")
_TOO_MUCH_CODE = "pre_consume_token_quota_failed"
"""How OpenRouter and new-api say that the rest of an account's credit is too little for one request."""
_TOKENS_A_MINUTE = "error-code#token-limit"
"""How Alibaba's message ends that calls a rate, over within a minute, a quota."""
_RETRY_INFO = "google.rpc.RetryInfo"
_LONGEST_WAIT = 86400.0
_LOGINS = ("sk-ant-oat", "sk-ant-ort", "ya29.")
"""Prefixes of tokens that people get by logging in: these are not API keys."""


class CompatibleSettings(ProviderSettings):
    base_url: HttpUrl = Field(
        description="As that format's own SDK takes it: with `/v1` for openai, without for anthropic."
    )
    format: Literal["anthropic", "openai"] = Field(default="openai", description="Which format the server speaks.")
    auth: Literal["bearer", "x-api-key"] | None = Field(
        default=None, description="How the key is sent; default: bearer for openai, x-api-key for anthropic."
    )


class Compatible(Provider):
    name = "compatible"
    Settings: ClassVar[type[ProviderSettings]] = CompatibleSettings
    settings: CompatibleSettings
    encoded_slashes = True
    takes_packed = False
    hidden_headers = frozenset({"anthropic-organization-id", "openai-organization", "openai-project"})

    def __init__(self, settings: ProviderSettings, *, instance: str | None = None) -> None:
        super().__init__(settings, instance=instance)
        self._anthropic = self.settings.format == "anthropic"
        self.wire_format = self.settings.format
        self._format: Format = anthropic if self._anthropic else openai
        self._other: Format = openai if self._anthropic else anthropic
        self._limits: LimitFormat = anthropic_limits if self._anthropic else openai_limits
        self.limit_header_prefix = self._limits.PREFIX
        self._bearer = (self.settings.auth or ("x-api-key" if self._anthropic else "bearer")) == "bearer"
        base = _ENDPOINT.sub("", self.settings.base_url)
        if self._anthropic:
            base = base.removesuffix("/v1")
        elif base.count("/") == 2:  # just scheme and host: the SDK's form of it would have `/v1`
            base += "/v1"
        self._base_url = base

    def parse_credential(self, raw: bytes) -> Credential:
        """`{"api_key": …}`, or a file that holds the key and nothing else."""
        key: object = credential_text(raw)
        if str(key).startswith("{"):
            document = load_object(raw)
            if document.get("type", self.instance) != self.instance:  # of a program that keeps several vendors' keys
                raise CredentialError("names another vendor, whose key it is")
            key = document.get("api_key")
        if not isinstance(key, str):
            raise CredentialError('expected {"api_key": "…"}')
        secret = header_safe(key)
        if secret.startswith(_LOGINS) or "openai.com" in str(jwt_claims(secret).get("iss", "")):
            raise CredentialError("holds the login of a person at a vendor, which goes to that vendor only")
        return Credential(kind="api_key", secret=secret)

    def prepare(self, request: RequestHead, credential: Credential) -> Upstream:
        openai.refuse_keys(request)
        if self._anthropic:
            target = anthropic.versioned(request.target)
        else:
            target = "/" + request.target.lstrip("/")
            while target.startswith("/v1/"):
                target = "/" + target[3:].lstrip("/")
        changed = {"authorization": f"Bearer {credential.secret}"} if self._bearer else {"x-api-key": credential.secret}
        return Upstream(self._base_url, target, changed, _DROP)

    def conversation_key(self, request: RequestHead, body: Body) -> str | None:
        return self._spoken(request).conversation_key(request, body)

    def _spoken(self, request: RequestHead) -> Format:
        """Many servers speak the other format, too, at the same address: OpenRouter, vLLM, Ollama, other gateways."""
        return self._other if self._other.speaks(request.path) else self._format

    def cheapest_request(self, credential: Credential) -> tuple[RequestHead, bytes]:
        request, body = super().cheapest_request(credential)
        if self._base_url.startswith("https://openrouter.ai/"):  # it lists its models to everybody
            return request._replace(target="/v1/key"), body
        return request, body

    def speaks(self, path: str) -> bool:
        return self._format.speaks(path)

    def base_url_advice(self, base: str) -> str:
        return self._format.base_url_advice(base)

    def refers_to(self, request: RequestHead, body: Body) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._format.refers_to(request, body) + self._other.refers_to(request, body)))

    def lists(self, request: RequestHead) -> Lists:
        return self._format.lists(request)

    def own_addresses(self, request: RequestHead) -> re.Pattern[bytes] | None:
        return self._format.own_addresses(request)

    def list_models(self, request: RequestHead, answer: bytes, names: Mapping[str, str]) -> bytes | None:
        return self._format.list_models(request, answer, names)

    def classify(self, status: int, headers: Headers, body: bytes, *, model: str = "") -> Verdict:
        problem = openai_problems.problem(body)
        if _is_too_much(problem):
            return Verdict(Action.BACK_OFF, "its credit is too little for this request")
        if status == 402:  # OpenRouter and DeepSeek: no credit left
            until = time.time() + _NO_CREDIT_RECHECK
            return Verdict(Action.COOL_DOWN, "the account's credit is used up", until=until, remedy="buy credit")
        wait = retry_after(headers)
        if wait is None and _is_spent(status, problem):
            until = time.time() + _NO_CREDIT_RECHECK
            return Verdict(Action.COOL_DOWN, "the account's plan or credit is used up", until=until, model=model)
        if status in {401, 403} and not (problem or is_object(body)):
            return Verdict(Action.BACK_OFF, f"{status} without a reason: something in between refuses")
        if status == 401 or _refuses_key(problem):
            return Verdict(Action.REFRESH, "the API key was not accepted", remedy="put in a valid API key")
        if status == 429:
            wait = _told_wait(headers, problem) if wait is None else wait
            if wait is None:
                return Verdict(Action.BACK_OFF, "rate limited, and nothing says until when")
            return Verdict(Action.COOL_DOWN, "rate limited", until=time.time() + wait, model=model)  # as is usual
        if status >= 500 and status != 501:
            return Verdict(Action.BACK_OFF, f"the server answered {status}")
        if status in {400, 403, 404} and self._format.lacks(body, model):
            return Verdict(Action.MISSING, "it does not have the model", model=model)
        return RELAY

    def opening(self, headers: Headers, payload: bytes, *, model: str = "") -> Verdict | None:
        return self._format.opening(payload)

    def meter(self, request: RequestHead, status: int, headers: Headers) -> Meter | None:
        meter = self._format.meter(request, status, headers)
        if meter is not None and meter.consumes:
            return meter
        if not self._anthropic and not self._other.speaks(plain_path(request.path).lower()):
            return meter  # OpenAI's threads have `/messages`, too
        other = self._other.meter(request, status, headers)
        return other if other is not None and other.consumes else meter

    # --- aimux's own limits ------------------------------------------------------------------------------------------

    def counts(self, request: RequestHead) -> bool:
        if self._limits.counts(request):
            return True
        return not request.makes_nothing and "/conversations" in request.path  # Mistral's are answered

    def limit_headers(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> Mapping[str, str]:
        return self._limits.headers(limits, windows)

    def asks_usage(self, request: RequestHead) -> bool:
        return self._limits.asks_usage(request)

    def usage(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
        return self._limits.usage(limits, windows)

    # --- aimux's own errors ------------------------------------------------------------------------------------------

    def error(self, error: GatewayError) -> ErrorAnswer:
        return self._format.error(error)

    def stream_error(self, error: GatewayError, request: RequestHead) -> bytes:
        return self._spoken(request).stream_error(error, request)


def _is_spent(status: int, problem: dict[str, Any]) -> bool:
    code, said = problem.get("code") or problem.get("type"), problem.get("message")
    if isinstance(said, str) and said.endswith(_TOKENS_A_MINUTE):
        return False
    if openai_problems.spent(problem) or (isinstance(code, str) and code.lower() in _SPENT_CODES):
        return status in {400, 403, 429, 500}
    return status in {403, 429, 500} and isinstance(said, str) and bool(_SPENT.match(said))


def _is_too_much(problem: dict[str, Any]) -> bool:
    said = problem.get("message")
    return problem.get("code") == _TOO_MUCH_CODE or (isinstance(said, str) and bool(_TOO_MUCH.match(said)))


def _refuses_key(problem: dict[str, Any]) -> bool:
    """As Gemini says it: with a 400 or a 403."""
    invalid = any(one.get("reason") == "API_KEY_INVALID" for one in _details(problem))
    return invalid or problem.get("status") == "PERMISSION_DENIED"


def _told_wait(headers: Headers, problem: dict[str, Any]) -> float | None:
    """Seconds until a limit is over that has no `retry-after`: Gemini tells a delay in the body, OpenRouter a time in a
    header of its own, or in the body as if it were there, Cerebras a delay in another header."""
    for one in _details(problem):
        delay = one.get("retryDelay")
        if str(one.get("@type")).endswith(_RETRY_INFO) and isinstance(delay, str) and delay.endswith("s"):
            wait = number(delay[:-1])
            return None if wait is None else min(max(0.0, wait), _LONGEST_WAIT)
    metadata = problem.get("metadata")
    quoted = metadata.get("headers") if isinstance(metadata, dict) else None
    reset = headers.get("x-ratelimit-reset") or (quoted.get("X-RateLimit-Reset") if isinstance(quoted, dict) else None)
    wait = (read_time(reset) or 0.0) - time.time()
    if wait <= 0:
        wait = number(headers.get("x-ratelimit-reset-tokens-minute")) or 0.0
    return min(wait, _LONGEST_WAIT) if wait > 0 else None


def _details(problem: dict[str, Any]) -> list[dict[str, Any]]:
    details = problem.get("details")
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


@hookimpl
def aimux_register_providers(register: Register) -> None:
    register(Compatible)
