"""api.openai.com: Responses, compaction, Chat Completions and models, for API keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aimux.simulator import openai_events as events
from aimux.simulator.accounts import stable
from aimux.simulator.answers import Pairs, SimulatedAnswer, dumps, edge_answer, json_answer, stream_answer
from aimux.simulator.openai_kept import KEPT, Kept
from aimux.simulator.replies import Reply, call_tool, reply
from aimux.simulator.tokens import RefusedToken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.simulator.accounts import Account
    from aimux.simulator.answers import Call
    from aimux.simulator.tokens import TokenStore

MODELS = ("gpt-5.5", "gpt-5.4-mini", "gpt-5.3-codex")
KNOWN_MODEL = re.compile(r"(gpt|codex|chatgpt|o\d)")
TYPES = {401: "invalid_request_error", 429: "requests", 500: "server_error", 503: "service_unavailable_error"}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 503: "server_is_overloaded", 529: "server_is_overloaded"}
MESSAGES = {
    500: "The server had an error while processing your request. Sorry about that!",
    503: events.OVERLOADED,
    529: events.OVERLOADED,
}


class OpenAIApi:
    """The API-key base (its paths begin with /v1). The ChatGPT base shares what it answers."""

    def __init__(self, tokens: TokenStore, keys: Mapping[str, Account]) -> None:
        self._tokens = tokens
        self._keys = keys
        self._kept = Kept()

    def authenticate(self, call: Call) -> SimulatedAnswer | None:
        """Find the account by its key, or refuse."""
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = (
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
            return self.error(call, 401, message, code=None)
        account = self._keys.get(token.strip())
        if account is not None and account.vendor == "openai":
            call.account = account
            return None
        try:
            self._tokens.check(token.strip())
        except RefusedToken:
            shown = f"{token[:7]}****{token[-4:]}" if len(token) > 20 else "****"
            return self.error(call, 401, f"Incorrect API key provided: {shown}.")
        # A ChatGPT login is known here, but its token has no scope for the API.
        message = "You have insufficient permissions for this operation. Missing scopes: api.responses.write."
        return self.error(call, 401, message, code="missing_scope")

    def fault(self, call: Call, status: int) -> SimulatedAnswer:
        """The vendor's answer of this status, as the scenario details it."""
        seconds = call.scenario.seconds
        if status in {502, 504}:
            return edge_answer(status)
        headers: Pairs = []
        if status == 429:
            if seconds is None:
                message = "You exceeded your current quota, please check your plan and billing details."
                return self.error(call, 429, message, code="insufficient_quota", kind="insufficient_quota")
            headers += [("retry-after", f"{seconds:g}"), ("retry-after-ms", f"{seconds * 1000:.0f}")]
            message = f"Rate limit reached for requests per min (RPM). Please try again in {seconds:g}s."
            return self.error(call, 429, message, headers)
        if status == 503 and seconds is not None:
            headers.append(("retry-after", f"{seconds:g}"))
        return self.error(call, status, MESSAGES.get(status, f"Simulated error {status}"), headers)

    def respond(self, call: Call) -> SimulatedAnswer:
        """The healthy answer, or the refusal that the request deserves."""
        match call.method, call.path:
            case ("POST", "/v1/responses"):
                return self.checked(call, "input") or self.responses(call)
            case ("POST", "/v1/responses/compact"):
                return self.checked(call, "input") or self.compact(call)
            case ("POST", "/v1/chat/completions"):
                return self.checked(call, "messages") or self._chat(call)
            case ("POST", "/v1/batches"):
                return self._batched(call)
            case (_, path) if path.startswith(KEPT):
                return self._kept.respond(call, self.headers(call)) or self._nothing(call)
            case ("GET" | "HEAD", "/v1/models"):
                return json_answer(200, {"object": "list", "data": [_model(m) for m in MODELS]}, self.headers(call))
            case ("GET" | "HEAD", path) if (name := path.removeprefix("/v1/models/")) in MODELS:
                return json_answer(200, _model(name), self.headers(call))
        return self.error(call, 404, f"Invalid URL ({call.method} {call.path})", code=None)

    def checked(self, call: Call, needed: str) -> SimulatedAnswer | None:
        """The refusal of a request that no account could serve."""
        if not call.json:
            return self.error(call, 400, "We could not parse the JSON body of your request.", code=None)
        for name in ("model", needed):
            if name not in call.json:
                message = f"Missing required parameter: '{name}'."
                return self.error(call, 400, message, code="missing_required_parameter", param=name)
        model = str(call.json["model"])
        if not KNOWN_MODEL.match(model):
            message = f"The model `{model}` does not exist or you do not have access to it."
            return self.error(call, 404, message, code="model_not_found")
        return None

    def responses(self, call: Call) -> SimulatedAnswer:
        """A response, streamed or whole."""
        said, request = self._reply(call, call.json.get("input"), events.RESPONSES_FRAME), call.json
        serial = stable(call.number, "response")[:48]
        usage = events.usage(said, reasoning=bool(request.get("reasoning")))
        background = request.get("background") is True
        if request.get("stream") is not True:
            if call.scenario.overload is not None:
                return self.fault(call, 503)
            whole = events.response(said, request, serial, call.now)
            shown = events.begun(whole, "queued") if background else whole
            answer = json_answer(200, shown, self.headers(call))
            answer.usage = None if background else usage
        else:
            answer = stream_answer(events.sse_stream(self.sequence(call, said, serial)), self.headers(call), usage)
        if request.get("store", True) is not False:
            self._kept.keep_response(call, events.responses_events(said, request, serial, call.now))
        return answer

    def _batched(self, call: Call) -> SimulatedAnswer:
        lines = self._kept.lines(call, str(call.json.get("input_file_id")))
        if lines is None:
            return self._nothing(call)
        return self._kept.create_batch(
            call, [self._batch_line(call, at, line) for at, line in enumerate(lines)], self.headers(call)
        )

    def _batch_line(self, call: Call, at: int, line: dict[str, Any]) -> dict[str, Any]:
        request: dict[str, Any] = line.get("body") or {}
        serial = stable(call.number, "batched", at)[:48]
        chat = "messages" in request
        asked, _ = last_message(request.get("messages" if chat else "input"))
        said = reply("ChatGPT", asked, dumps(request), call.scenario, None, 0)
        made = events.chat_completion(said, str(request.get("model")), serial, call.now) if chat else None
        body = made or events.response(said, request, serial, call.now)
        response = {"status_code": 200, "request_id": f"req_{serial[:32]}", "body": body}
        return {
            "id": f"batch_req_{serial[:32]}",
            "custom_id": line.get("custom_id"),
            "response": response,
            "error": None,
        }

    def _nothing(self, call: Call) -> SimulatedAnswer:
        return self.error(call, 404, f"Nothing found at {call.path}.", code=None)

    def sequence(self, call: Call, said: Reply, serial: str) -> list[dict[str, Any]]:
        """The events of a streamed response, or of one that fails with overload."""
        sequence = events.responses_events(said, call.json, serial, call.now)
        scenario = call.scenario
        if scenario.overload is not None:
            return events.overloaded(sequence, scenario.overload, bare=scenario.overload_error)
        return sequence

    def compact(self, call: Call) -> SimulatedAnswer:
        """A compacted conversation: its user messages and one opaque item."""
        said = self._reply(call, call.json.get("input"), events.RESPONSES_FRAME)
        serial = stable(call.number, "compaction")[:48]
        usage = events.usage(said, reasoning=False)
        body = {
            "id": f"resp_{serial}",
            "object": "response.compaction",
            "created_at": int(call.now),
            "output": [{"type": "compaction", "id": f"cmp_{serial}", "encrypted_content": f"simulator-{serial}"}],
            "usage": usage,
        }
        answer = json_answer(200, body, self.headers(call))
        answer.usage = usage
        return answer

    def _chat(self, call: Call) -> SimulatedAnswer:
        request = call.json
        wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        said = self._reply(call, request.get("messages"), events.CHAT_FRAME + wants_usage)
        serial, model = stable(call.number, "chat"), str(request["model"])
        if request.get("stream") is not True:
            answer = json_answer(200, events.chat_completion(said, model, serial, call.now), self.headers(call))
            answer.usage = events.chat_usage(said)
            return answer
        chunks = events.chat_stream(said, model, serial, call.now, include_usage=wants_usage)
        return stream_answer(chunks, self.headers(call), events.chat_usage(said) if wants_usage else None)

    def _reply(self, call: Call, conversation: object, frame: int) -> Reply:
        asked, answered = last_message(conversation)
        tool = None
        if call.scenario.tool is not None and not answered:
            tool = call_tool(call.json.get("tools") or [], call.scenario.tool, "parameters")
        said = reply("ChatGPT", asked, call.body, call.scenario, tool, frame)
        call.owner.spend(said.total_input + said.output, call.now)
        return said

    def limits_event(self, call: Call) -> dict[str, Any] | None:
        """The event that tells the account's limits on a WebSocket; the API has none."""
        return None

    def error(
        self,
        call: Call,
        status: int,
        message: str,
        headers: Pairs | None = None,
        *,
        code: str | None = "",
        kind: str | None = None,
        param: str | None = None,
    ) -> SimulatedAnswer:
        """An error in OpenAI's envelope; an empty `code` means the usual one of that status."""
        body = {
            "message": message,
            "type": kind or TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
            "param": param,
            "code": CODES.get(status) if code == "" else code,
        }
        return json_answer(status, {"error": body}, [*self.ids(call), *(headers or ())])

    def ids(self, call: Call) -> Pairs:
        return [
            ("x-request-id", f"req_{stable(call.number, 'request')[:32]}"),
            ("cf-ray", f"{stable(call.number, 'ray')[:16]}-SIM"),
        ]

    def headers(self, call: Call) -> Pairs:
        """The headers of a good answer."""
        pairs = [
            *self.ids(call),
            ("openai-version", "2020-10-01"),
            ("openai-organization", f"org-{call.owner.organization[:8]}"),
            ("openai-processing-ms", "42"),
        ]
        for what, limit in (("requests", 10_000), ("tokens", 2_000_000)):
            left = max(0, limit - call.owner.requests) if what == "requests" else limit - len(call.body) // 4
            pairs += [(f"x-ratelimit-limit-{what}", str(limit)), (f"x-ratelimit-remaining-{what}", str(left))]
            pairs.append((f"x-ratelimit-reset-{what}", "6ms"))
        if "model" in call.json:
            pairs.append(("openai-model", str(call.json["model"])))
        return pairs


def last_message(conversation: object) -> tuple[str, bool]:
    """The last user message's text, and whether a tool's result comes after it."""
    if not isinstance(conversation, list):
        return str(conversation or ""), False
    answered = False
    for item in reversed(conversation):
        if not isinstance(item, dict):
            continue
        if item.get("type") in {"function_call_output", "custom_tool_call_output"} or item.get("role") == "tool":
            answered = True
        if item.get("role") == "user":
            content = item.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts = [str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text")]
            return (texts[-1] if texts else ""), answered
    return "", answered


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "simulator"}
