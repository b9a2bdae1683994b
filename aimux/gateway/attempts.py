"""The attempt loop: account, credential, upstream, verdict; again on another account while the client has no byte."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from aimux.accounts import Selection
from aimux.gateway.headers import to_upstream
from aimux.plugin.codings import DecodeError, decode
from aimux.plugin.errors import ErrorKind, GatewayError, RefreshError, RefreshRejected
from aimux.plugin.provider import Provider
from aimux.plugin.types import RELAY, Action, Body, RequestHead, Verdict
from aimux.relay.errors import ConnectError, HeadTimeout, RelayError
from aimux.relay.head import build_head, clean
from aimux.relay.pool import Origin, Pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.accounts import Account, AccountPool
    from aimux.gateway.auth import Caller
    from aimux.metering.record import RequestRecord
    from aimux.plugin.types import Credential
    from aimux.relay.head import ResponseHead
    from aimux.relay.upstream import Exchange

log = logging.getLogger("aimux.gateway")

MAX_ATTEMPTS = 3
ERROR_BODY = 64 * 1024
"""How much of an error's body is read to judge it, and for how long. All of it goes to the client."""
ERROR_BODY_SECONDS = 5.0
OPENING_SECONDS = 2.0
"""How long the preamble of a stream may be held back while it could still turn out to be an error."""

origin_of = lru_cache(maxsize=256)(Origin.parse)


@dataclass(slots=True)
class Route:
    """A mounted provider with its accounts."""

    provider: Provider
    accounts: AccountPool
    required: bool = True
    """The configuration names it: without an account that can serve, aimux isn't ready."""
    hidden: frozenset[bytes] = field(init=False)
    watches_openings: bool = field(init=False)
    extra_headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = frozenset(name.encode("latin-1") for name in self.provider.hidden_headers)
        self.watches_openings = type(self.provider).opening is not Provider.opening
        self.extra_headers = {
            name.lower(): value.get_secret_value() for name, value in self.provider.settings.headers.items()
        }


@dataclass(slots=True)
class Call:
    """A client's request as the attempts need it."""

    route: Route
    head: RequestHead
    raw_headers: Iterable[tuple[bytes, bytes]]
    body: Body
    caller: Caller
    record: RequestRecord
    selection: Selection


@dataclass(slots=True)
class Attempt:
    """One answer of an upstream, not yet sent to the client. Its account is in flight until `end`."""

    account: Account
    exchange: Exchange
    head: ResponseHead
    verdict: Verdict = RELAY
    retry_after: float | None = None
    """What to tell the client instead of the upstream's own: another account may be free sooner."""
    ended: bool = False

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.account.in_flight -= 1
            self.exchange.discard()


class Attempts:
    """Runs one call. `run` returns the answer to relay; the caller streams it and calls `Attempt.end`."""

    def __init__(self, call: Call, pool: Pool, request_timeout: float) -> None:
        self._call = call
        self._pool = pool
        self._deadline = time.monotonic() + request_timeout
        self._tried: set[str] = set()
        self._renewed: set[str] = set()
        self._last: Attempt | None = None
        self._cause: Exception | None = None

    async def run(self) -> Attempt:
        """The answer for the client. Raises GatewayError where no upstream gave one."""
        try:
            return await self._run()
        except BaseException:
            self._keep(None)
            raise

    async def _run(self) -> Attempt:
        call = self._call
        accounts = call.route.accounts
        account = accounts.select(call.selection, time.time())
        if account is None:
            account = accounts.last_resort(call.selection, time.time())
            if account is None:
                raise self._nobody()
            # Its limit is known to be reached: one try, whose answer is the client's.
            self._tried.update(accounts.accounts)
        while account is not None:
            self._tried.add(account.name)
            attempt = await self._attempt(account)
            if attempt is not None:
                if attempt.verdict.action is Action.RELAY:
                    self._keep(None)
                    return attempt
                self._keep(attempt)
                again = await self._judge(attempt)
            else:
                again = None
            if call.record.attempts >= MAX_ATTEMPTS or time.monotonic() >= self._deadline:
                break
            account = again or self._next()
        if self._last is not None:
            return self._settle(self._last)
        raise self._failure()

    def _keep(self, attempt: Attempt | None) -> None:
        """Remember the last real answer; it goes to the client if nothing better comes."""
        if self._last is not None:
            self._last.end()
        self._last = attempt

    def _next(self) -> Account | None:
        selection = self._call.selection
        others = Selection(
            model=selection.model,
            session=selection.session,
            exclude=selection.exclude | self._tried,
            groups=selection.groups,
            pinned=selection.pinned,
        )
        return self._call.route.accounts.select(others, time.time())

    # --- one attempt ----------------------------------------------------------------------------------------------

    async def _attempt(self, account: Account) -> Attempt | None:
        """Send to one account. None: there was no answer, `_cause` says why."""
        call = self._call
        record = call.record
        record.account = account.name
        try:
            credential = account.usable(time.time()) or await account.renew()
        except RefreshError as error:
            self._cause = error
            return None
        request, origin = self._build(credential)
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            return None
        record.attempts += 1
        account.in_flight += 1
        try:
            exchange, head = await self._pool.request(origin, call.head.method, request, remaining)
        except RelayError as error:
            account.in_flight -= 1
            self._cause = error
            log.warning(
                "%s: %s account %s: %s",
                record.request_id,
                record.provider,
                account.name,
                error,
                extra={"phase": error.phase},
            )
            return None
        except BaseException:
            account.in_flight -= 1
            raise
        attempt = Attempt(account, exchange, head)
        try:
            attempt.verdict = await self._classify(attempt, credential)
        except BaseException:
            attempt.end()
            raise
        return attempt

    def _build(self, credential: Credential) -> tuple[list[bytes], Origin]:
        call = self._call
        upstream = call.route.provider.prepare(call.head, credential)
        origin = origin_of(upstream.base_url)
        replaced = {name.lower(): value for name, value in upstream.set_headers.items()}
        replaced.update(call.route.extra_headers)
        fields = to_upstream(
            call.raw_headers, token=call.caller.token, dropped=upstream.drop_headers, replaced=replaced
        )
        body = call.body.raw
        fields.insert(0, (b"Host", origin.host_header))
        fields += [(name.encode("latin-1"), clean(value)) for name, value in replaced.items()]
        if body or call.head.method in {"POST", "PUT", "PATCH"}:
            fields.append((b"Content-Length", b"%d" % len(body)))
        target = origin.base_path + clean(upstream.target)
        start = b"%b %b HTTP/1.1" % (call.head.method.encode("latin-1"), target)
        head = build_head(start, fields)
        return ([head, body] if body else [head]), origin

    async def _classify(self, attempt: Attempt, credential: Credential) -> Verdict:
        """Judge the answer, and keep what its headers say about limits."""
        route, head, now = self._call.route, attempt.head, time.time()
        provider = route.provider
        limits = provider.limits(head.headers)
        if limits:
            attempt.account.observe(limits, now)
        if head.status < 400:
            if (
                head.status == 200
                and route.watches_openings
                and head.get("content-type").startswith("text/event-stream")
            ):
                return await self._opening(attempt)
            return RELAY
        payload = await attempt.exchange.peek(lambda payload: len(payload) >= ERROR_BODY, ERROR_BODY_SECONDS)
        body = _decoded(payload, head.get("content-encoding"))
        verdict = provider.classify(head.status, head.headers, body, model=self._call.record.model)
        if verdict.action is Action.REFRESH:
            return await self._unauthorized(attempt, credential, verdict)
        return verdict

    async def _opening(self, attempt: Attempt) -> Verdict:
        """An error can hide in a 200's stream; before its first content it can still be retried."""
        provider, coding = self._call.route.provider, attempt.head.get("content-encoding")
        seen: list[Verdict] = []

        def decided(payload: bytes) -> bool:
            verdict = provider.opening(_decoded(payload, coding)) if payload else None
            if verdict is not None:
                seen.append(verdict)
            return verdict is not None

        await attempt.exchange.peek(decided, OPENING_SECONDS)
        return seen[-1] if seen else RELAY

    async def _unauthorized(self, attempt: Attempt, credential: Credential, verdict: Verdict) -> Verdict:
        """401: read the credential again, renew it, retry once; a fresh one that is refused too parks the account."""
        account = attempt.account
        if account.name in self._renewed:
            return Verdict(Action.PARK, verdict.reason, remedy=verdict.remedy or "log in again")
        self._renewed.add(account.name)
        try:
            await account.renew(rejected=credential)
        except RefreshRejected as error:
            self._cause = error
            return Verdict(Action.PARK, error.reason, remedy=error.remedy)
        except RefreshError as error:
            self._cause = error
            return Verdict(Action.BACK_OFF, error.reason)
        return verdict

    async def _judge(self, attempt: Attempt) -> Account | None:
        """Carry the verdict out. Returns the account if it should be tried again."""
        account, verdict = attempt.account, attempt.verdict
        log.info(
            "%s: %s account %s answered %d: %s (%s)",
            self._call.record.request_id,
            self._call.record.provider,
            account.name,
            attempt.head.status,
            verdict.action.value,
            verdict.reason,
        )
        if verdict.action is Action.REFRESH:
            return account
        if verdict.action in {Action.COOL_DOWN, Action.PARK}:
            account.apply(verdict, time.time())
        elif verdict.action is Action.BACK_OFF and self._next() is not None:
            await asyncio.sleep(min(random.uniform(0.05, 0.25), max(0.0, self._deadline - time.monotonic())))
        return None

    # --- when nothing worked --------------------------------------------------------------------------------------

    def _settle(self, attempt: Attempt) -> Attempt:
        """The last real answer, with the time at which some account is free again."""
        self._last = None
        accounts = self._call.route.accounts
        if attempt.verdict.action is Action.COOL_DOWN and len(accounts.accounts) > 1:
            attempt.retry_after = accounts.retry_after(self._call.selection, time.time())
        return attempt

    def _failure(self) -> GatewayError:
        cause, name = self._cause, self._call.route.provider.instance
        if isinstance(cause, HeadTimeout) or (cause is None and time.monotonic() >= self._deadline):
            return GatewayError(ErrorKind.TIMEOUT, f"{name} did not answer in time: {cause or 'the time is used up'}.")
        if isinstance(cause, ConnectError):
            return GatewayError(ErrorKind.BAD_GATEWAY, f"{name} can't be reached: {cause}.")
        if isinstance(cause, RelayError):
            return GatewayError(ErrorKind.BAD_GATEWAY, f"{name} gave no answer: {cause}.")
        return self._nobody()

    def _nobody(self) -> GatewayError:
        """No account can serve. Trying again helps only where one is merely cooling down or can't be renewed now."""
        route, now = self._call.route, time.time()
        name = route.provider.instance
        wait = route.accounts.retry_after(self._call.selection, now)
        if self._call.selection.pinned and self._call.selection.pinned not in route.accounts.accounts:
            return GatewayError(
                ErrorKind.BAD_REQUEST, f"{name} has no account {self._call.selection.pinned!r}.", retry=False
            )
        why = "it has no account yet; run `aimux login` or `aimux import`"
        if route.accounts.accounts:
            states = (
                f"{a.name}: {s.status} ({s.reason})" for a in route.accounts.accounts.values() for s in [a.state(now)]
            )
            why = "; ".join(list(states)[:5])
        if isinstance(self._cause, RefreshError) and not isinstance(self._cause, RefreshRejected):
            return GatewayError(
                ErrorKind.UNAVAILABLE, f"No {name} account can serve now: {self._cause}.", retry_after=5
            )
        return GatewayError(
            ErrorKind.UNAVAILABLE,
            f"No {name} account can serve: {why}.",
            retry=None if wait is not None else False,
            retry_after=wait,
        )


def _decoded(payload: bytes, coding: str) -> bytes:
    """As much of an encoded start as can be read."""
    if not coding or not payload:
        return payload
    try:
        return decode(payload, coding)
    except DecodeError:
        return b""
