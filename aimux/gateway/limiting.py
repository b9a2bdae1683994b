"""What aimux's own limits have to do with a request: room for it, and what its client is told of them."""

from __future__ import annotations

import math
import string
import time
from typing import TYPE_CHECKING

from aimux.gateway.eligibility import Eligibility
from aimux.gateway.unserved import when
from aimux.limits.leases import Refusal, Standing
from aimux.limits.rules import LIMITS, Unit, Who, dollars
from aimux.limits.sums import Lease
from aimux.metering.record import LimitHit
from aimux.plugin.body import MAX_MODEL
from aimux.plugin.errors import ErrorKind, GatewayError, LimitReached, PromptTooLong, RateLimited
from aimux.plugin.types import LimitState, LimitWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import tzinfo

    from aimux.accounts import Account
    from aimux.gateway.call import Call
    from aimux.gateway.epoch import Admitted
    from aimux.limits import FairShare, Limits
    from aimux.limits.counters import Terms
    from aimux.limits.sums import Plan
    from aimux.metering.prices import Prices
    from aimux.metering.record import RequestRecord
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import RequestHead

_UNITS = {name: "usd" if limit.unit is Unit.COST else "tokens" for name, limit in LIMITS.items()}
_PERIODS = {"day": "today", "week": "this week", "month": "this month"}
_BASE64 = (string.ascii_letters + string.digits + "+/").encode()
_SAMPLES, _SAMPLE = 32, 16 * 1024
_LOOKS, _LOOK = 16, 64
MOST_TOLD = 10_000
TOLD_SECONDS = 1.0
_MORE = "Ask whoever runs aimux if you need more."


def text_size(body: bytes) -> int:
    """About how many bytes of a body models read as text: an image takes a thousand tokens or two, whatever its size.

    Told from how many characters there are that base64 has not: every fifth of a text is one. Of a large body samples
    are looked at, so that it takes a millisecond at most; of any other only where a look at a few places finds base64,
    as to search all of it takes two instructions a byte.
    """
    size = sampled = len(body)
    sample = body
    if size > _SAMPLES * _SAMPLE:
        sample = b"".join(body[at : at + _SAMPLE] for at in range(0, size, size // _SAMPLES))
        sampled = len(sample)
    elif size <= _SAMPLE or all(
        body[at : at + _LOOK].translate(None, _BASE64) for at in range(0, size - _LOOK, size // _LOOKS)
    ):
        return size
    others = len(sample.translate(None, _BASE64))
    return min(size, 5 * others * size // sampled)


class Limiting:
    """The limits of this node, the shares of its accounts, and what is dear: every request that may consume asks."""

    def __init__(self, limits: Limits, fair: FairShare, prices: Prices, settle: Callable[[], bool]) -> None:
        """`settle`: what is over but not settled yet. Whether there was anything."""
        self.limits = limits
        self.fair = fair
        self._prices = prices
        self._settle = settle
        self._told: dict[tuple[Plan | Who, str], tuple[float, list[bytes] | None]] = {}

    def concerns(self, admitted: Admitted) -> bool:
        """Whether anything is limited, forbidden or shared for a caller, whatever he asks for."""
        return self.fair.on or not self._terms(admitted).free

    def admit(self, record: RequestRecord, admitted: Admitted, body: bytes, now: float) -> Eligibility | None:
        """Find room for a request, whose body was there at `now` (unix seconds; a body that comes slowly would be of a
        minute, or a day, that is over for the others): which accounts may serve it (None: each).

        Raises LimitReached, GatewayError 429 where it is a matter of seconds, and 400 for one that is too long.
        """
        limits, fair, terms = self.limits, self.fair.on, admitted.terms
        if terms is None or terms.epoch != limits.epoch:
            terms = self._terms(admitted)
        if terms.free and not fair:
            return None
        plan = terms.plans.get((record.provider, record.model))
        if plan is None:
            plan = limits.plan(terms, record.provider, record.model, now)
        if not plan.free:
            size = 0 if admitted.form else len(body)  # a form is files: pictures, or sound
            if size > _SAMPLE:
                size = text_size(body)
            if plan.no_long_context:
                self._refuse_long(record, admitted, plan, size)
            answer = limits.reserve(plan, size, now)
            if isinstance(answer, Refusal):
                costless = self._prices.costless(record.provider, record.model, record.time)
                if self._settle() or costless:
                    answer = limits.reserve(plan, size, now, costless=costless)
            if isinstance(answer, Refusal):
                record.limit = self._hit(answer, admitted.who)
                raise refused(answer, now, limits.zone, admitted.head)
            record.lease = answer
        if not (fair or plan.no_overage):
            return None
        weight = limits.policy.weight(admitted.who)
        shared = self.fair if fair else None
        return Eligibility(admitted.who, weight, shared, limits.zone, no_overage=plan.no_overage)

    def refuse_unclear(self, record: RequestRecord, admitted: Admitted, models: Iterable[str]) -> None:
        """Raises GatewayError where a request names one of these models beside its own, and not the same limits hold
        for both: which of them it is for depends on the upstream."""
        terms, now = self._terms(admitted), time.time()
        if terms.free:
            return
        for model in models:
            own, other = (self.limits.plan(terms, record.provider, name, now) for name in (record.model, model))
            if _kept_to(own) != _kept_to(other):
                raise GatewayError(
                    ErrorKind.BAD_REQUEST,
                    f"This request names the model {model[:MAX_MODEL]!r} beside {record.model!r}, and you have a limit "
                    "for one of them: name only one, as the body's `model`.",
                    retry=False,
                )

    def later(self, record: RequestRecord) -> None:
        """Give back the room for what a request begins and does not take yet: it counts when it is told."""
        if isinstance(record.lease, Lease):
            self.limits.settle(record.lease, 0, 0, 0, estimated=True)
            record.lease = None

    def told(self, call: Call, provider: Provider, account: Account | None, now: float) -> list[bytes] | None:
        """The header lines that tell a caller of their own limits, or of their share of the account that answered
        (None: it is one of their own); None where they have neither. `now` is `time.perf_counter`'s.

        Worked out once a second for each caller and model: it takes three times as long as the lease.
        """
        lease = call.record.lease
        plan = lease.plan if isinstance(lease, Lease) else None
        shared = account if call.eligibility is not None and self.fair.on else None
        if shared is None:
            if plan is None:
                return None
            until, lines = plan.told
            if now >= until:
                lines = self._all_lines(call, provider, plan, None)
                plan.told = now + TOLD_SECONDS, lines
            return lines
        place = call.admitted.who if plan is None else plan, shared.name
        found = self._told.get(place)
        if found is not None and now < found[0]:
            return found[1]
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        lines = self._all_lines(call, provider, plan, shared)
        self._told[place] = now + TOLD_SECONDS, lines
        return lines

    def told_first(self, who: Who, provider: Provider, account: Account | None) -> list[bytes] | None:
        """The same for a socket's handshake, at which nothing is reserved yet."""
        now = time.time()
        return self._lines(provider, self._states(who, provider, now), account if self.fair.on else None, who, now)

    def told_as_event(self, who: Who, provider: Provider, account: Account | None) -> bytes:
        """The same as a message on a socket; empty where there is nothing of the caller's own to tell."""
        now = time.time()
        own = self._states(who, provider, now)
        windows = self._shares(own, account if self.fair.on else None, who, now)
        return provider.limit_event(own, windows) if own or windows else b""

    def _terms(self, admitted: Admitted) -> Terms:
        terms = admitted.terms
        if terms is None or terms.epoch != self.limits.epoch:
            terms = admitted.terms = self.limits.terms(admitted.who)
        return terms

    def _all_lines(
        self, call: Call, provider: Provider, plan: Plan | None, shared: Account | None
    ) -> list[bytes] | None:
        now = time.time()
        own = [] if plan is None else [state(one) for one in self.limits.budgets_of(plan, now)]
        return self._lines(provider, own, shared, call.admitted.who, now)

    def _states(self, who: Who, provider: Provider, now: float) -> list[LimitState]:
        limits = self.limits
        return [] if limits.terms(who).free else states(limits.standings(who, now, provider=provider.instance))

    def _lines(
        self, provider: Provider, own: Sequence[LimitState], shared: Account | None, who: Who, now: float
    ) -> list[bytes] | None:
        windows = self._shares(own, shared, who, now)
        if not (own or windows):
            return None
        fields = provider.limit_headers(own, windows)
        # Most people ask less than once a second, so that this is done for each of their requests.
        return "\n".join(map(": ".join, fields.items())).encode().split(b"\n") if fields else []

    def _shares(self, own: Sequence[LimitState], shared: Account | None, who: Who, now: float) -> list[LimitWindow]:
        return [] if own or shared is None else self.windows([shared], who, now)

    def windows(self, accounts: Iterable[Account], who: Who, now: float) -> list[LimitWindow]:
        """How much is used of the accounts' windows taken together; where they are shared, of the caller's shares."""
        if not self.fair.on:
            return together((window for account in accounts for window in account.quota.windows.values()), now)
        weight = self.limits.policy.weight(who)
        shares = (share for account in accounts for share in self.fair.shares(account.quota, who.user, weight, now))
        own = (
            LimitWindow(share.window.name, share.used / whole if whole > 0 else 1.0, share.window.resets_at)
            for share in shares
            for whole in (share.used + share.room,)
        )
        return together(own, now)

    def _hit(self, refusal: Refusal, who: Who) -> LimitHit:
        one = refusal.standing
        set_by = self.limits.policy.set_by(who, one.owner, one.limit, one.scope)
        return LimitHit(one.limit, str(one.owner), str(set_by), one.scope, one.amount, one.used, refusal.free_at)

    def _refuse_long(self, record: RequestRecord, admitted: Admitted, plan: Plan, size: int) -> None:
        """A request that is probably so long that a token of it costs more is refused in words that begin as the
        vendors', which clients know to answer by making the conversation shorter."""
        tokens = plan.habit.expect_input(size)
        most = self._prices.long_context(record.provider, record.model, record.time)
        if most is not None and tokens > most:
            record.error = "long_context_forbidden"
            message = (
                f"prompt is too long: {tokens} tokens > {most} maximum. Beyond that a token costs more, and "
                "your limits forbid it (long_context: forbid). Compact the conversation, or ask whoever runs aimux."
            )
            raise PromptTooLong(message, admitted.head)


def refused(refusal: Refusal, now: float, zone: tzinfo, request: RequestHead) -> GatewayError:
    """A refusal in words: which limit, how much of it is used, and when it is free again."""
    standing = refusal.standing
    limit = LIMITS[standing.limit]
    whose, verb = _whose(standing)
    scope = f" of {standing.scope}" if standing.scope else ""
    if not limit.period:
        requests = "request" if standing.used == 1 else "requests"
        message = (
            f"{whose} {verb} {standing.used:g} {requests}{scope} open, and may have {standing.amount:g} at once; "
            "try again when one of them has ended."
        )
        return RateLimited(message, request, retry_after=refusal.free_at - now)
    if limit.period == "minute":
        wait = max(1, math.ceil(refusal.free_at - now))
        what = ("token" if limit.unit is Unit.TOKENS else "request") + ("" if standing.amount == 1 else "s")
        message = f"{whose} may use {standing.amount:,.0f} {what}{scope} a minute; try again in {wait} s."
        return RateLimited(message, request, retry_after=wait)
    message = f"{whose} {verb} used {_used(standing)}{scope} {_PERIODS[limit.period]}"
    assert standing.resets_at is not None
    if refusal.free_at < standing.resets_at:
        message += ". Several nodes have parts of what is left, and this one's is too small; try again in 1 s."
        return RateLimited(message, request, retry_after=1)
    message += f"; there is room again {when(refusal.free_at, now, zone)}. {_MORE}"
    return LimitReached(message, until=refusal.free_at, limit=state(standing))


def state(standing: Standing) -> LimitState:
    """A budget's standing as providers know it."""
    limit, owner, _, amount, used, resets_at = standing
    assert resets_at is not None
    return LimitState(_UNITS[limit], LIMITS[limit].period, amount, used, resets_at, owner.kind == "group")


def states(standings: Iterable[Standing]) -> list[LimitState]:
    """Those of calendar windows."""
    return [state(standing) for standing in standings if standing.resets_at is not None]


def together(each: Iterable[LimitWindow], now: float) -> list[LimitWindow]:
    """The windows of several accounts as if they were one account's, the shortest first."""
    found: dict[str, list[LimitWindow]] = {}
    for window in each:
        if window.used is not None and window.scope is None:
            over = window.resets_at is not None and window.resets_at <= now
            found.setdefault(window.name, []).append(LimitWindow(window.name, 0.0) if over else window)
    joined = []
    for name, windows in found.items():
        used = sum(window.used or 0.0 for window in windows) / len(windows)
        resets = [window.resets_at for window in windows if window.resets_at is not None]
        joined.append(LimitWindow(name, used, min(resets, default=None)))
    return sorted(joined, key=lambda window: _seconds(window.name))


def _whose(standing: Standing) -> tuple[str, str]:
    if standing.owner.kind == "group":
        return f"Your group {standing.owner.name}", "has"
    return ("Your token", "has") if standing.owner.kind == "token" else ("You", "have")


def _used(standing: Standing) -> str:
    if LIMITS[standing.limit].unit is Unit.COST:
        return f"{dollars(standing.used)} of {dollars(standing.amount)}"
    return f"{standing.used:,.0f} of {standing.amount:,.0f} tokens"


def _seconds(name: str) -> float:
    units = {"m": 60, "h": 3600, "d": 86400}
    number, unit = name[:-1], name[-1:]
    return int(number) * units[unit] if number.isdigit() and unit in units else math.inf


def _kept_to(plan: Plan) -> tuple[object, ...]:
    return plan.counters, plan.no_overage, plan.no_long_context
