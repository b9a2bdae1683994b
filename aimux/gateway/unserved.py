"""Why no account can serve a request, in words for its sender. No account is named: only admins may see that."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from aimux.http.errors import WireError
from aimux.plugin.errors import ErrorKind, GatewayError, LimitReached, RequestRefused
from aimux.relay.errors import ConnectError, HeadTimeout

if TYPE_CHECKING:
    from datetime import tzinfo

    from aimux.accounts import Account, Selection
    from aimux.gateway.route import Route

SOON = 15.0
"""Up to this many seconds, a client may try again by itself. Codex asks 30 times in 24 s, and then shows no reason."""
WAITED = 60.0
"""Seconds that clients wait by themselves if told to; with more, Claude Code gives up."""
ADMIN = "whoever runs aimux sees why with `aimux accounts`"


def unserved(route: Route, selection: Selection, now: float, zone: tzinfo) -> GatewayError:
    """No account can serve. Trying again helps only if one is merely limited or can't be renewed now. `zone` is for the
    time in the message."""
    name, pinned = route.provider.instance, selection.pinned
    accounts = list(route.accounts.candidates(selection))
    if pinned is not None and pinned not in route.accounts.accounts:
        return _for_good(f"{name} has no account {pinned!r}.", ErrorKind.BAD_REQUEST)
    if not route.accounts.accounts:
        return _for_good(f"aimux has no {name} account yet; whoever runs it adds one with `aimux login {name}`.")
    if not accounts:
        return _for_good(f"There is no {name} account for you or your groups; ask whoever runs aimux.")
    free_at = min(account.free_at(selection.model) for account in accounts)
    each = f"The {name} account that this request needs" if pinned else f"Every {name} account that you may use"
    if free_at == math.inf:
        return _for_good(f"{each} is out of service; {ADMIN}.")
    limited = [account for account in accounts if _limited(account, selection.model, now)]
    if not limited:
        wait = max(1.0, free_at - now)
        message = f"{each} has a login that can't be renewed for now; aimux tries again {when(free_at, now, zone)}."
        return GatewayError(ErrorKind.UNAVAILABLE, message, retry=None if wait <= SOON else False, retry_after=wait)
    what = f"its limit for {selection.model}" if _of_model(limited, selection.model, now) else "its limit"
    others = "" if len(limited) == len(accounts) else " or is out of service"
    again = "it is free again" if pinned or len(accounts) == 1 else "the next one is free"
    message = f"{each} has reached {what}{others}; {again} {when(free_at, now, zone)}."
    if free_at - now <= WAITED:
        return GatewayError(ErrorKind.RATE_LIMITED, message, retry_after=free_at - now)
    return LimitReached(message, until=free_at)


def failure(route: Route, cause: Exception | None, *, late: bool) -> GatewayError | None:
    """Why there was no answer, if not for lack of an account. `late`: the time is used up."""
    name = route.provider.instance
    if isinstance(cause, RequestRefused):
        return cause
    if isinstance(cause, HeadTimeout) or (cause is None and late):
        # A second try would wait as long again, and the vendor may count both.
        message = f"{name} did not answer in time: {cause or 'the time is used up'} (`request_timeout` of aimux)."
        return GatewayError(ErrorKind.TIMEOUT, message, retry=False)
    if isinstance(cause, ConnectError):
        return GatewayError(ErrorKind.BAD_GATEWAY, f"{name} can't be reached: {cause}.")
    if isinstance(cause, WireError):
        return GatewayError(ErrorKind.BAD_GATEWAY, f"{name} gave no answer: {cause}.")
    return None


def when(at: float, now: float, zone: tzinfo) -> str:
    """`at 15:04 UTC, in 12 minutes`, or with the day where it is another one."""
    at = max(at, now + 1)  # what may be tried again at once has no time of its own
    wait = at - now
    then, today = (datetime.fromtimestamp(seconds, zone) for seconds in (at, now))
    day = "" if then.date() == today.date() else f"on {then:%A}, {then.day} {then:%B}, "
    return f"{day}at {then:%H:%M %Z}, in {_duration(wait)}"


def _duration(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * length:
            number = round(seconds / length)
            return f"{number} {unit}{'s' if number != 1 else ''}"
    return f"{math.ceil(seconds)} s"


def _limited(account: Account, model: str, now: float) -> bool:
    return account.ready_at() <= now < account.quota.free_at(model)


def _of_model(limited: list[Account], model: str, now: float) -> bool:
    return bool(model) and all(account.quota.free_at("") <= now for account in limited)


def _for_good(message: str, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> GatewayError:
    return GatewayError(kind, message, retry=False)
