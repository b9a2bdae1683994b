"""What OpenAI's answers say about limits, and what its errors mean for the account."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict, istr

from aimux.plugin import RELAY, Action, LimitWindow, Verdict, number, retry_after
from aimux.plugin.formats import openai_problems
from aimux.plugin.oauth import read_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.plugin import Headers

_RECHECK = 900.0
"""Seconds until an account is tried again whose limit has no known reset (such as no money left)."""
_NO_HEADERS: Headers = CIMultiDict()
_LONGEST = 31 * 86400.0
_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?"
)
_KEYS = ("used_percent", "window_minutes", "reset_at", "reset_after_seconds")
_PLACES = ("primary", "secondary")
_NAMES = tuple(istr(f"x-codex-{place}-{key.replace('_', '-')}") for place in _PLACES for key in _KEYS)
_USED = (_NAMES[0], _NAMES[len(_KEYS)])
_BUCKET = re.compile(r"x-codex-([a-z0-9-]+)-(primary|secondary)-used-percent")
_LIMIT_NAME = re.compile(r"[A-Za-z0-9 ._-]{1,48}")
_PLAN = "codex"
"""What the upstream calls the limit that holds for a whole plan."""
_ODD = re.compile(r"[^a-z0-9]+")
_GONE = {
    "account_deactivated": "OpenAI has deactivated the account",
    "account_suspended": "OpenAI has suspended the account",
    "deactivated_workspace": "the account's workspace is deactivated",
    "invalid_workspace_selected": "the account is not a member of its workspace any more",
    "organization_deactivated": "OpenAI has deactivated the account's organization",
}
"""What a person has to settle with OpenAI or the workspace's owner, by code."""
_TO_SET = {
    "Stream must be set to true": "A ChatGPT login answers Responses as a stream only: set `stream` to true "
    "(with an SDK: stream=True, or client.responses.stream).",
    "Store must be set to false": "A ChatGPT login stores no responses: set `store` to false.",
    "Instructions are required": "A ChatGPT login needs `instructions` in each request: set them.",
}
_LOGINS_OWN = re.compile(r"Not Found|Unsupported parameter: .{1,200}|" + "|".join(_TO_SET), re.DOTALL)
"""What ChatGPT's backend says as its `detail` of requests that an API key may serve: no login does."""
_NO_LOGIN = Verdict(Action.MISSING, "a ChatGPT login does not serve this", kind="oauth")
_USED_UP = re.compile(r"the usage limit has been reached\.?", re.IGNORECASE)
_UNREADABLE = Verdict(Action.MISSING, "it can't read what another account has encrypted")
_FLEX = "flex_unavailable"
"""There is no room at the moment for what is cheap because it may have to wait: with no account."""
_BAD_TOKEN = frozenset({"token_revoked", "token_invalidated", "token_expired"})


def windows(headers: Headers) -> tuple[LimitWindow, ...]:
    """The windows of a ChatGPT plan; () for API keys, whose limits last a minute and hold per model."""
    if _USED[0] not in headers and _USED[1] not in headers:
        return ()
    told = (*map(headers.get, _NAMES),)
    # Called for each answer, with values that change slowly. Without a reset's time they also depend on the clock.
    timed = (told[2] or not told[0]) and (told[6] or not told[4] or told[5] == "0")
    return (_windows if timed else _windows.__wrapped__)(*told)


@lru_cache(maxsize=1024)
def _windows(*told: str | None) -> tuple[LimitWindow, ...]:
    """`told`: the values of _KEYS for each of _PLACES."""
    found = (_window(place, *told[4 * at : 4 * at + 4]) for at, place in enumerate(_PLACES))
    return tuple(window for window in found if window is not None)


def windows_in(event: Mapping[str, Any]) -> tuple[LimitWindow, ...]:
    """The same from a `codex.rate_limits` event."""
    limits = event.get("rate_limits")
    if not isinstance(limits, dict):
        return ()
    told = ((place, limits.get(place)) for place in _PLACES)
    found = (_window(place, *map(window.get, _KEYS)) for place, window in told if isinstance(window, dict))
    kept = [window for window in found if window is not None]
    if bucket := _bucket_of(event):
        kept = [replace(window, name=f"{window.name}_{bucket}", scope=bucket) for window in kept]
    return tuple(kept)


def _bucket_of(event: Mapping[str, Any]) -> str:
    """The models' bucket that a `codex.rate_limits` event is about; "" if that is the plan's own."""
    names = (event.get(key) for key in ("metered_limit_name", "limit_id", "limit_name"))
    name = next((name for name in names if isinstance(name, str) and name), _PLAN)
    name = _ODD.sub("_", name.lower()[:48])
    return "" if name == _PLAN else name.removeprefix(f"{_PLAN}_")


def _window(place: str, used: object, minutes: object, reset_at: object, reset_after: object) -> LimitWindow | None:
    percent, length = _number(used), _number(minutes)
    if percent is None or length == 0:  # a plan with a single window has such a second one
        return None
    resets_at = read_time(reset_at)
    if resets_at is None and (after := _number(reset_after)) is not None:
        resets_at = time.time() + after
    return LimitWindow(
        _name(place, length),
        used=min(1.0, percent / 100),
        resets_at=resets_at,
        status="rejected" if percent >= 100 else "allowed",
    )


def _name(place: str, minutes: float | None) -> str:
    """`5h` for 300 minutes, `7d` for 10080 (or 10079: the upstream is not exact)."""
    if minutes is None or not 0 < minutes < 1e6:
        return place
    if minutes >= 1439:
        return f"{round(minutes / 1440)}d"
    return f"{round(minutes / 60)}h" if minutes >= 59 else f"{round(minutes)}m"


def classify(status: int, headers: Headers, body: bytes, *, login: str, model: str) -> Verdict:
    """`login` is the command that a person runs to log in again."""
    problem = openai_problems.problem(body)
    code = _code(problem)
    if not problem and status in {401, 403}:
        return Verdict(Action.BACK_OFF, f"{status}, not in OpenAI's words: something in between refuses")
    if code == "missing_scope":
        return RELAY  # a restricted key can still serve what it may
    if status in {401, 402, 403} and code in _GONE:
        remedy = f"ask OpenAI's support or the workspace's owner, or log in with another account: {login}"
        return Verdict(Action.PARK, f"{_GONE[code]} ({code})", remedy=remedy)
    if status == 401 or (status == 403 and code in _BAD_TOKEN):
        return Verdict(Action.REFRESH, f"OpenAI did not accept the credential ({code or status})")
    if status in {400, 403, 404} and openai_problems.lacks(problem, model):
        return Verdict(Action.MISSING, "it does not have the model", model=model)
    if status == 400 and openai_problems.unreadable(problem):
        return _UNREADABLE
    if status in {400, 404} and len(problem) == 1 and _LOGINS_OWN.fullmatch(str(problem.get("message")).rstrip(".")):
        return _NO_LOGIN
    if status == 402:
        until = time.time() + _RECHECK
        remedy = "look at billing in OpenAI's console or ChatGPT's settings"
        return Verdict(Action.COOL_DOWN, "the account has to be paid for", until=until, remedy=remedy)
    if status == 403 and problem.get("message") == "Forbidden":
        return Verdict(Action.BACK_OFF, "403, refused without a reason")
    if openai_problems.spent(problem):  # with 400 from some endpoints
        return limited(problem, headers, login=login)
    if code == _FLEX:
        return RELAY
    if code == "usage_limit_reached" and status >= 500:  # lidge-jun/opencodex#3176
        return limited(problem, headers, login=login, model=model)
    if status == 429 or code == "usage_not_included":
        verdict = limited(problem, headers, login=login, model=model)
        unsaid = Verdict(Action.BACK_OFF, "rate limited, and nothing says until when")
        return unsaid if verdict is RELAY and status == 429 else verdict
    if status == 400 and (overload := openai_problems.overload(problem)):
        return Verdict(Action.BACK_OFF, f"OpenAI answered {status} ({overload})")
    if status >= 500 and status != 501:
        return Verdict(Action.BACK_OFF, f"OpenAI answered {status}" + (f" ({code})" if code else ""))
    return RELAY


def explained(body: bytes, *, status: int) -> bytes | None:
    """What ChatGPT's backend says as `detail`, also in OpenAI's shape: SDKs show nothing else."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or "error" in told or not (detail := told.get("detail")):
        return None
    code = detail.get("code") if isinstance(detail, dict) else None
    said = detail if isinstance(detail, str) else json.dumps(detail)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": _TO_SET.get(said.rstrip("."), said), "type": kind, "param": None, "code": code}
    return json.dumps({"error": error, **told}).encode()


def opening(headers: Headers, payload: bytes, *, login: str, model: str) -> Verdict | None:
    """Overloads and used-up limits are also reported inside a 200."""
    decided, problem = openai_problems.opening_error(payload)
    if not decided:
        return None
    code = _code(problem)
    if code != "usage_limit_reached" and (overload := openai_problems.overload(problem)):
        return Verdict(Action.BACK_OFF, f"{overload} at the start of a stream")
    if openai_problems.unreadable(problem):
        return _UNREADABLE
    if openai_problems.lacks(problem, model):
        return Verdict(Action.MISSING, "it does not have the model", model=model)
    # A 200's headers may tell of a used-up window while credits pay: only an error that is about limits has it in them.
    told = headers if code in {"usage_limit_reached", "rate_limit_exceeded"} else _NO_HEADERS
    return limited(problem, told, login=login, model=model)


def in_event(event: Mapping[str, Any], *, login: str, model: str) -> Verdict | None:
    """The same for an error that is an event, with or without the status and headers that it would have had.

    `model` is what the turn asked for.
    """
    problem = openai_problems.problem_in(dict(event))
    status = event.get("status") or event.get("status_code")
    if model and openai_problems.lacks(problem, model):
        return Verdict(Action.MISSING, "it does not have the model", model=model)
    code = _code(problem)
    if status == 401 or code in _BAD_TOKEN:
        return Verdict(Action.REFRESH, f"OpenAI did not accept the credential ({code or status})")
    if openai_problems.unreadable(problem):
        return _UNREADABLE
    if code != "usage_limit_reached" and (words := openai_problems.busy(problem)):
        return Verdict(Action.BACK_OFF, words)
    if code == _FLEX:
        return None
    if status not in (None, 429) and code not in {"usage_not_included", "usage_limit_reached"}:
        return None
    told = event.get("headers")
    headers = CIMultiDict({name: str(value) for name, value in told.items()} if isinstance(told, dict) else {})
    verdict = limited(problem, headers, login=login, model=model)
    return None if verdict is RELAY else verdict


def limited(problem: dict[str, Any], headers: Headers, *, login: str, model: str = "") -> Verdict:
    """RELAY if neither code nor headers say that the account is limited, or until when."""
    code, now = _code(problem), time.time()
    if code == "usage_not_included":
        return Verdict(
            Action.PARK,
            "the account's plan does not include Codex",
            remedy=f"upgrade the plan and enable the account again, or log in with another one: {login}",
        )
    if openai_problems.spent(problem):
        remedy = "add credit or raise the budget in OpenAI's console"
        return Verdict(Action.COOL_DOWN, "the account's quota is used up", until=now + _RECHECK, remedy=remedy)
    bucket = _active_bucket(headers)
    told = _windows_of(headers, bucket) if bucket else windows(headers)
    reset = read_time(problem.get("resets_at"))
    if reset is None and (left := _number(problem.get("resets_in_seconds"))) is not None:
        reset = now + left
    if reset is None:
        reset = max((w.resets_at for w in told if w.status == "rejected" and w.resets_at), default=None)
    if bucket:
        return _of_bucket(bucket, headers, reset, model)
    if reset is not None and reset > now:
        what = "the plan's usage limit is reached" if code == "usage_limit_reached" else "rate limited"
        return Verdict(Action.COOL_DOWN, what, until=min(reset, now + _LONGEST))
    if code == "usage_limit_reached":
        return Verdict(Action.COOL_DOWN, "the plan's usage limit is reached", until=now + _RECHECK)
    wait = retry_after(headers)
    if wait is None:
        wait = _api_reset(headers)
    if wait is None:
        return RELAY
    # An API key has limits for each model.
    keyed = code == "rate_limit_exceeded" or any(name.lower().startswith("x-ratelimit-") for name in headers)
    return Verdict(
        Action.COOL_DOWN, "rate limited", until=now + min(wait, _LONGEST), model=model if model and keyed else None
    )


def _code(problem: Mapping[str, Any]) -> str:
    """The error's code; the one of a used-up plan also where its words alone tell."""
    message = problem.get("message")
    if isinstance(message, str) and _USED_UP.fullmatch(message):
        return "usage_limit_reached"
    return openai_problems.code_of(dict(problem))


def _of_bucket(bucket: str, headers: Headers, reset: float | None, model: str) -> Verdict:
    """The plan has a limit of its own for some models: the account serves the others."""
    name = headers.get(f"x-codex-{bucket}-limit-name", "").strip()
    what = f"the limit of {name if _LIMIT_NAME.fullmatch(name) else bucket} is reached"
    if not model:
        return Verdict(Action.BACK_OFF, what)
    until = time.time() + _RECHECK if reset is None else min(reset, time.time() + _LONGEST)
    return Verdict(Action.COOL_DOWN, what, until=until, model=model)


def _active_bucket(headers: Headers) -> str | None:
    """The name of the models' bucket that a refusal is about; None if it is about the plan's own windows."""
    found = [match for name in headers if (match := _BUCKET.fullmatch(name.lower()))]
    active = headers.get("x-codex-active-limit", "").strip().lower().replace("_", "-")
    name = active.removeprefix("codex-")
    if name and (name != active or name in {match[1] for match in found}):
        return name
    full = [match[1] for match in found if (_number(headers[match[0]]) or 0) >= 100]
    plan = windows(headers)
    room = plan and not any(window.status == "rejected" for window in plan)
    return full[0] if full and room else None


def _windows_of(headers: Headers, bucket: str) -> list[LimitWindow]:
    found = []
    for place in _PLACES:
        told = (headers.get(f"x-codex-{bucket}-{place}-{key.replace('_', '-')}") for key in _KEYS)
        if (window := _window(place, *told)) is not None:
            found.append(window)
    return found


def _api_reset(headers: Headers) -> float | None:
    """API keys: seconds (`1s`, `6m0s`, `120ms`) until the last of the limits with nothing left has room again."""
    waits = []
    for limit in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{limit}", "").strip() == "0":
            match = _DURATION.fullmatch(headers.get(f"x-ratelimit-reset-{limit}", "").strip())
            if match and any(match.groups()):
                parts = zip(match.groups("0"), (86400, 3600, 60, 1, 0.001), strict=True)
                waits.append(sum(float(part) * unit for part, unit in parts))
    return max(waits, default=None)


def _number(value: object) -> float | None:
    found = number(value)
    return found if found is not None and 0 <= found < 1e9 else None
