"""The Anthropic Messages format."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from multidict import istr

from aimux.plugin.body import Body
from aimux.plugin.errors import LimitReached
from aimux.plugin.formats import anthropic_limits
from aimux.plugin.formats.anthropic_stored import BatchResults, KeptAnswer, SessionEvents, SessionStream
from aimux.plugin.formats.anthropic_usage import is_free, read_usage, stored_container, stored_message
from aimux.plugin.meters import JSONMeter, Meter
from aimux.plugin.provider import ErrorAnswer
from aimux.plugin.reading import media_type, named_model, plain_path, sse_events
from aimux.plugin.sse_meter import SSEMeter
from aimux.plugin.stored import Lists, ids_in_body, ids_in_path, members
from aimux.plugin.stored import lists as stored_lists
from aimux.plugin.types import RELAY, Action, RequestHead, Verdict
from aimux.plugin.unnamed_answers import UnnamedAnswer
from aimux.plugin.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.plugin.errors import GatewayError
    from aimux.plugin.types import Headers

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OVERLOADED = frozenset({"overloaded_error", "api_error", "timeout_error", "rate_limit_error"})
_WORD = re.compile(r"[a-z_]{1,48}")
_TEXTS = re.compile(rb'"(?:text|thinking|partial_json)": ?"([^"\\]*+(?>(?:\\.[^"\\]*+)*))')
"""Keys of what is billed by the token. Signatures are not, nor is what citations quote."""
_NOTHING_KEPT = ("/content", "/results", "/count_tokens", "/messages", "/complete")
_REFERENCES = members(
    "file_id",
    "container",
    "skill_id",
    "previous_message_id",
    "user_profile_id",
    "agent",
    "agent_id",
    "agents",
    "predefined_agents",
    "environment_id",
    "memory_store_id",
    "session_ids",
    "vault_ids",
)
_BETA = istr("anthropic-beta")
_THREADS = "message-threads-"
"""Of the beta with which a request may name an answer, and go on from there: each answer is kept then."""
_OWN_PATH = re.compile(r"(?:.*/v1/*)?/messages(?:/count_tokens|/batches)?/?")
_VERSIONS = re.compile(r"/+(?:v1/+)+")
_UNVERSIONED = re.compile(r"/(?:messages(?:/count_tokens)?|models(?:/[^/?]+)?)/?(?:\?.*)?")
_MODELS = re.compile(r"/*(?:v1/+)*models/*")
_BATCHES = re.compile(r"/*(?:v1/+)+messages/batches(?:/[^/]+)?/?")
_RESULTS = re.compile(rb'(?<=")https?://[^"\\\s]{1,1000}?(?=/v1/messages/batches/[^"/\\\s]{1,200}/results["?])')
_RESULTS_OF = re.compile(r"/(?:v1/)*messages/batches/([^/]{1,128})/results", re.IGNORECASE)
_SESSION_EVENTS = re.compile(
    r"/(?:v1/)*sessions/([^/]{1,128})/(?:threads/[^/]{1,128}/)?(?:events|stream|events/stream)/?", re.IGNORECASE
)
_SESSION = re.compile(r"_session_([0-9A-Za-z-]{8,64})$")

# --- aimux's own errors ----------------------------------------------------------------------------------------------


def error(error: GatewayError) -> ErrorAnswer:
    """An error answer's body."""
    headers = anthropic_limits.refusal(error) if isinstance(error, LimitReached) else {}
    return ErrorAnswer(_envelope(error), headers=headers)


def stream_error(error: GatewayError, request: RequestHead) -> bytes:
    """The event that ends a stream with an error."""
    return b"event: error\ndata: " + _envelope(error) + b"\n\n"


def _envelope(error: GatewayError) -> bytes:
    kind = _TYPES.get(error.status) or ("api_error" if error.status >= 500 else "invalid_request_error")
    if isinstance(error, LimitReached) and error.limit is not None:
        kind = "billing_error"
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": error.message}}
    if error.request_id:
        body["request_id"] = error.request_id
    return json.dumps(body).encode()


# --- what an upstream answers ----------------------------------------------------------------------------------------


def problem(body: bytes) -> tuple[str, str]:
    """Type and message of an error answer; "" if it has none, or if the type is not a plain word fit for a log."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    found = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return "", ""
    kind, message = found.get("type"), found.get("message")
    if not isinstance(kind, str) or not _WORD.fullmatch(kind):
        kind = ""
    return kind, message if isinstance(message, str) else ""


def error_code(body: bytes) -> str:
    """`details.error_code` of an error answer; "" if it has none."""
    try:
        code = json.loads(body)["error"]["details"]["error_code"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return code if isinstance(code, str) else ""


def lacks(body: bytes, model: str) -> bool:
    """Whether an error says that the account does not have this model, which another one may have."""
    return bool(model) and problem(body) == ("not_found_error", f"model: {model}")


def opening(payload: bytes) -> Verdict | None:
    """`Provider.opening` for a stream of Messages events: overloads are also reported inside a 200."""
    for name, data in sse_events(payload):
        kind, _ = problem(data) if name in {"error", ""} else ("", "")
        if kind:
            return Verdict(Action.BACK_OFF, f"{kind} at the start of a stream") if kind in _OVERLOADED else RELAY
        if name not in {"message_start", "ping"}:
            return RELAY
    return None


# --- usage -----------------------------------------------------------------------------------------------------------


def meter(request: RequestHead, status: int, headers: Headers) -> Meter | None:
    """`Provider.meter`. Counting tokens, listing models and errors consume nothing."""
    content_type, path = media_type(headers.get("content-type", "")), request.path
    makes = path.endswith("/messages") or plain_path(path).lower().endswith("/messages")
    if status != 200 or request.makes_nothing or not makes:
        return stored(request, status, content_type)
    threaded = _THREADS in request.headers.get(_BETA, "")
    if content_type == "text/event-stream":
        return ThreadedStream() if threaded else MessagesStream()
    if content_type == "application/json":
        return ThreadedAnswer() if threaded else MessagesAnswer()
    return UnnamedAnswer(ThreadedStream, ThreadedAnswer) if threaded else UnnamedAnswer(MessagesStream, MessagesAnswer)


class MessagesStream(SSEMeter):
    """`message_start` reports the input and the last `message_delta` the output, both cumulative."""

    needles: ClassVar[tuple[bytes, ...]] = (b'"message_', b'"error"')
    content: ClassVar[bytes] = b'"content_block_delta"'
    threaded: ClassVar[bool] = False
    """A later request may go on from this answer."""

    def content_in(self, part: bytes) -> int:
        return sum(map(len, _TEXTS.findall(part)))

    def read(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                if isinstance(message, dict):
                    read_usage(self.usage, message)
                    if self.usage.output_tokens == 1:
                        self.usage.output_tokens = 0  # it is there before any content
                    if self.threaded:
                        self.stored = stored_message(message)
            case "message_delta":
                read_usage(self.usage, event)
                if isinstance(delta := event.get("delta"), dict):
                    self.stored += stored_container(delta)
                    reason = delta.get("stop_reason")
                    self.answered = self.answered or isinstance(reason, str)
                    if reason == "refusal" and is_free(self.usage, began=self._seen > 0):
                        self.usage = Usage(self.usage.model)
            case "message_stop" | "error" as kind:
                self.complete, self.failed = True, kind == "error"

    def read_overlong(self, start: bytes, end: bytes) -> None:
        """No event this long is the last one of this protocol."""


class MessagesAnswer(JSONMeter):
    threaded: ClassVar[bool] = False

    def read(self, answer: dict[str, Any]) -> None:
        read_usage(self.usage, answer)
        if answer.get("type") == "error":
            self.failed = True
        if answer.get("stop_reason") == "refusal" and is_free(self.usage, began=bool(answer.get("content"))):
            self.usage, self._size = Usage(self.usage.model), 0
        self.stored = stored_container(answer)
        if self.threaded:
            self.stored += stored_message(answer)


class ThreadedStream(MessagesStream):
    threaded = True


class ThreadedAnswer(MessagesAnswer):
    threaded = True


# --- what an account keeps --------------------------------------------------------------------------------------------


def stored(request: RequestHead, status: int, content_type: str) -> Meter | None:
    """For an answer that may contain the id of a file, a batch, a skill …, or what a batch took."""
    if status >= 300 or request.method not in {"POST", "GET"}:
        return None
    path = plain_path(request.path)
    if status == 200 and (results := _RESULTS_OF.fullmatch(path)):
        return BatchResults(results[1])
    if session := _SESSION_EVENTS.fullmatch(path):
        return SessionStream(session[1]) if content_type == "text/event-stream" else SessionEvents(session[1])
    if content_type != "application/json":
        return None
    return None if "/models" in path or path.endswith(_NOTHING_KEPT) else KeptAnswer()


def refers_to(request: RequestHead, body: Body) -> tuple[str, ...]:
    """`Provider.refers_to`: in the path, and the body's files, container, skills, earlier answer and what a managed
    agent has."""
    return ids_in_path(request.path) + ids_in_body(body, _REFERENCES)


def lists(request: RequestHead) -> Lists:
    """`Provider.lists`."""
    return stored_lists(request)


def own_addresses(request: RequestHead) -> re.Pattern[bytes] | None:
    """`Provider.own_addresses`: a batch's `results_url`, which the Python and TypeScript SDKs ask with their own key.
    They take what is left of it for a path below their base URL."""
    return _RESULTS if _BATCHES.fullmatch(request.path) else None


# --- models ----------------------------------------------------------------------------------------------------------


def list_models(request: RequestHead, answer: bytes, names: Mapping[str, str]) -> bytes | None:
    """`GET /v1/models` with `names` after the upstream's own, on the last page: the next one begins behind an id that
    the upstream knows. And one of these names by itself, where the upstream has no such model."""
    if request.method != "GET":
        return None
    if (name := named_model(request.path)) in names:
        return None if answer else json.dumps(_model(name)).encode()
    if not _MODELS.fullmatch(request.path) or (answer and not names):
        return None
    listed = Body(answer).json() if answer else {"has_more": False}
    if not listed or listed.get("has_more") is True:
        return None
    data = listed.get("data")
    models = data if isinstance(data, list) else []
    known = {model["id"]: model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)}
    models += [_model(name, known.get(stands_for)) for name, stands_for in names.items() if name not in known]
    ids = [model["id"] for model in models if isinstance(model, dict) and "id" in model]
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return json.dumps({**listed, "data": models, **ends}).encode()


def _model(name: str, like: dict[str, Any] | None = None) -> dict[str, Any]:
    """With what the model that it stands for can do: clients go by its context window, say."""
    created = "1970-01-01T00:00:00Z"  # the field is required, and nobody knows
    unknown = {"type": "model", "created_at": created, "lifecycle": "active"}
    return {**unknown, **(like or {}), "id": name, "display_name": name}


# --- where its clients ask -----------------------------------------------------------------------------------------


def versioned(target: str) -> str:
    """A target with one `/v1`. Base URLs that end in a slash or in `/v1` make `//v1/messages` and `/v1/v1/messages` of
    Claude Code's path, and with both `/v1//messages` of others'; Vercel's AI SDK, which wants `/v1` in its base, makes
    `/messages` of one that Claude Code takes."""
    if (versions := _VERSIONS.match(target)) is not None:
        return "/v1/" + target[versions.end() :]
    target = "/" + target.lstrip("/")
    return "/v1" + target if _UNVERSIONED.fullmatch(target) else target


def speaks(path: str) -> bool:
    """`Provider.speaks`."""
    return _OWN_PATH.fullmatch(path) is not None


def base_url_advice(base: str) -> str:
    """`Provider.base_url_advice`. Clients add `/v1/messages` themselves."""
    return f"set ANTHROPIC_BASE_URL (or the SDK's base_url) to {base}"


# --- conversations -------------------------------------------------------------------------------------------------


def conversation_key(request: RequestHead, body: Body) -> str | None:
    """Claude Code's session header, else the session in `metadata.user_id`.

    The latter is `user_…_account_…_session_UUID`, or in newer clients a JSON object in a string. An id without a
    session part names a person, not a conversation.
    """
    if session := request.headers.get("x-claude-code-session-id"):
        return session
    if not body.encoding and b'"user_id"' not in body.raw:
        return None  # spares parsing 60 kB
    metadata = body.json().get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    if not isinstance(user_id, str):
        return None
    if match := _SESSION.search(user_id):
        return match[1]
    try:
        named = json.loads(user_id)
    except (ValueError, RecursionError):
        return None
    session = named.get("session_id") if isinstance(named, dict) else None
    return session if isinstance(session, str) and session else None
