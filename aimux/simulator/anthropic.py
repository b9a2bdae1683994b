"""api.anthropic.com: Messages, token counting, models and the OAuth usage endpoint, with the vendor's own refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.simulator import anthropic_events as events
from aimux.simulator.accounts import stable
from aimux.simulator.answers import Pairs, SimulatedAnswer, dumps, edge_answer, json_answer, stream_answer
from aimux.simulator.anthropic_batches import Batches
from aimux.simulator.anthropic_headers import CLAIMS, headers_of, ids, iso, key_limits, request_id, unified
from aimux.simulator.replies import call_tool, input_tokens, reply
from aimux.simulator.tokens import RefusedToken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.simulator.accounts import Account
    from aimux.simulator.answers import Call
    from aimux.simulator.replies import Reply
    from aimux.simulator.tokens import TokenStore

OAUTH_BETA = "oauth-2025-04-20"
BROWSERS = "anthropic-dangerous-direct-browser-access"
"""A request with `Origin` is refused without this header, whatever its credential."""
MAX_BODY = 32 * 1024 * 1024
MODELS = {
    "claude-opus-5": "Claude Opus 5",
    "claude-sonnet-5": "Claude Sonnet 5",
    "claude-haiku-4-5": "Claude Haiku 4.5",
}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MESSAGES = {
    401: "Invalid bearer token",
    403: "Your account does not have permission to use this resource.",
    404: "Not Found",
    429: "Rate limited",
    500: "Internal server error",
    529: "Overloaded",
}
FORBIDDEN = {
    "revoked": "OAuth token has been revoked. Please obtain a new token.",
    "disabled": "This organization has been disabled.",
    "organization": "OAuth authentication is currently not allowed for this organization.",
}
NEEDS = ("model", "max_tokens", "messages")
EXTRA_USAGE = "Extra usage is required for long context requests."


class AnthropicApi:
    """The Messages API. `authenticate` and `respond` do no I/O."""

    def __init__(self, tokens: TokenStore, keys: Mapping[str, Account]) -> None:
        self._tokens = tokens
        self._keys = keys
        """API key → account."""
        self._batches = Batches()

    def authenticate(self, call: Call) -> SimulatedAnswer | None:
        """Find the account, or refuse. `x-api-key` is preferred; the SDKs of 2026 send their key as a bearer alone."""
        if call.path in {"/", "", "/api/hello"}:
            return None
        if "origin" in call.headers and BROWSERS not in call.headers:
            return error(call, 401, f"CORS requests must set '{BROWSERS}' header")
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        key = call.headers.get("x-api-key")
        account = self._keys.get(token.strip() if key is None else key)
        if account is not None and account.vendor == "anthropic":
            call.account = account
            return None
        if key is not None:
            return error(call, 401, "invalid x-api-key")
        if scheme.lower() != "bearer" or not token:
            return error(call, 401, "x-api-key header is required")
        if OAUTH_BETA not in _list(call, "anthropic-beta"):
            return error(call, 401, "OAuth authentication is currently not supported.")
        try:
            family = self._tokens.check(token.strip())
        except RefusedToken as refused:
            call.account = refused.account
            if refused.reason == "revoked":
                return error(call, 403, FORBIDDEN["revoked"])
            if refused.reason == "expired":
                message = "OAuth token has expired. Please obtain a new token or refresh your existing token."
                return error(call, 401, message)
            return error(call, 401, "Invalid bearer token")
        call.account, call.scope = family.account, family.scope
        return None

    def fault(self, call: Call, status: int) -> SimulatedAnswer:
        """The vendor's answer of this status, as the scenario details it."""
        scenario = call.scenario
        if status in {502, 504}:
            return edge_answer(status)
        headers: Pairs = []
        message = FORBIDDEN.get(scenario.detail) or MESSAGES.get(status, f"Simulated error {status}")
        if scenario.detail == "disabled":
            status = 400
        if status == 429:
            if scenario.detail:
                return error(call, 429, EXTRA_USAGE, [("x-should-retry", "false")])
            if scenario.seconds is not None:
                return self._limited(call, call.now + scenario.seconds, scenario.window)
        if status == 503 and scenario.seconds is not None:
            headers.append(("retry-after", f"{scenario.seconds:g}"))
        if status == 429 or status >= 500:
            headers.append(("x-should-retry", "true"))
        return error(call, status, message, headers)

    def respond(self, call: Call) -> SimulatedAnswer:
        """The healthy answer, or the refusal that the request deserves."""
        match call.method, call.path:
            case ("POST", "/v1/messages"):
                return self._checked(call, self._messages)
            case ("POST", "/v1/messages/count_tokens"):
                return self._checked(call, self._count, needs=("model", "messages"))
            case ("POST", "/v1/messages/batches"):
                return self._batched(call)
            case ("GET" | "POST", path) if path.startswith("/v1/messages/batches"):
                return self._batches.respond(call) or error(call, 404, "Not Found")
            case ("GET" | "HEAD", "/v1/models"):
                return self._models(call)
            case ("GET" | "HEAD", path) if (name := path.removeprefix("/v1/models/")) in MODELS:
                return json_answer(200, _model(name), headers_of(call))
            case ("GET", "/api/oauth/usage"):
                return self._usage(call)
            case ("GET", "/api/oauth/profile"):
                return self._profile(call)
            case ("GET" | "HEAD", "/api/hello"):
                return json_answer(200, {"message": "hello"})
            case ("GET" | "DELETE" | "PUT" | "PATCH", "/v1/messages" | "/v1/messages/count_tokens"):
                return error(call, 405, "Method Not Allowed")
        return error(call, 404, "Not Found")

    def _checked(
        self, call: Call, then: Callable[[Call, str], SimulatedAnswer], needs: tuple[str, ...] = NEEDS
    ) -> SimulatedAnswer:
        if "anthropic-version" not in call.headers:
            return error(call, 400, "anthropic-version: header is required")
        if len(call.body) > MAX_BODY:
            return error(call, 413, "Request exceeds the maximum size")
        if call.content_type() != "application/json" or not call.json:
            return error(call, 400, "The request body is not valid JSON: expected a JSON object")
        for name in needs:
            if name not in call.json:
                return error(call, 400, f"{name}: Field required")
        model = str(call.json["model"])
        if not model.startswith("claude-"):
            return error(call, 404, f"model: {model}")
        if limits := call.owner.rejected(call.now, model):
            tightest = max(limits, key=lambda window: window.resets_at)
            return self._limited(call, tightest.resets_at, tightest.name)
        return then(call, model)

    def _batched(self, call: Call) -> SimulatedAnswer:
        requests = call.json.get("requests")
        if not isinstance(requests, list) or not requests or not all(isinstance(one, dict) for one in requests):
            return error(call, 400, "requests: Field required")
        return self._batches.create(call, [self._batch_result(call, at, one) for at, one in enumerate(requests)])

    def _batch_result(self, call: Call, at: int, request: dict[str, Any]) -> dict[str, Any]:
        params: dict[str, Any] = request.get("params") or {}
        told: dict[str, Any] = {"custom_id": request.get("custom_id")}
        model = str(params.get("model"))
        if not model.startswith("claude-"):
            wrong = {"type": "not_found_error", "message": f"model: {model}"}
            return told | {"result": {"type": "errored", "error": {"type": "error", "error": wrong}}}
        said = self._said(call, params, dumps(params))
        message = events.message(said, model, "msg_01" + stable(call.number, "batched", at)[:22])
        message["usage"]["service_tier"] = "batch"
        return told | {"result": {"type": "succeeded", "message": message}}

    def _said(self, call: Call, request: dict[str, Any], body: bytes) -> Reply:
        asked, answered = last_message(request.get("messages"))
        tool = None
        if call.scenario.tool is not None and not answered:
            tool = call_tool(request.get("tools") or [], call.scenario.tool, "input_schema")
        return reply("Claude", asked, body, call.scenario, tool, events.FRAME)

    def _messages(self, call: Call, model: str) -> SimulatedAnswer:
        request = call.json
        said = self._said(call, request, call.body)
        call.owner.spend(said.total_input + said.output, call.now, model=model)
        message_id = "msg_01" + stable(call.number, "message")[:22]
        usage = events.usage(said)
        if request.get("stream") is not True:
            if call.scenario.overload is not None:
                return self.fault(call, 529)
            answer = json_answer(200, events.message(said, model, message_id), headers_of(call))
            answer.usage = usage
            return answer
        chunks = events.stream(said, model, message_id)
        if call.scenario.overload is not None:
            # The frame's first three events come before any content.
            after = call.scenario.overload + 3 if call.scenario.overload else 0
            chunks = events.overloaded(chunks, after, request_id(call))
        return stream_answer(chunks, headers_of(call), usage)

    def _count(self, call: Call, _model: str) -> SimulatedAnswer:
        return json_answer(200, {"input_tokens": input_tokens(call.body)}, headers_of(call))

    def _models(self, call: Call) -> SimulatedAnswer:
        data = [_model(name) for name in MODELS]
        page = {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
        return json_answer(200, page, headers_of(call))

    def _usage(self, call: Call) -> SimulatedAnswer:
        if "user:profile" not in call.scope.split():
            return error(call, 403, "OAuth token does not meet scope requirement user:profile")
        call.owner.rejected(call.now)  # rolls the windows
        windows = {
            CLAIMS[w.name]: {"utilization": round(w.used * 100, 1), "resets_at": iso(w.resets_at)}
            for w in call.owner.windows.values()
            if w.name != "7d_oi"
        }
        return json_answer(200, {**windows, "seven_day_opus": None, "extra_usage": {"is_enabled": False}}, ids(call))

    def _profile(self, call: Call) -> SimulatedAnswer:
        if "user:profile" not in call.scope.split():
            return error(call, 403, "OAuth token does not meet scope requirement user:profile")
        owner = call.owner
        account = {"uuid": owner.account_id, "email": owner.email, "has_claude_max": owner.plan == "max"}
        organization = {
            "uuid": owner.organization,
            "name": f"{owner.name}'s Organization",
            "rate_limit_tier": "default",
        }
        return json_answer(200, {"account": account, "organization": organization}, ids(call))

    def _limited(self, call: Call, until: float, window: str) -> SimulatedAnswer:
        """429 until then: a subscription's window, or the requests of an API key."""
        wait = f"{max(0, until - call.now):.0f}"
        message = "This request would exceed your account's rate limit. Please try again later."
        if call.owner.kind == "api_key":
            return error(call, 429, message, [("retry-after", wait), *key_limits(call, until)])
        return error(call, 429, message, [("retry-after", wait), *unified(call, rejected=window, until=until)])


def last_message(messages: object) -> tuple[str, bool]:
    """What the user said last (without the client's reminders), and whether a tool answered since."""
    answered = False
    for message in reversed(messages if isinstance(messages, list) else []):
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": str(content or "")}]
        for block in reversed([block for block in blocks if isinstance(block, dict)]):
            if block.get("type") == "tool_result":
                answered = True
            elif (text := str(block.get("text", ""))) and not text.startswith("<system-reminder>"):
                return text, answered
    return "", answered


def error(call: Call, status: int, message: str, headers: Pairs | None = None) -> SimulatedAnswer:
    """An error in the vendor's envelope."""
    kind = ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id(call)}
    return json_answer(status, body, [*ids(call), *(headers or ())])


def _model(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": MODELS[name],
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
    }


def _list(call: Call, header: str) -> list[str]:
    return [one.strip() for value in call.headers.getall(header, []) for one in value.split(",")]
