"""The attempt loop: account, credential, upstream, verdict; again on another account while the client has no byte."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, TypeVar

from aimux.gateway.answers import redirected
from aimux.gateway.call import Attempt, Call
from aimux.gateway.models import rewrite_model
from aimux.gateway.preview import Preview
from aimux.gateway.proofs import ERROR_BODY, ERROR_BODY_SECONDS
from aimux.gateway.upstream_request import build_request
from aimux.http.errors import WireError
from aimux.plugin.errors import (
    ErrorKind,
    GatewayError,
    RefreshError,
    RefreshRejected,
    RefreshUnavailable,
    RequestRefused,
)
from aimux.plugin.types import RELAY, Action, Verdict
from aimux.relay.errors import ConnectError, HeadTimeout
from aimux.relay.exchange import HELD_BACK

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aimux.accounts import Account, Selection
    from aimux.gateway.models import Target
    from aimux.gateway.proofs import Proofs
    from aimux.plugin.types import Credential
    from aimux.relay.pool import Pool

T = TypeVar("T")

log = logging.getLogger("aimux.gateway")

MAX_ATTEMPTS = 3
MAX_SEARCHED = 10
"""Accounts that are asked for something that lies with one of them, and nobody knows with which."""
PROOF_SECONDS = 10.0
"""How long a request that was refused waits to hear whether its account's credential is."""
RENEWAL_SECONDS = 10.0
"""How long a request waits for an account's renewal, where another account could serve it."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
OPENING_SECONDS = 2.0
"""How long the preamble of a stream may be held back while it could still turn out to be an error."""


class Attempts:
    """Runs one call. `run` returns the answer to relay; the caller streams it and calls `Attempt.end`."""

    sought: tuple[str, ...] = ()
    """Ids that some account did not know: they lie with the one whose answer `run` returns."""

    def __init__(self, call: Call, pool: Pool, proofs: Proofs, request_timeout: float) -> None:
        self._call = call
        self._pool = pool
        self._proofs = proofs
        self._deadline = time.monotonic() + request_timeout
        self._renewed: set[Account] = set()
        self._last: Attempt | None = None
        self._replaced: Account | None = None
        """An account to ask again where no other one can serve: it has another login by now."""
        self._cause: Exception | None = None
        self._waiting = list(call.targets)
        self._enter(self._waiting.pop(0))

    def _enter(self, target: Target) -> None:
        call = self._call
        self._route = target.route
        self._body = call.body
        self._selection = call.selection
        self._tried: set[str] = set()
        """Accounts of this target."""
        if target.model is not None:
            self._body = rewrite_model(call.body, target.model)
            self._selection = self._selection._replace(model=target.model)
        if target.account is not None and call.selection.pinned is None:
            self._selection = self._selection._replace(pinned=target.account)
        call.record.provider = target.route.provider.instance

    async def run(self) -> Attempt:
        """The answer for the client. Raises GatewayError where no upstream gave one."""
        call = self._call
        account = self._next() or self._last_resort()
        if account is None:
            raise self._nobody()
        try:
            while account is not None:
                self._tried.add(account.name)
                attempt = await self._attempt(account)
                again = None
                if attempt is not None:
                    verdict = attempt.verdict
                    call.note(account.name, attempt.head.status, verdict.action, verdict.reason)
                    if verdict.action is Action.RELAY:
                        if attempt.head.status < 400:
                            account.has_served(attempt.credential)
                        self._keep(None)
                        return attempt
                    stale = verdict.action is Action.REFRESH  # it has another credential by now
                    less = attempt.head.status in {401, 403} or verdict.action is Action.MISSING
                    if stale or (less and self._last is not None):
                        attempt.end()  # about a credential of aimux's; what another account said is more to the client
                    else:
                        self._keep(attempt)
                    again = self._judge(attempt)
                missing = attempt is not None and attempt.verdict.action is Action.MISSING
                most = MAX_SEARCHED if missing else MAX_ATTEMPTS
                if call.record.attempts >= most or time.monotonic() >= self._deadline:
                    break
                account = again or self._next() or self._replaced
                if account is None and missing:
                    account = self._route.accounts.last_resort(self._excluding(), time.time())  # a limit hides nothing
                if account is not None and attempt is not None and attempt.verdict.action is Action.BACK_OFF:
                    wait = min(random.uniform(0.05, 0.25), max(0.0, self._deadline - time.monotonic()))
                    await self._apart(asyncio.sleep(wait))
            if self._last is not None:
                return self._settle(self._last)
            raise self._failure()
        except BaseException:
            self._keep(None)
            raise

    async def _apart(self, work: Coroutine[None, None, T]) -> T:
        turn = self._call.turn
        return await (work if turn is None else turn.apart(work))

    def _keep(self, attempt: Attempt | None) -> None:
        """Remember the last real answer; it goes to the client if nothing better comes."""
        if self._last is not None:
            self._last.end()
        self._last = attempt

    def _next(self) -> Account | None:
        """An account that can serve, of this target or of the next one that has any."""
        while True:
            account = self._route.accounts.select(self._excluding(), time.time())
            if account is not None or not self._waiting:
                return account
            self._enter(self._waiting.pop(0))

    def _excluding(self) -> Selection:
        """Without the accounts that were tried."""
        return self._selection._replace(exclude=frozenset(self._tried)) if self._tried else self._selection

    def _last_resort(self) -> Account | None:
        """Everybody's limit is known to be reached: one try all the same, whose answer is the client's."""
        for target in self._call.targets:
            self._enter(target)
            account = self._route.accounts.last_resort(self._selection, time.time())
            if account is not None:
                self._tried.update(self._route.accounts.accounts)
                return account
        return None

    # --- one attempt ----------------------------------------------------------------------------------------------

    async def _attempt(self, account: Account) -> Attempt | None:
        """Send to one account. None: there was no answer, `_cause` says why."""
        call, route = self._call, self._route
        record = call.record
        record.account = account.name
        try:
            credential = account.usable(time.time())
            if credential is None:
                credential = await self._apart(self._renewal(account))
        except RefreshError as error:
            self._cause = error
            call.note(account.name, 0, "skipped", error.reason)
            return None
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            return None
        try:
            request, origin = build_request(call, self._body, route, credential)
        except RequestRefused as refusal:
            # Of this account; one of another kind may serve it, as an API key does what a login can't.
            self._cause = refusal
            call.note(account.name, 0, "refused", refusal.message)
            return None
        record.attempts += 1
        account.load(1)
        try:
            exchange, head = await self._pool.request(
                origin, call.head.method, request, remaining, upgrade=call.upgrade is not None, turn=call.turn
            )
        except WireError as error:
            account.load(-1)
            self._cause = error
            call.note(account.name, 0, error.phase, str(error))
            log.warning("%s: %s account %s: %s", record.request_id, record.provider, account.name, error)
            return None
        except BaseException:
            account.load(-1)
            raise
        attempt = Attempt(route, account, credential, exchange, head, self._selection.model)
        try:
            verdict = self._by_head(attempt)
            attempt.verdict = await self._by_body(attempt) if verdict is None else verdict
        except BaseException:
            attempt.end()
            raise
        return attempt

    async def _renewal(self, account: Account) -> Credential:
        """The renewal goes on where this request stops waiting: another account may serve it meanwhile."""
        others = len(self._route.accounts.accounts) > 1 or self._waiting
        remaining = self._deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(remaining, RENEWAL_SECONDS) if others else remaining):
                return await account.renew()
        except TimeoutError:
            raise RefreshUnavailable("its renewal takes too long") from None

    def _by_head(self, attempt: Attempt) -> Verdict | None:
        """Judge the answer, and keep what its headers say about limits. None: the body has to tell."""
        route, head = attempt.route, attempt.head
        provider = route.provider
        limits = provider.limits(head.headers)
        if limits:
            attempt.account.observe(limits, time.time())
        if head.status >= 400:
            return None
        if head.status in REDIRECTS and "location" in head.headers:
            raise redirected(provider.instance, head)
        streams = head.status == 200 and head.get("content-type").startswith("text/event-stream")
        return None if streams and route.watches_openings else RELAY

    async def _by_body(self, attempt: Attempt) -> Verdict:
        head, provider = attempt.head, attempt.route.provider
        if head.status < 400:
            return await self._opening(attempt)
        payload = await attempt.exchange.peek(lambda payload: len(payload) >= ERROR_BODY, ERROR_BODY_SECONDS)
        if attempt.exchange.error is not None:  # half of a text may say anything
            return Verdict(Action.BACK_OFF, f"its answer broke off: {attempt.exchange.error}")
        body = Preview(head.get("content-encoding"), ERROR_BODY).read(payload)
        verdict = provider.classify(head.status, head.headers, body, model=self._selection.model)
        if verdict.action is Action.REFRESH:
            return await self._unauthorized(attempt, verdict)
        if verdict.action is Action.RELAY and head.status in {400, 404} and self._lies_elsewhere(attempt, body):
            return Verdict(Action.MISSING, "it does not know what the request refers to")
        return verdict

    def _lies_elsewhere(self, attempt: Attempt, answer: bytes) -> bool:
        """A "not found" about something that lies with one account: a 404, or a 400 that names it."""
        route = attempt.route
        if len(route.accounts.accounts) == 1:
            return False
        ids = route.provider.refers_to(self._call.head, self._body)
        if attempt.head.status == 400:
            ids = tuple(one for one in ids if one.encode() in answer)
        self.sought = ids
        return bool(ids)

    async def _opening(self, attempt: Attempt) -> Verdict:
        """An error can hide in a 200's stream; before its first content it can still be retried."""
        provider, preview = attempt.route.provider, Preview(attempt.head.get("content-encoding"), HELD_BACK)
        verdict: Verdict | None = None

        def decided(payload: bytes) -> bool:
            nonlocal verdict
            start = preview.read(payload)
            verdict = provider.opening(start) if start else None
            return verdict is not None or preview.full

        await attempt.exchange.peek(decided, OPENING_SECONDS)
        return verdict or RELAY

    async def _unauthorized(self, attempt: Attempt, verdict: Verdict) -> Verdict:
        """The upstream says that it is the credential. A request alone is no proof of it: an odd one, or one that the
        credential's scopes leave out, is refused in the same words.

        Known to be refused it is where the provider's cheapest request is refused, too. Then it is renewed and the
        request tried once more; a fresh one that is refused again, and never served, parks the account. Everything else
        leaves the account as it is: another one may serve, or the client hears the answer.
        """
        account, used = attempt.account, attempt.credential
        held, first = account.credential, account not in self._renewed
        self._renewed.add(account)
        if first and held is not None and held.secret != used.secret:
            return verdict  # somebody has renewed it meanwhile
        seconds = min(PROOF_SECONDS, max(0.0, self._deadline - time.monotonic()))
        if await self._apart(self._proofs.accepted(attempt.route, account, used, seconds)) is not False:
            return Verdict(Action.BACK_OFF, f"{verdict.reason}; it may be about this request alone")
        if not (first and used.renewable) and account.served:
            return Verdict(Action.BACK_OFF, f"{verdict.reason}, although it has served")
        if not first:
            return Verdict(Action.PARK, verdict.reason, remedy=verdict.remedy or "log in again")
        try:
            await self._apart(account.renew(rejected=used))
        except RefreshRejected as error:
            self._cause = error
            return Verdict(Action.PARK, error.reason, remedy=error.remedy)
        except RefreshError as error:
            self._cause = error
            return Verdict(Action.BACK_OFF, error.reason)
        return verdict

    def _judge(self, attempt: Attempt) -> Account | None:
        """Carry the verdict out. Returns the account if it should be tried again."""
        account, verdict = attempt.account, attempt.verdict
        log.info(
            "%s: %s account %s answered %d: %s (%s)",
            self._call.record.request_id,
            self._call.record.provider,
            account.name,
            attempt.head.status,
            verdict.action,
            verdict.reason,
        )
        if verdict.action is Action.REFRESH:
            return account
        held = account.credential
        if verdict.action is Action.PARK and held is not None and held.secret != attempt.credential.secret:
            self._replaced = account  # it was about a login that somebody has replaced meanwhile
            return None
        if verdict.action in {Action.COOL_DOWN, Action.PARK}:
            account.apply(verdict, time.time())
        return None

    # --- when nothing worked --------------------------------------------------------------------------------------

    def _settle(self, attempt: Attempt) -> Attempt:
        """The last real answer, with the time at which some account is free again."""
        self._last = None
        accounts = attempt.route.accounts
        if attempt.verdict.action is Action.COOL_DOWN and len(accounts.accounts) > 1:
            attempt.retry_after = accounts.retry_after(self._selection, time.time())
        return attempt

    def _failure(self) -> GatewayError:
        cause, name = self._cause, self._route.provider.instance
        if isinstance(cause, RequestRefused):
            return cause
        if isinstance(cause, HeadTimeout) or (cause is None and time.monotonic() >= self._deadline):
            return GatewayError(ErrorKind.TIMEOUT, f"{name} did not answer in time: {cause or 'the time is used up'}.")
        if isinstance(cause, ConnectError):
            return GatewayError(ErrorKind.BAD_GATEWAY, f"{name} can't be reached: {cause}.")
        if isinstance(cause, WireError):
            return GatewayError(ErrorKind.BAD_GATEWAY, f"{name} gave no answer: {cause}.")
        return self._nobody()

    def _nobody(self) -> GatewayError:
        """No account can serve. Trying again helps only where one is merely cooling down or can't be renewed now."""
        accounts, now = self._route.accounts, time.time()
        name, pinned = self._route.provider.instance, self._selection.pinned
        if pinned is not None and pinned not in accounts.accounts:
            return GatewayError(ErrorKind.BAD_REQUEST, f"{name} has no account {pinned!r}.", retry=False)
        if isinstance(self._cause, RefreshError) and not isinstance(self._cause, RefreshRejected):
            message = f"No {name} account can serve now: {self._cause}."
            return GatewayError(ErrorKind.UNAVAILABLE, message, retry_after=5)
        # Those that others alone may use are none of this caller's business.
        states = [(account.name, account.state(now)) for account in accounts.candidates(self._selection)]
        why = "; ".join(f"{account} is {state.status} ({state.reason})" for account, state in states[:5])
        if not why:
            why = "none is for your groups" if accounts.accounts else "see `aimux login` and `aimux import`"
        wait = accounts.retry_after(self._selection, now)
        return GatewayError(
            ErrorKind.UNAVAILABLE,
            f"No {name} account can serve: {why}.",
            retry=None if wait is not None else False,
            retry_after=wait,
        )
