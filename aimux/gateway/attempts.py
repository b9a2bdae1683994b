"""The attempt loop: account, credential, upstream, verdict; again on another account while the client has no byte."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aimux.accounts.explain import at_home, explain
from aimux.accounts.quota import FULL
from aimux.accounts.selection import NO_NAMES
from aimux.gateway.call import Attempt, Call
from aimux.gateway.models import rewrite_model
from aimux.gateway.unserved import failure, unserved
from aimux.gateway.upstream_request import build_request
from aimux.gateway.verdicts import Judge, by_head
from aimux.http.errors import WireError
from aimux.plugin.errors import GatewayError, LimitReached, RefreshError, RefreshUnavailable, RequestRefused
from aimux.plugin.types import Action

if TYPE_CHECKING:
    from datetime import tzinfo

    from aimux.accounts import Account, Selection
    from aimux.gateway.credential_checks import CredentialChecks
    from aimux.gateway.deposits import Deposits
    from aimux.gateway.models import Target
    from aimux.plugin.types import Credential, Verdict
    from aimux.relay.pool import Pool

log = logging.getLogger("aimux.gateway")

MAX_ATTEMPTS: Final = 3
MAX_SEARCHED: Final = 10
"""How many accounts are asked for something that one of them has, if nobody knows which."""
PAUSE = (0.05, 0.25)
"""Seconds before the next account is asked after an overload."""
BURST_PAUSE = (1.0, 1.5)
"""Seconds before an account is asked again that had too much to do just then: nearly all serve again within three, and
Codex gives its turn up at a 429."""
RENEWAL_SECONDS = 10.0
"""How long a request waits for an account's renewal if another account could serve it."""


class Attempts:
    """Runs one call. `run` returns the answer to relay; the caller streams it and calls `Attempt.end`."""

    _sought: tuple[str, ...] = ()
    """Ids that some account did not know: the account that does know them has them."""
    _judge: Judge | None = None
    _renewed: tuple[Account, ...] = ()
    """Accounts that were asked again with another credential. The refusal before that is none of the attempts: the last
    one would otherwise be spent on an account that is then parked, and not on one that serves."""
    _resorted = False
    _asked_again = False
    _later = NO_NAMES
    """Accounts of this target that are asked later: because what they serve is paid extra usage, after the others …"""
    _lacking = NO_NAMES
    """… or because they don't have the model, when no other target can serve, either."""
    _wary = NO_NAMES
    """Accounts that failed when they were last asked: where one has failed, they are asked after those that have served
    since, as the attempts are few."""
    _sparing = True
    """Nobody has looked yet whether one of the target's accounts has included usage left."""
    _last: Attempt | None = None
    _replaced: Account | None = None
    """An account to ask again if no other one can serve: it has another login by now."""
    _cause: Exception | None = None
    _unreached: WireError | None = None
    """Why an upstream gave no answer."""

    def __init__(
        self, call: Call, pool: Pool, checks: CredentialChecks, deposits: Deposits, request_timeout: float, zone: tzinfo
    ) -> None:
        """`zone` is that of the times that clients are told."""
        self._call = call
        self._pool = pool
        self._checks = checks
        self._deposits = deposits
        self._deadline = time.monotonic() + request_timeout
        self._zone = zone
        self._waiting = list(call.targets)
        self._enter(self._waiting.pop(0))

    def _enter(self, target: Target) -> None:
        call = self._call
        self._route = target.route
        self._body = call.body
        self._selection = self._selected(target) if target.model or target.account else call.selection
        self._tried: set[str] = set()
        """Accounts of this target."""
        if target.model is not None:
            self._body = rewrite_model(call.body, target.model)
        lacking = target.route.accounts.lacking
        if lacking.models and self._selection.pinned is None:
            self._later = self._lacking = lacking.names(self._selection.model, time.time())
        call.record.provider = target.route.provider.instance

    def _selected(self, target: Target) -> Selection:
        selection = self._call.selection
        if target.model is not None:
            selection = replace(selection, model=target.model)
        if target.account is not None and selection.pinned is None:
            selection = replace(selection, pinned=target.account)
        return selection

    def _wait(self, target: Target) -> float:
        """Seconds until one of its accounts is free; infinity: waiting doesn't help."""
        wait = target.route.accounts.retry_after(self._selected(target), time.time())
        return math.inf if wait is None else wait

    async def run(self) -> Attempt:
        """The answer for the client. Raises GatewayError where no upstream gave one."""
        call = self._call
        account: Account | None = self._next() or self._last_resort()
        try:
            while account is not None:
                self._tried.add(account.name)
                attempt = await self._attempt(account)
                if attempt is not None:
                    call.note_answer(attempt)
                if attempt is None or attempt.verdict.action is not Action.RELAY:
                    account = await self._another(account, attempt)
                    continue
                if attempt.head.status < 400:
                    pool = self._route.accounts
                    pool.served(self._selection, account, attempt.credential)
                    if pool.faltering and attempt.head.status != 101:  # a socket's turns tell
                        pool.faltering.discard(account)
                    if self._sought:
                        self._deposits.keep(account.provider, account.name, self._sought, None)
                if self._last is not None:
                    self._keep(None)
                return attempt
            if self._last is not None and not self._doubtful(self._last):
                return self._settle(self._last)
            raise self._unserved() if self._resorted else self._failure()
        except BaseException:
            self._keep(None)
            raise

    async def _another(self, asked: Account, attempt: Attempt | None) -> Account | None:
        """Whom to ask after an account that did not serve the request, as soon as it is to be asked. None: nobody."""
        again, action = None, None
        if attempt is not None:
            action = attempt.verdict.action
            stale = action is Action.REFRESH  # it has another credential by now
            if stale and asked not in self._renewed:
                self._renewed += (asked,)
            if stale or (self._last is not None and _says_less(attempt, self._last)):
                attempt.end()
            else:
                self._keep(attempt)
            again = self._carry_out(attempt)
        missing = action is Action.MISSING
        most = MAX_SEARCHED if missing else MAX_ATTEMPTS
        if self._call.record.attempts - len(self._renewed) >= most or time.monotonic() >= self._deadline:
            return None
        account = again or self._next() or self._replaced
        pause = PAUSE
        if account is None and missing:
            account = self._route.accounts.last_resort(self._excluding(), time.time())  # a limit hides nothing
        elif account is None and attempt is not None and self._had_a_burst(attempt):
            account, pause = asked, BURST_PAUSE
        if account is not None and action is Action.BACK_OFF:
            wait = min(random.uniform(*pause), max(0.0, self._deadline - time.monotonic()))
            await self._call.turn.apart(asyncio.sleep(wait))
        return account

    def _had_a_burst(self, attempt: Attempt) -> bool:
        """Whether an account that no other can stand in for is asked once more: it has a limit that names no time."""
        verdict = attempt.verdict
        unsaid = verdict.action is Action.BACK_OFF and verdict.until is None
        if self._asked_again or attempt.head.status != 429 or not unsaid:
            return False
        self._asked_again = True
        return True

    def _keep(self, attempt: Attempt | None) -> None:
        """Remember the last real answer; it goes to the client if nothing better comes."""
        if self._last is not None:
            self._last.end()
        self._last = attempt

    def _next(self) -> Account | None:
        """An account that can serve, of this target or of the next one that has any."""
        eligibility = self._call.eligibility
        while True:
            pool, now = self._route.accounts, time.time()
            selection = self._excluding() if self._tried or self._later else self._selection
            debug, several = log.isEnabledFor(logging.DEBUG), len(pool.accounts) > 1
            home = pool.home(selection, now) if debug or several else None
            account = pool.select(selection, now)
            if debug or several or account is None:
                self._note_choice(selection, home, account, now, debug=debug)
            if account is not None:
                if (account.quota.used >= FULL or account.quota.paid) and self._spares(account, now):
                    self._later |= {account.name}
                elif eligibility is not None and eligibility.forbids(account, selection.model, now):
                    self._tried.add(account.name)
                else:
                    return account
            elif self._wary:
                self._wary = NO_NAMES
            elif self._later != self._lacking:
                self._later, self._sparing = self._lacking, False
            elif self._waiting:
                self._later, self._lacking, self._sparing = NO_NAMES, NO_NAMES, True
                self._enter(self._waiting.pop(0))
            elif self._later:
                self._later = self._lacking = NO_NAMES
            else:
                return None

    def _spares(self, account: Account, now: float) -> bool:
        """Whether to look for another account, because what this one serves is paid extra usage."""
        selection = self._selection
        return self._sparing and selection.pinned is None and bool(account.quota.spent_until(selection.model, now))

    def _note_choice(
        self, selection: Selection, home: str | None, account: Account | None, now: float, *, debug: bool
    ) -> None:
        pool, record = self._route.accounts, self._call.record
        if not debug and account is not None and home == account.name and selection.pinned is None:
            choice = at_home(pool, account)  # as most choices are: nothing is looked at that nobody asked for
        else:
            choice = explain(pool, selection, home, account, now)
        record.choices = (*record.choices, choice)
        if debug:
            log.debug("%s: %s", record.request_id, choice.words(now))

    def _excluding(self) -> Selection:
        """Without the accounts that were tried, and those that are asked later."""
        return replace(self._selection, exclude=self._later.union(self._tried, self._wary))

    def _last_resort(self) -> Account:
        """Every account is known to be limited: try the one that is free first anyway, and give the client its answer.
        Raises GatewayError where there is none, or none that may be used."""
        call, now = self._call, time.time()
        eligibility = call.eligibility
        if eligibility is None or not eligibility.forbade:
            for target in sorted(call.targets, key=self._wait):
                self._enter(target)
                account = self._route.accounts.last_resort(self._selection, now)
                if account is None:
                    continue
                if eligibility is not None and eligibility.forbids(account, self._selection.model, now):
                    continue
                self._tried.update(self._route.accounts.accounts)
                self._resorted = True
                return account
        if eligibility is not None and eligibility.forbade:
            call.record.error = eligibility.error
            raise eligibility.refusal(self._route.provider.instance, now)
        raise self._unserved()

    # --- one attempt ----------------------------------------------------------------------------------------------

    async def _attempt(self, account: Account) -> Attempt | None:
        """Send to one account. None: there was no answer, `_cause` says why."""
        call, route = self._call, self._route
        record = call.record
        record.account = account.name
        try:
            credential = account.usable(time.time())
            if credential is None:
                credential = await call.turn.apart(self._renewal(account))
        except RefreshError as error:
            self._cause = error
            call.note(account.name, 0, "skipped", error.reason)
            return None
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            return None
        try:
            request, origin = build_request(call, self._body, route, credential, account.name)
        except RequestRefused as refusal:
            # Only this account refuses; another kind may serve the request, as an API key allows what a login doesn't.
            self._cause = refusal
            call.note(account.name, 0, "refused", refusal.message)
            return None
        record.attempts += 1
        account.load(1)
        try:
            exchange, head = await self._pool.request(
                call.turn, origin, call.head.method, request, remaining, upgrade=call.upgrade is not None
            )
        except WireError as error:
            account.load(-1)
            self._cause = self._unreached = error
            call.note(account.name, 0, error.phase, str(error))
            log.warning("%s: %s account %s: %s", record.request_id, record.provider, account.name, error)
            return None
        except BaseException:
            account.load(-1)
            raise
        attempt = Attempt(route, account, credential, exchange, head, self._selection.model)
        try:
            attempt.verdict = by_head(attempt) or await self._by_body(attempt)
        except BaseException:
            attempt.end()
            raise
        return attempt

    async def _by_body(self, attempt: Attempt) -> Verdict:
        if self._judge is None:
            self._judge = Judge(self._call, self._checks, self._deadline)
        verdict = await self._judge.by_body(attempt, self._body)
        self._cause = self._judge.cause or self._cause
        self._sought = self._judge.sought
        return verdict

    async def _renewal(self, account: Account) -> Credential:
        """The renewal goes on when this request stops waiting for it: another account may serve the request
        meanwhile."""
        others = len(self._route.accounts.accounts) > 1 or self._waiting
        remaining = self._deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(remaining, RENEWAL_SECONDS) if others else remaining):
                return await account.renew()
        except TimeoutError:
            raise RefreshUnavailable("its renewal takes too long") from None

    def _carry_out(self, attempt: Attempt) -> Account | None:
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
        pool, held = attempt.route.accounts, account.credential
        if verdict.action is Action.BACK_OFF and verdict.until is None:
            pool.faltering.add(account)
            self._wary = frozenset(other.name for other in pool.faltering)
        if verdict.action is Action.PARK and held is not None and held.secret != attempt.credential.secret:
            self._replaced = account  # it was about a login that has been replaced meanwhile
            return None
        if verdict.action in {Action.COOL_DOWN, Action.PARK}:
            account.apply(verdict, time.time())
        elif verdict.action is Action.MISSING and verdict.model:
            pool.lacking.note(account, verdict.model, time.time())
        if verdict.kind:
            self._tried.update(
                one.name for one in pool.accounts.values() if one.credential and one.credential.kind == verdict.kind
            )
        return None

    # --- when nothing worked --------------------------------------------------------------------------------------

    def _doubtful(self, attempt: Attempt) -> bool:
        """A client that is told 401 gives up, and asks its user to sign in: only where no account was out of reach, or
        could not be renewed for now, so that another attempt might go well."""
        later = self._unreached is not None or isinstance(self._cause, RefreshUnavailable)
        return attempt.head.status == 401 and later

    def _settle(self, attempt: Attempt) -> Attempt:
        """The last real answer, with the time at which some account is free again.

        If that time is far away, aimux answers itself: the vendor's words are about one account, which is not the
        client's, and its time is not the one that counts.
        """
        self._last = None
        targets = self._call.targets
        if attempt.verdict.action is Action.COOL_DOWN:
            error = self._unserved()
            if isinstance(error, LimitReached):
                attempt.end()
                raise error
            if len(targets) > 1 or len(targets[0].route.accounts.accounts) > 1:
                wait = min(map(self._wait, targets))
                attempt.retry_after = None if wait == math.inf else wait
        return attempt

    def _unserved(self) -> GatewayError:
        first = min(self._call.targets, key=self._wait)
        return unserved(first.route, self._selected(first), time.time(), self._zone)

    def _failure(self) -> GatewayError:
        late, cause = time.monotonic() >= self._deadline, self._cause
        if self._last is not None:
            cause = self._unreached
        return failure(self._route, cause, late=late) or self._unserved()


def _says_less(attempt: Attempt, last: Attempt) -> bool:
    """Another account's answer tells the client more."""
    verdict, before = attempt.verdict, last.verdict
    if attempt.head.status in {401, 403}:
        return True  # it is about a credential of aimux's
    if verdict.action is Action.MISSING:
        return not before.kind  # which no account of that kind serves: the others know what is missing
    # Among several limits, the client is told about the one that ends first.
    return verdict.action is before.action is Action.COOL_DOWN and (before.until or 0.0) <= (verdict.until or 0.0)
