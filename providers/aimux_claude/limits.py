"""What Anthropic's answers say about limits, and what its errors mean for the account."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from multidict import istr

from aimux.plugin import RELAY, Action, LimitWindow, Verdict, retry_after
from aimux.plugin.formats import anthropic
from aimux.plugin.oauth import read_time

if TYPE_CHECKING:
    from aimux.plugin import Headers

_UNIFIED = "anthropic-ratelimit-unified-"
_STATUS_NAME: Final = istr(_UNIFIED + "status")
_WINDOWS: Final = tuple(
    (window, *(istr(f"{_UNIFIED}{window}-{what}") for what in ("status", "reset", "utilization")))
    for window in ("5h", "7d", "7d_oi", "overage")
)
_API = "anthropic-ratelimit-"
_API_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")
_STATUS = {"allowed": "allowed", "allowed_warning": "warning", "rejected": "rejected"}
_LENGTH = re.compile(r"(\d{1,3})([hd])")
_SECONDS = {"h": 3600.0, "d": 86400.0}
_NO_CREDIT_RECHECK = 900.0
_LONGEST = 31 * 86400.0
_UNSEEN_RECHECK = 86400.0
"""How long a limit is believed that no window shows: it may be one of paid usage, told until the month's end, while
what is included begins anew sooner."""

# Whole messages, because Anthropic quotes what the client sent: a body with the key "This organization has been
# disabled" is answered `This organization has been disabled: Extra inputs are not permitted`. No client may park an
# account with words of its own.
_DISABLED = re.compile(r"(?:this|your) organization has been disabled\.?", re.IGNORECASE)
_OAUTH_OFF = re.compile(
    r"oauth authentication is currently not (?:allowed|supported)(?: for this organization)?\.?", re.IGNORECASE
)
_NO_CREDIT = re.compile(
    r"your credit balance is too low to access the \w+ api\."
    r"(?: please go to plans & billing to upgrade or purchase credits\.)?",
    re.IGNORECASE,
)
_CORS = "cors requests must set"
"""A request with `Origin` is refused before its credential is looked at."""
_MEMBER = re.compile(
    r"(?:this |your )?account is (?:no longer|not) a member of (?:the|this|your) organization(?: [a-z ]{1,40})?\.?"
    r"(?: please [a-z ,.'-]{1,120})?",
    re.IGNORECASE,
)
_PLAN = re.compile(
    r"(?:this|your) (?:organization|account|plan|subscription) (?:does not|doesn't) (?:have access to|include) "
    r"claude(?: code)?\.?(?: please [a-z ,.'-]{1,120})?",
    re.IGNORECASE,
)
_SPENT = re.compile(
    r"you have reached your specified (?:\w+ )?api usage limits\. you will regain access on (.{8,40}?)\.?",
    re.IGNORECASE,
)
_DATES = ("%Y-%m-%d at %H:%M UTC", "%Y-%m-%d at %H:%M:%S UTC", "%Y-%m-%d %H:%M UTC", "%Y-%m-%d", "%B %d, %Y")
_ABOUT_REQUEST = re.compile(r"(?:extra usage|usage credits?)\b", re.IGNORECASE)
_CREDITS_FOR_MODEL = re.compile(r"(?:extra usage|usage credits?) (?:is|are) required for this model\b", re.IGNORECASE)
_OTHER_CLIENTS = re.compile(r"third-party apps (?:now )?draw from your (?:extra usage|usage credits?)\b", re.IGNORECASE)
"""Such a request is paid for apart. That a credential is for Claude Code alone is the vendor's word about the request:
it goes to the client, and is not got round with another account."""
_CREDITS_FOR_KIND = re.compile(
    r"(?:extra usage|usage credits?) (?:is|are) required for (long context requests|fast mode)\b", re.IGNORECASE
)
_FAST = re.compile(r"\bfast mode\b", re.IGNORECASE)
_FAST_LEFT = ("anthropic-fast-input-tokens-remaining", "anthropic-fast-output-tokens-remaining")
"""It has limits of its own, which may be 0."""
_OUT_OF_EXTRA = re.compile(r"you(?:'|\u2019)re out of (?:extra usage|usage credits?)\b", re.IGNORECASE)
_NO_LONG_CONTEXT = re.compile(
    r"the long context beta is not (?:yet )?available for this (?:subscription|organization|account)\.?"
    r"|this authentication style is incompatible with the long context beta header\.?",
    re.IGNORECASE,
)
# Codes that Anthropic documents: unlike messages, nobody else's words get into them.
_SPENT_CODES = frozenset({"enforced_spend_limit_reached", "contract_spend_limit_reached"})
_CUSTOMERS = ("user_profile_", "linked_organization_")
"""How codes begin that are about whoever the client has billed instead of the account."""
_ENCRYPTION = ("cmek_key_", "cmek_context_")
_SCOPE = re.compile(r"oauth token does not meet scope requirement .*\buser:inference\b", re.IGNORECASE)
"""Of a login that may look at the account, but not ask models: anything else that it lacks is about the request."""
_REVOKED = re.compile(r"(?:the |this |your )?oauth (?:access )?token (?:has been|was) revoked\b", re.IGNORECASE)


_HELD = Verdict(
    Action.PARK,
    "Anthropic has disabled the account's organization",
    remedy="ask Anthropic's support, then enable the account again; or remove it",
)


def windows(headers: Headers) -> tuple[LimitWindow, ...]:
    """The unified windows in an answer; () for API keys.

    `overage` is paid extra usage, and a name with an underscore holds for some models only: both get a `scope`, so
    that they don't count against the whole account. While extra usage pays, a used-up window rejects nothing.
    """
    get = headers.get
    overall = get(_STATUS_NAME)
    if overall is None:
        return ()
    # Read for every answer, so the names are fixed, and each window is kept as it was read: they change one at a time.
    paid = overall != "rejected"
    found = []
    for window, status_name, reset_name, used_name in _WINDOWS:
        status = get(status_name)
        if status is not None:
            found.append(_window(window, status, get(reset_name), get(used_name), paid))
    return tuple(found)


def is_paid(headers: Headers) -> bool:
    """Whether an answer was paid extra usage."""
    return (
        headers.get(_UNIFIED + "overage-in-use") == "true"
        or headers.get(_UNIFIED + "representative-claim") == "overage"
    )


def _told(headers: Headers) -> list[LimitWindow]:
    """All windows, whatever their names, each as it is."""
    found: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        window, _, what = name.lower().removeprefix(_UNIFIED).rpartition("-")
        if window[:1].isdigit() and what in {"status", "reset", "utilization"}:
            found.setdefault(window, {})[what] = value
    return [
        _window(window, told.get("status", ""), told.get("reset"), told.get("utilization"), False)
        for window, told in found.items()
    ]


@lru_cache(maxsize=1024)
def _window(window: str, status: str, reset: str | None, utilization: str | None, paid: bool) -> LimitWindow:
    status = _STATUS.get(status, "allowed")
    return LimitWindow(
        window,
        used=_fraction(utilization),
        resets_at=read_time(reset),
        status="warning" if paid and status == "rejected" else status,
        scope=window if window == "overage" else window.partition("_")[2] or None,
    )


def classify(status: int, headers: Headers, body: bytes, *, model: str, login: str) -> Verdict:
    """`login` is the command that a person runs to log in again."""
    kind, message = anthropic.problem(body)
    if not (kind or message) and status in {401, 403}:
        return Verdict(Action.BACK_OFF, f"{status}, not in Anthropic's words: something in between refuses")
    code = anthropic.error_code(body)
    if status < 500 and (verdict := _by_code(code, login)) is not None:
        return verdict
    if status == 401 and message.lower().startswith(_CORS):
        return RELAY
    if status in {400, 401, 403} and (_OAUTH_OFF.fullmatch(message) or code == "oauth_not_allowed_for_organization"):
        # For good where the subscription has lapsed or is unpaid, or the organization's owner wants it so; but single
        # requests of accounts that serve are refused in these words, too. So it is checked first.
        return Verdict(
            Action.REFRESH,
            "Anthropic does not allow OAuth for the account's organization",
            remedy="pay or renew its subscription at claude.ai/settings/billing and enable the account again, "
            f"use an API key, or log in with another account: {login}",
        )
    if status == 403 and kind == "forbidden":  # which is none of the API's own words: "Request not allowed"
        return Verdict(Action.BACK_OFF, "403, refused in front of Anthropic's API")
    if status == 401:
        return Verdict(Action.REFRESH, f"Anthropic did not accept the credential ({kind or status})")
    if status in {400, 403, 429} and (spent := _SPENT.fullmatch(message)):
        until = _date(spent[1]) or time.time() + _NO_CREDIT_RECHECK
        remedy = "raise the limit in Anthropic's console"
        return Verdict(Action.COOL_DOWN, "the account's own usage limit is reached", until=until, remedy=remedy)
    if status == 402:
        return Verdict(
            Action.COOL_DOWN,
            "something is wrong with the account's billing or credit",
            until=time.time() + _NO_CREDIT_RECHECK,
            remedy="look at billing in Anthropic's console",
        )
    if status == 429:
        return _limited(headers, body, message, model)
    if status in {400, 403}:
        return _refused(status, message, login)
    if status == 404 and anthropic.lacks(body, model):
        return Verdict(Action.MISSING, "it does not have the model", model=model)
    if status >= 500 and status != 501:
        return Verdict(Action.BACK_OFF, f"Anthropic answered {status}" + (f" ({kind})" if kind else ""))
    return RELAY


def _by_code(code: str, login: str) -> Verdict | None:
    if code.startswith(_CUSTOMERS):
        return RELAY
    if code in _SPENT_CODES:  # a 429 without a time: until the month ends, or somebody raises it
        return Verdict(
            Action.COOL_DOWN,
            "the account's own usage limit is reached",
            until=time.time() + _NO_CREDIT_RECHECK,
            remedy="ask for a higher limit in Anthropic's console",
        )
    if code in {"organization_on_hold", "organization_disabled"}:
        return _HELD
    if code == "verification_required":
        return Verdict(
            Action.PARK,
            "Anthropic wants the account verified",
            remedy="verify it at claude.ai or platform.claude.com (on a team's plan its owner may have to), "
            "then enable the account again",
        )
    if code == "ip_not_in_allowed_range":
        return Verdict(
            Action.COOL_DOWN,
            "its organization allows no requests from this server's address",
            until=time.time() + _NO_CREDIT_RECHECK,
            remedy="have the address added to the organization's list of allowed ones",
        )
    if code == "claude_code_key_creator_not_member":
        remedy = f"have them added again and enable the account, make another key, or log in: {login}"
        return Verdict(Action.PARK, "whoever made the account's key is not in its organization any more", remedy=remedy)
    if code.startswith(_ENCRYPTION):
        return Verdict(Action.BACK_OFF, "its workspace's encryption key can't be used")
    return None


def _refused(status: int, message: str, login: str) -> Verdict:
    if _DISABLED.fullmatch(message):
        return _HELD
    if _NO_CREDIT.fullmatch(message):
        return Verdict(
            Action.COOL_DOWN,
            "the account's credit is used up",
            until=time.time() + _NO_CREDIT_RECHECK,
            remedy="buy credit in Anthropic's console",
        )
    if status == 403 and _MEMBER.fullmatch(message):
        remedy = f"have it added again and enable it, or log in with another one: {login}"
        return Verdict(Action.PARK, "the account is not a member of its organization any more", remedy=remedy)
    if status == 403 and _PLAN.fullmatch(message):
        remedy = f"upgrade the plan and enable the account again, or log in with another one: {login}"
        return Verdict(Action.PARK, "the account's plan does not include Claude", remedy=remedy)
    if status == 403 and _REVOKED.match(message):
        return Verdict(Action.REFRESH, "the OAuth token has been revoked", remedy=f"log in again: {login}")
    if status == 403 and _SCOPE.match(message):
        return Verdict(Action.REFRESH, "its login may not ask models", remedy=f"log in again: {login}")
    if status == 403 and message.rstrip(".").lower() == "permission denied":
        return Verdict(Action.BACK_OFF, "403, refused without a reason")
    if _NO_LONG_CONTEXT.fullmatch(message):
        return Verdict(Action.MISSING, "it does not have the long context")
    if _OTHER_CLIENTS.match(message):
        return Verdict(Action.MISSING, "it has no extra usage for this client")
    if _OUT_OF_EXTRA.match(message):
        return Verdict(Action.BACK_OFF, "it has no extra usage left for this request")
    return RELAY


def _limited(headers: Headers, body: bytes, message: str, model: str) -> Verdict:
    """A 429 limits the account only if it says until when, and is not about extra usage that this request would pay
    for.

    The reset of a window that is not rejected says when that one begins anew, and nothing about this request. If all
    is rejected and none of the windows, the model has a limit that no window shows (Wei-Shaw/sub2api#6484). An API key
    has limits for each model, too.
    """
    if model and (_CREDITS_FOR_MODEL.match(message) or anthropic.error_code(body) == "credits_required"):
        return Verdict(Action.MISSING, "it has no credits for the model", model=model)
    if paid := _CREDITS_FOR_KIND.match(message):
        return Verdict(Action.MISSING, f"it has no credits for {paid[1].lower()}")
    if _FAST.search(message) or any(headers.get(name, "").strip() == "0" for name in _FAST_LEFT):
        return Verdict(Action.MISSING, "it has no room left in fast mode")
    if _ABOUT_REQUEST.search(message):
        return RELAY
    now, told = time.time(), _told(headers)
    if _STATUS_NAME not in headers and headers.get(_UNIFIED + "overage-disabled-reason") == "out_of_credits":
        return Verdict(
            Action.COOL_DOWN,
            "the account has neither a plan nor credit left",
            until=now + _NO_CREDIT_RECHECK,
            remedy="buy credit, or subscribe to a plan",
        )
    overall = headers.get(_STATUS_NAME) == "rejected"
    rejected = [window for window in told if window.status == "rejected"]
    unseen = overall and bool(told) and not rejected
    keyed = not told and any(f"{_API}{limit}-remaining" in headers for limit in _API_LIMITS)
    whole = [window for window in rejected if window.scope is None]
    resets = [min(w.resets_at, now + _length(w.name)) for w in whole or rejected if w.resets_at and w.resets_at > now]
    if resets:
        names = ", ".join(window.name for window in whole or rejected)
        if not whole and not model:
            return Verdict(Action.BACK_OFF, f"the {names} limit is reached, which holds for some models")
        scoped = None if whole else model
        return Verdict(Action.COOL_DOWN, f"the {names} limit is reached", until=max(resets), model=scoped)
    wait = retry_after(headers)
    reset = read_time(headers.get(_UNIFIED + "reset") if overall else None) or _api_reset(headers)
    until = now + wait if wait is not None else reset
    if until is None or (wait is None and until <= now):
        return Verdict(Action.BACK_OFF, "rate limited, and nothing says until when")
    if unseen and not model:
        return Verdict(Action.BACK_OFF, "a limit is reached that holds for some models")
    what = "a limit of the model's own is reached" if unseen else "rate limited"
    of_model = model if model and (unseen or keyed) else None
    longest = _UNSEEN_RECHECK if unseen else _LONGEST
    return Verdict(Action.COOL_DOWN, what, until=min(until, now + longest), model=of_model)


def _api_reset(headers: Headers) -> float | None:
    """API keys: the latest reset (RFC 3339) among the limits with nothing left."""
    resets = []
    for limit in _API_LIMITS:
        if headers.get(f"{_API}{limit}-remaining", "").strip() == "0":
            try:
                resets.append(datetime.fromisoformat(headers[f"{_API}{limit}-reset"]).timestamp())
            except (KeyError, ValueError, OverflowError):
                continue
    return max(resets, default=None)


def _date(text: str) -> float | None:
    """Unix seconds of a date as Anthropic writes it, in UTC."""
    for form in _DATES:
        try:
            return datetime.strptime(text.strip(), form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return read_time(text)


def _length(window: str) -> float:
    """Seconds that a window lasts, by its name: no limit lasts longer, whatever reset is claimed."""
    match = _LENGTH.match(window)
    return float(match[1]) * _SECONDS[match[2]] if match else 7 * 86400.0


def _fraction(value: str | None) -> float | None:
    try:
        return None if value is None else min(1.0, max(0.0, float(value)))
    except ValueError:
        return None
