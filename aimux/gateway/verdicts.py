"""What an upstream's answer means: for its account, and for whether the request is tried again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aimux.gateway.answers import redirected
from aimux.gateway.credential_checks import ERROR_BODY, ERROR_BODY_SECONDS, masked
from aimux.gateway.large_bodies import is_large, references_of, skim
from aimux.gateway.meter_feed import MeterFeed
from aimux.gateway.preview import Preview
from aimux.http.head import CONTENT_TYPE
from aimux.plugin.errors import RefreshError, RefreshRejected
from aimux.plugin.reading import media_type
from aimux.plugin.types import RELAY, Action, Verdict
from aimux.relay.exchange import HELD_BACK

if TYPE_CHECKING:
    from aimux.accounts import Account
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.credential_checks import CredentialChecks
    from aimux.plugin.body import Body

CHECK_SECONDS = 10.0
"""How long a refused request waits for the answer whether its account's credential is refused, too."""
OPENING_SECONDS = 2.0
"""How long the preamble of a stream may be held back while it could still turn out to be an error."""
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def by_head(attempt: Attempt) -> Verdict | None:
    """Judge the answer, and keep what its headers say about limits. None: the body has to tell, see `Judge`."""
    route, head = attempt.route, attempt.head
    provider = route.provider
    limits = provider.limits(head.headers)
    if limits:
        now = time.time()
        attempt.account.observe(limits, now)
        if attempt.account.quota.full_for_some and provider.extra_usage(head.headers):
            attempt.account.quota.note_paid(attempt.model, now)
    if head.status >= 400:
        return None
    if head.status in REDIRECTS and "location" in head.headers:
        raise redirected(provider.instance, head)
    watched = route.watches_openings and head.status == 200
    return None if watched and media_type(head.headers.get(CONTENT_TYPE, "")) == "text/event-stream" else RELAY


class Judge:
    """Judges the answers to one call by their bodies."""

    def __init__(self, call: Call, checks: CredentialChecks, deadline: float) -> None:
        self._call = call
        self._checks = checks
        self._deadline = deadline
        self._renewed: set[Account] = set()
        self.sought: tuple[str, ...] = ()
        """Ids that some account did not know."""
        self.cause: RefreshError | None = None
        """Why a credential that was refused could not be renewed."""
        self._free = call.upgrade is None and not call.admitted.counted

    async def by_body(self, attempt: Attempt, asked: Body) -> Verdict:
        """`asked`: the request's body as it went up."""
        head, provider = attempt.head, attempt.route.provider
        if head.status < 400:
            return await self._opening(attempt)
        payload = await attempt.exchange.peek(lambda payload: len(payload) >= ERROR_BODY, ERROR_BODY_SECONDS)
        if attempt.exchange.error is not None:  # half a text may say anything
            return Verdict(Action.BACK_OFF, f"its answer broke off: {attempt.exchange.error}")
        body = Preview(head.coding, ERROR_BODY).read(payload)
        verdict = masked(provider.classify(head.status, head.headers, body, model=attempt.model))
        if verdict.kind and verdict.kind != attempt.credential.kind:
            verdict = RELAY  # the words of another kind's upstream, and none of this one's
        if verdict.action is Action.REFRESH:
            return await self._unauthorized(attempt, verdict)
        if self._free and head.status == 429 and verdict.action is Action.COOL_DOWN:
            # What consumes nothing has limits of its own at the vendors: 26 token counts at once are no reason to leave
            # an account that has room for messages.
            return Verdict(Action.BACK_OFF, verdict.reason, until=verdict.until)
        missing = head.status in {400, 404} and (verdict.action is Action.RELAY or verdict.kind)
        if missing and await self._lies_elsewhere(attempt, asked, body) and not verdict.kind:
            return Verdict(Action.MISSING, "it does not know what the request refers to")
        return verdict

    async def _opening(self, attempt: Attempt) -> Verdict:
        """An error can hide in a 200's stream, which may also end before its first content: until then it can still be
        retried. One that a GET listens to made nothing, and may have nothing to tell for long: it passes at once."""
        if self._call.head.method != "POST":
            return RELAY
        head, provider, exchange = attempt.head, attempt.route.provider, attempt.exchange
        preview = Preview(head.coding, HELD_BACK)
        verdict: Verdict | None = None
        start = b""

        def decided(payload: bytes) -> bool:
            nonlocal verdict, start
            start = preview.read(payload)
            verdict = provider.opening(head.headers, start, model=attempt.model) if start else None
            return verdict is not None or preview.full

        await exchange.peek(decided, OPENING_SECONDS)
        if verdict is not None:
            return masked(verdict)
        over = exchange.error is not None or exchange.held_whole
        if not over or preview.full or self._goes_on(attempt, start):
            return RELAY
        how = "ended" if exchange.error is None else f"broke off ({exchange.error})"
        return Verdict(Action.BACK_OFF, f"its stream {how} before any content")

    def _goes_on(self, attempt: Attempt, start: bytes) -> bool:
        """Whether what a stream tells of goes on behind it, so that another attempt would make it twice."""
        head = attempt.head
        meter = attempt.route.provider.meter(self._call.head, head.status, head.headers)
        if meter is None:
            return False
        feed = MeterFeed(meter, "", attempt.route.provider.instance)
        feed.pending.append(start)
        feed.flush()
        return bool(meter.begun)

    async def _lies_elsewhere(self, attempt: Attempt, asked: Body, answer: bytes) -> bool:
        """A "not found" about something that lies with one account: a 404, or a 400 that names it."""
        route = attempt.route
        if len(route.accounts.accounts) == 1:
            return False
        if is_large(asked):
            ids = (await self._call.turn.apart(skim(asked, self._call.head, route.provider))).references
        else:
            ids = references_of(route.provider, self._call.head, asked)
        if attempt.head.status == 400:
            ids = tuple(one for one in ids if one.encode() in answer)
        if replayed := route.provider.replayed_ids:
            ids = tuple(one for one in ids if not one.startswith(replayed))
        self.sought = ids
        return bool(ids)

    async def _unauthorized(self, attempt: Attempt, verdict: Verdict) -> Verdict:
        """The upstream blames the credential. A single request does not prove that: an odd request, or one that the
        credential's scopes leave out, is refused in the same words.

        It is known to be refused if the provider's cheapest request is refused, too. Then it is renewed and the request
        tried once more; a fresh credential that is refused again, and has never served, parks the account, unless what
        was asked consumes nothing. Anything else leaves the account as it is: another one may serve, or the client gets
        the answer.
        """
        account, used = attempt.account, attempt.credential
        held, first = account.credential, account not in self._renewed
        if first and held is not None and held.secret != used.secret:
            return verdict  # somebody has renewed it meanwhile; if that one is refused too, it is renewed once more
        self._renewed.add(account)
        seconds = min(CHECK_SECONDS, max(0.0, self._deadline - time.monotonic()))
        if await self._call.turn.apart(self._checks.accepted(attempt.route, account, used, seconds)) is not False:
            return Verdict(Action.BACK_OFF, f"{verdict.reason}; it may be about this request alone")
        if not (first and used.renewable) and account.served:
            account.refused(verdict.reason, time.time())
            return Verdict(Action.BACK_OFF, f"{verdict.reason}, although it has served")
        if not first and self._free:  # a list, say, which may be all that is refused
            return Verdict(Action.BACK_OFF, f"{verdict.reason}, although it is fresh")
        if not first:
            return Verdict(Action.PARK, verdict.reason, remedy=verdict.remedy or "log in again")
        try:
            await self._call.turn.apart(account.renew(rejected=used))
        except RefreshRejected as error:
            self.cause = error
            return Verdict(Action.PARK, error.reason, remedy=error.remedy)
        except RefreshError as error:
            self.cause = error
            return Verdict(Action.BACK_OFF, error.reason)
        return verdict
