"""OpenAI's formats: Responses, and the older Chat Completions."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from aimux.plugin.body import Body
from aimux.plugin.errors import ErrorKind, LimitReached, PromptTooLong, RateLimited, RequestRefused
from aimux.plugin.formats import openai_limits, openai_media, openai_problems
from aimux.plugin.formats.openai_meters import (
    BackgroundStream,
    ChatStream,
    CompletionStream,
    OpenAIAnswer,
    ResponsesStream,
)
from aimux.plugin.formats.openai_usage import BEGINS, told_over
from aimux.plugin.meters import Meter, StoredAnswer
from aimux.plugin.provider import ErrorAnswer
from aimux.plugin.reading import media_type, named_model, plain_path
from aimux.plugin.sse_meter import SSEMeter
from aimux.plugin.stored import EVERYBODYS, LONGEST_ID, Lists, ids_in_path, ids_of, is_id, members, values_in_body
from aimux.plugin.stored import lists as stored_lists
from aimux.plugin.types import RELAY, Action, RequestHead, Verdict
from aimux.plugin.unnamed_answers import UnnamedAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.plugin.errors import GatewayError
    from aimux.plugin.types import Headers

_CODES = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "timeout"),
}
_MEDIA = (
    "/images/generations",
    "/images/edits",
    "/images/variations",
    "/audio/transcriptions",
    "/audio/translations",
    "/audio/speech",
    "/embeddings",
)
_CALLS = re.compile(
    r".*/(?:realtime(?:/translations)?(?:/calls(?:/[^/]+/accept)?)?|live/sessions(?:/[^/]+/(?:accept|fork))?)"
)
"""A call begins where its sound is agreed on, or where one that comes by telephone is taken."""
_ANSWERED = ("/responses", "/responses/compact", "/completions", "/decisions", "/memories/trace_summarize")
"""The last one is Codex's: its answer says nothing of what it took."""
_SEARCH = "/alpha/search"
"""Where Codex searches the web by itself, for models that do not do it as a tool."""
_METERED = (*_ANSWERED, _SEARCH, *_MEDIA)
_KEYS = (
    "/client_secrets",
    "/realtime/sessions",
    "/realtime/transcription_sessions",
    "/chatkit/sessions",
    "/client/sessions",
    "/keys",
    "/keys/code",
)
"""Their answers hold a key of the account, for a browser or a phone, the fifth being Mistral's. The last two are
OpenRouter's: a key that stays, and a code for which it gives one."""
_NOTHING_KEPT = ("/content", "/completions", "/embeddings", "/moderations", "/input_items", "/input_tokens")
_MAY_REFER = ("voice", "video", "consent", "source", "session_id", "credential_id")
"""What may be the id of something stored, and is another word or somebody else's id more often."""
_REFERENCES = members(
    *_MAY_REFER,
    "previous_response_id",
    "conversation",
    "container",
    "container_id",
    "file_id",
    "file_ids",
    "input_file_id",
    "training_file",
    "validation_file",
    "vector_store_id",
    "vector_store_ids",
    "batch_id",
    "assistant_id",
    "thread_id",
    "eval_id",
    "skill_id",
    "upload_id",
    "video_id",
    "agent_id",
    "vault_id",
    "vault_ids",
    "environment_template_id",
    "comparison_response_id",
)
_ITEM = re.compile(
    rb'"item_reference"\s*,\s*"id"\s*:\s*"([^"\\]{1,%d})"|"id"\s*:\s*"([^"\\]{1,%d})"\s*,\s*"type"\s*:\s*"item_reference"'
    % (LONGEST_ID, LONGEST_ID)
)
_RUNS = re.compile(r"(?:/v1)*/evals/[^/]+/runs", re.IGNORECASE)
_OF_EVERYBODY = ("responses", "stored_completions")
_OWN_PATH = re.compile(r"(?:.*/(?:v1|codex)/*)?/(?:responses(?:/compact)?|chat/completions|embeddings)/?")
_MODELS = re.compile(r"/*(?:v1/+)*(?:(?:backend-api/)?codex/+(?:v1/+)*)?models/*")
_SESSION_HEADERS = ("session_id", "session-id", "thread-id", "conversation_id", "x-codex-turn-state")

# --- aimux's own errors ----------------------------------------------------------------------------------------------


def error(error: GatewayError) -> ErrorAnswer:
    """An error answer's body."""
    if isinstance(error, (PromptTooLong, RateLimited)) and _streams_responses(error.request):
        return ErrorAnswer(stream_error(error, error.request), "text/event-stream", status=200)
    # Codex ignores x-should-retry: after a 5xx it asks 30 times in 24 s; only a 400 makes it stop and say why.
    status = 400 if error.retry is False and error.status >= 500 else None
    headers = openai_limits.refusal(error) if isinstance(error, LimitReached) else {}
    return ErrorAnswer(json.dumps({"error": _object(error)}).encode(), status=status, headers=headers)


def stream_error(error: GatewayError, request: RequestHead) -> bytes:
    """What ends a stream with an error: `response.failed` in Responses, a bare error object in Chat Completions."""
    if not request.path.endswith("/responses"):
        return b"data: " + json.dumps({"error": _object(error)}).encode() + b"\n\n"
    return b"event: response.failed\ndata: " + json.dumps(_failed(error)).encode() + b"\n\n"


def websocket_error(error: GatewayError) -> bytes:
    """What ends a turn with an error on a socket. Codex treats `status` like an answer's, and does not repeat after a
    4xx: for a 429 that is over in seconds it shows the number, and stops. If a turn failed by `rate_limit_exceeded`, it
    shows the message, waits as long as that says, and asks again."""
    if isinstance(error, PromptTooLong) or (error.status == 429 and error.retry is not False):
        return json.dumps(_failed(error)).encode()
    message = {"type": "error", "status": error.status, "error": _object(error)}
    if isinstance(error, LimitReached):
        message["headers"] = openai_limits.refusal(error)
    return json.dumps(message).encode()


def _streams_responses(request: RequestHead) -> bool:
    """Codex, unlike SDKs, only takes events, and only there looks for `context_length_exceeded`: then it shortens the
    conversation, while of a 400 it shows the JSON. Of a 429 it shows nothing but the number, of a turn that failed by
    `rate_limit_exceeded` the message; after both it asks again when it was told to."""
    return request.path.endswith("/responses") and request.headers.get("accept") == "text/event-stream"


def _failed(error: GatewayError) -> dict[str, Any]:
    named = _object(error)
    return {
        "type": "response.failed",
        "sequence_number": 0,
        "response": {
            "id": f"resp_{error.request_id or 'aimux'}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "failed",
            "error": {"code": named["code"], "message": named["message"]},
            "incomplete_details": None,
            "output": [],
            "usage": None,
        },
    }


def _object(error: GatewayError) -> dict[str, Any]:
    if isinstance(error, LimitReached):
        return openai_limits.error_object(error)
    fallback = ("server_error", "server_error") if error.status >= 500 else ("invalid_request_error", None)
    kind, code = _CODES.get(error.status, fallback)
    if isinstance(error, PromptTooLong):
        code = "context_length_exceeded"
    return {"message": error.message, "type": kind, "param": None, "code": code}


# --- what an upstream answers ----------------------------------------------------------------------------------------


def lacks(body: bytes, model: str) -> bool:
    """Whether an error says that the account does not have this model, which another one may have."""
    return openai_problems.lacks(openai_problems.problem(body), model)


def opening(payload: bytes) -> Verdict | None:
    """`Provider.opening`: overloads are also reported inside a 200."""
    decided, problem = openai_problems.opening_error(payload)
    if not decided:
        return None
    code = openai_problems.overload(problem)
    return Verdict(Action.BACK_OFF, f"{code} at the start of a stream") if code else RELAY


# --- usage -----------------------------------------------------------------------------------------------------------


def meter(
    request: RequestHead, status: int, headers: Headers, *, responses: Callable[[], SSEMeter] | None = None
) -> Meter | None:
    """`Provider.meter`. Reading a stored response or listing models consumes nothing.

    `responses` makes a meter of the provider's own for Responses streams.
    """
    path = request.path
    if status >= 300 or request.makes_nothing:
        return stored(request, status, headers)
    if not path.endswith(_METERED):
        path = plain_path(path).lower()
        from aimux.plugin.formats.openai_strangers import stranger_meter  # few ask any of them

        stranger = stranger_meter(path, media_type(headers.get("content-type", "")))
        if stranger is not None:
            return stranger
    if path.endswith(_MEDIA):
        return openai_media.media_meter(path, media_type(headers.get("content-type", "")))
    if _CALLS.fullmatch(path):
        return openai_media.UnseenCall(headers.get("location", ""))
    if _is_events(headers):
        if path.endswith("/responses"):
            return (responses or ResponsesStream)()
        if path.endswith("/chat/completions"):
            return ChatStream()
        return CompletionStream() if path.endswith("/completions") else stored(request, status, headers)
    if path.endswith(_SEARCH):
        return openai_media.SearchAnswer()
    if path.endswith(_ANSWERED):
        if _is_json(headers):
            return OpenAIAnswer()
        chat = ChatStream if path.endswith("/chat/completions") else CompletionStream
        return UnnamedAnswer(chat if path.endswith("/completions") else responses or ResponsesStream, OpenAIAnswer)
    return stored(request, status, headers)


def _is_events(headers: Headers) -> bool:
    return media_type(headers.get("content-type", "")) == "text/event-stream"


def _is_json(headers: Headers) -> bool:
    return media_type(headers.get("content-type", "")) == "application/json"


# --- what an account keeps --------------------------------------------------------------------------------------------


class KeptAnswer(StoredAnswer):
    keys = ("output_file_id", "error_file_id", "fine_tuned_model")

    def read(self, answer: dict[str, Any]) -> None:
        super().read(answer)
        files = answer.get("result_files")
        made = [answer.get("file"), *(files if isinstance(files, list) else [])]  # of an upload, of a fine-tuning job
        ids = [one.get("id") if isinstance(one, dict) else one for one in made]
        self.stored += tuple(one for one in ids if isinstance(one, str) and one)
        if answer.get("object") in BEGINS and self.stored:
            self.begun = self.stored[0]
        data = answer.get("data") if answer.get("object") == "list" else None
        told = [one for one in (answer, *(data if isinstance(data, list) else ())) if isinstance(one, dict)]
        self.over = tuple(over for one in told for over in told_over(one))


class SessionStream(SSEMeter):
    """What happens in an agents' session: some events have the session itself, with what it took so far."""

    sees_end = False
    consumes = False
    complete = True
    needles = (
        b'"agent.session.created"',
        b'"agent.session.idle"',
        b'"agent.session.requires_action"',
        b'"agent.session.failed"',
    )

    def read(self, event: dict[str, Any]) -> None:
        if isinstance(session := event.get("session"), dict) and isinstance(one := session.get("id"), str):
            self.stored, self.begun = (one,), one
            self.over = told_over(session) or self.over


def stored(request: RequestHead, status: int, headers: Headers) -> Meter | None:
    """For an answer that may contain the id of a file, a batch, a vector store, a conversation …, or what a batch
    took."""
    if status >= 300 or request.method not in {"POST", "GET"}:
        return None
    path = plain_path(request.path)
    if _is_events(headers):
        if "/agents/sessions" in path.lower():
            return SessionStream()
        return BackgroundStream() if request.method == "GET" and "/responses/" in path.lower() else None
    if not _is_json(headers):
        return None
    return None if "/models" in path or path.endswith(_NOTHING_KEPT) else KeptAnswer()


def refers_to(request: RequestHead, body: Body) -> tuple[str, ...]:
    """`Provider.refers_to`: in the path, and the body's `previous_response_id`, `file_id`s and the like."""
    return ids_in_path(request.path) + _by_member(request, body) + _by_content(body)


def _by_member(request: RequestHead, body: Body) -> tuple[str, ...]:
    found: dict[str, None] = {}
    runs = request.method == "POST" and _RUNS.fullmatch(plain_path(request.path)) is not None
    for name, value in values_in_body(body, _REFERENCES):
        ids = ids_of(value)
        found.update(dict.fromkeys(filter(is_id, ids) if name in _MAY_REFER else ids))
        if runs and name == "source" and isinstance(value, dict) and value.get("type") in _OF_EVERYBODY:
            found[EVERYBODYS] = None
    return tuple(found)


def _by_content(body: Body) -> tuple[str, ...]:
    """Of the items of earlier answers that a request names instead of repeating them (as Vercel's AI SDK does) one:
    there may be a thousand, all from one account."""
    data = body.raw if not body.encoding else body.decoded() or b""
    item = _ITEM.search(data) if b'"item_reference"' in data else None
    return ((item[1] or item[2]).decode("ascii", "replace"),) if item else ()


def lists(request: RequestHead) -> Lists:
    """`Provider.lists`. Nobody knows whose a stored chat completion is: its answer does not say that it is stored."""
    if request.method == "GET" and plain_path(request.path).endswith("/completions"):
        return "refused"
    return stored_lists(request)


def own_addresses(request: RequestHead) -> re.Pattern[bytes] | None:
    """`Provider.own_addresses`: there are none; what clients download from elsewhere needs no key."""
    return None


# --- what does not pass -----------------------------------------------------------------------------------------------


def refuse_keys(request: RequestHead) -> None:
    """For `Provider.prepare`. Raises RequestRefused where the answer would hold a key of the account: whoever has it
    asks the vendor past aimux, for up to two hours, whatever the limits are, and even after their token was revoked."""
    path = request.path
    if not (request.makes_nothing or path.endswith(_METERED)) and plain_path(path).lower().endswith(_KEYS):
        raise RequestRefused(
            "aimux gives out no key of its accounts, and this one would work without aimux. Whoever runs aimux can "
            "make one at the vendor.",
            kind=ErrorKind.FORBIDDEN,
        )


# --- models ----------------------------------------------------------------------------------------------------------


def list_models(request: RequestHead, answer: bytes, names: Mapping[str, str]) -> bytes | None:
    """`GET /v1/models` with `names` after the upstream's own.

    SDKs look for models in `data`, by their `id`. Codex, which names its version, takes `models` with all that it has
    to know about each, by their `slug`, as the Codex backend lists them. There a name of ours has the description of
    the model that it stands for. Names without one are left out: for these Codex uses its own knowledge.

    One of these names may be asked for by itself as well.
    """
    if request.method != "GET":
        return None
    if (name := named_model(request.path)) in names:
        return None if answer else json.dumps(_model(name, "aimux")).encode()
    if not _MODELS.fullmatch(request.path):
        return None
    listed = Body(answer).json()
    data, codex = listed.get("data"), listed.get("models")
    asks = isinstance(codex, list) or "client_version=" in request.target
    whole = isinstance(data, list) and isinstance(codex, list) if asks else True
    if answer and (not listed or (whole and not names)):
        return None
    models = data if isinstance(data, list) else []
    described = [model for model in codex if isinstance(model, dict)] if isinstance(codex, list) else []
    by_slug = {slug: model for model in described if isinstance(slug := model.get("slug"), str)}
    known = [model.get("id") for model in models if isinstance(model, dict)]  # of any type, foreign as they are
    for name, owner in [*dict.fromkeys(by_slug, "openai").items(), *dict.fromkeys(names, "aimux").items()]:
        if name not in known:
            known.append(name)
            models.append(_model(name, owner))
    told = {"object": "list", **listed, "data": models}
    if asks:
        ours = [
            by_slug[model] | {"slug": name, "display_name": name}
            for name, model in names.items()
            if name not in by_slug and model in by_slug
        ]
        told["models"] = [*(codex if isinstance(codex, list) else []), *ours]
    return json.dumps(told).encode()


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


# --- where its clients ask -----------------------------------------------------------------------------------------


def speaks(path: str) -> bool:
    """`Provider.speaks`."""
    return _OWN_PATH.fullmatch(path) is not None


def base_url_advice(base: str) -> str:
    """`Provider.base_url_advice`. Clients expect `/v1` in it."""
    return f"set OPENAI_BASE_URL (the SDK's base_url, or base_url in Codex's config.toml) to {base}/v1"


# --- conversations -------------------------------------------------------------------------------------------------


def conversation_key(request: RequestHead, body: Body) -> str | None:
    """Codex's session or thread, else the turn that a request belongs to, else the client's own cache key."""
    headers = request.headers
    for name in _SESSION_HEADERS:
        if session := headers.get(name):
            return session
    if not body.encoding and b'"prompt_cache_key"' not in body.raw:
        return None  # spares parsing 60 kB
    key = body.json().get("prompt_cache_key")
    return key if isinstance(key, str) and key else None
