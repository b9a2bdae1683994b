"""What an answer in one of OpenAI's formats says of an error: its object, its code, and what that means."""

from __future__ import annotations

import json
import re
from typing import Any

from aimux.plugin.reading import sse_events

PREAMBLE = frozenset(
    {
        "response.created",
        "response.in_progress",
        "response.queued",
        "response.metadata",
        "codex.rate_limits",
        "codex.response.metadata",
        "responsesapi.websocket_timing",
        "keepalive",
    }
)
"""Events that say nothing of an answer yet."""
_BUSY = frozenset({"server_is_overloaded", "slow_down", "service_unavailable_error", "overloaded_error"})
_OVERLOADED = _BUSY | {"server_error", "rate_limit_exceeded"}
_OVER_SOON = frozenset({429, 500, 502, 503, 504, 529})
_SPENT = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
    }
)
_BUSY_WORDS = re.compile(r"(?:Selected model is at capacity|Our servers are currently overloaded)\b.{0,80}", re.DOTALL)
_WORD = re.compile(r"[a-z0-9_]{1,48}")
_UNREADABLE = re.compile(
    r"(?:The encrypted content .{1,200} could not be verified\.|Encrypted .{1,40} content could not be decrypted\b)"
    r".{0,200}",
    re.DOTALL,
)
_UNVERIFIED = re.compile(
    r"Your organization must be verified to (?:stream this model|use the model|generate reasoning summaries)\b"
)
_UNSUPPORTED = "model is not supported when using Codex with a ChatGPT account"


def problem(body: bytes) -> dict[str, Any]:
    """The error object of an answer: `error`, or what ChatGPT's backend calls `detail`; `{}` if there is none. Gemini
    has a list around it."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return problem_in(answer) if isinstance(answer, dict) else {}


def problem_in(answer: dict[str, Any]) -> dict[str, Any]:
    """The error object of an answer or of a stream's event, wherever the format keeps it."""
    response = answer.get("response")
    if isinstance(response, dict):
        answer = response
    found = answer.get("error") or answer.get("detail")
    if isinstance(found, dict):
        return found
    if answer.get("type") == "error":
        return answer
    return {"message": found} if isinstance(found, str) else {}


def lacks(problem: dict[str, Any], model: str) -> bool:
    """Whether an error says that the account does not have this model, which another one may have."""
    if code_of(problem) == "model_not_found":
        return True
    message = problem.get("message")
    if not isinstance(message, str):
        return False
    return message.rstrip(".") == f"The '{model}' {_UNSUPPORTED}" or _UNVERIFIED.match(message) is not None


def unreadable(problem: dict[str, Any]) -> bool:
    """Whether an error says that the request has something encrypted in it (what the model thought, a shortened
    conversation) that this account can't read. The one that made it can."""
    message = problem.get("message")
    said = isinstance(message, str) and _UNREADABLE.fullmatch(message) is not None
    return said or code_of(problem) == "invalid_encrypted_content"


def code_of(problem: dict[str, Any]) -> str:
    """`code` of an error object, else its `type`, else "". Only plain words that are fit for a log count."""
    for key in ("code", "type"):
        if isinstance(value := problem.get(key), str) and _WORD.fullmatch(value):
            return value
    return ""


def spent(problem: dict[str, Any]) -> bool:
    """Whether an error says that a person has to pay, or to raise a limit, before the account serves again."""
    return code_of(problem) in _SPENT or problem.get("type") == "insufficient_quota"


def opening_error(payload: bytes) -> tuple[bool, dict[str, Any]]:
    """Whether the start of a stream is decisive, and the error object if it is an error."""
    for name, data in sse_events(payload):
        if name in PREAMBLE:
            continue
        if name not in {"", "error", "response.failed"}:
            return True, {}  # content, recognized by its name alone
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return True, {}
        if not isinstance(event, dict):
            return True, {}
        if not name and (str(event.get("type")) in PREAMBLE or _says_nothing(event)):
            continue
        return True, problem_in(event)
    return False, {}


def _says_nothing(chunk: dict[str, Any]) -> bool:
    """Whether a chunk of Chat Completions only opens the answer: it names the role, or what filters say of the
    prompt."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or chunk.get("error") or chunk.get("usage"):
        return False
    return all(
        isinstance(choice, dict)
        and not choice.get("finish_reason")
        and isinstance(delta := choice.get("delta"), dict)
        and not any(said for key, said in delta.items() if key != "role")
        for choice in choices
    )


def overload(problem: dict[str, Any]) -> str:
    """The code of an error that may pass in a moment, or with another account; "" for any other."""
    if code := busy(problem):
        return code
    if (code := code_of(problem)) in _OVERLOADED:
        return code
    status = problem.get("code")  # of vLLM, OpenRouter and others
    return str(status) if type(status) is int and status in _OVER_SOON else ""


def busy(problem: dict[str, Any]) -> str:
    """The same for an error that Codex shows to its user at once, though another account may serve."""
    message = problem.get("message")
    if isinstance(message, str) and _BUSY_WORDS.fullmatch(message):  # as an `invalid_request_error`, of all things
        return "server_is_overloaded"
    code = code_of(problem)
    return code if code in _BUSY else ""
