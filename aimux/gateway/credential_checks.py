"""Whether a credential is accepted: the provider's cheapest request with it, sent the way a client's request goes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aimux.accounts import Selection
from aimux.gateway.call import Call
from aimux.gateway.caller import Caller
from aimux.gateway.epoch import Admitted
from aimux.gateway.preview import Preview
from aimux.gateway.upstream_request import build_request
from aimux.http.errors import WireError
from aimux.http.request import parse_request_head
from aimux.http.turn import in_turn
from aimux.metering.record import RequestRecord
from aimux.plugin.body import Body
from aimux.plugin.errors import GatewayError
from aimux.plugin.types import RELAY, Action, Verdict
from aimux.redaction import mask

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aimux.accounts import Account
    from aimux.gateway.route import Route
    from aimux.http.turn import Turn
    from aimux.plugin.types import Credential
    from aimux.relay.pool import Pool

log = logging.getLogger("aimux.gateway")

ERROR_BODY = 64 * 1024
"""How much of an error's body is read to judge it, and for how long."""
ERROR_BODY_SECONDS = 5.0
REFUSED_LASTS, LASTS = 30.0, 2.0
"""Seconds for which it holds that a credential is refused, and any other answer: a series of refused requests does not
ask more often. A credential that is accepted may end at any moment, and a failure be over."""


async def ask_cheapest(
    route: Route, account: Account, credential: Credential, relay: Pool, seconds: float
) -> tuple[int, Verdict]:
    """The upstream's status and what it means; limits in the answer are noted. Raises WireError, RequestRefused."""
    return await in_turn(lambda turn: _ask_cheapest(turn, route, account, credential, relay, seconds))


async def _ask_cheapest(
    turn: Turn[Any], route: Route, account: Account, credential: Credential, relay: Pool, seconds: float
) -> tuple[int, Verdict]:
    provider = route.provider
    head, raw = provider.cheapest_request(credential)
    lines = "".join(f"\r\n{name}: {value}" for name, value in head.headers.items())
    received = parse_request_head(f"{head.method} {head.target} HTTP/1.1\r\nhost: aimux{lines}".encode())
    record = RequestRecord("", time.time(), head.method, head.path)
    call = Call(turn, Admitted(None, route, Caller(None, b""), head, received), Body(raw), record, (), Selection())
    request, origin = build_request(call, call.body, route, credential)
    account.load(1)
    try:
        exchange, answer = await relay.request(turn, origin, head.method, request, seconds)
    finally:
        account.load(-1)
    try:
        account.observe(provider.limits(answer.headers), time.time())
        if answer.status < 400:
            return answer.status, RELAY
        payload = await exchange.peek(lambda payload: len(payload) >= ERROR_BODY, ERROR_BODY_SECONDS)
        if exchange.error is not None:
            raise exchange.error
    finally:
        exchange.discard()
    body = Preview(answer.coding, ERROR_BODY).read(payload)
    return answer.status, masked(provider.classify(answer.status, answer.headers, body))


def masked(verdict: Verdict) -> Verdict:
    """A plugin's verdict without any secret that aimux holds: its reason is shown and kept."""
    if not verdict.reason and not verdict.remedy:
        return verdict
    return replace(verdict, reason=mask(verdict.reason), remedy=mask(verdict.remedy))


class _Check:
    """Of one credential: its answer, and until when (time.monotonic) that holds."""

    __slots__ = ("answer", "secret", "until")

    def __init__(self, secret: str, asking: Coroutine[Any, Any, bool | None]) -> None:
        self.secret = secret
        self.until = math.inf
        self.answer = asyncio.get_running_loop().create_task(self._noted(asking))

    async def _noted(self, asking: Coroutine[Any, Any, bool | None]) -> bool | None:
        accepted = None
        try:
            accepted = await asking
        finally:
            self.until = time.monotonic() + (REFUSED_LASTS if accepted is False else LASTS)
        return accepted


class CredentialChecks:
    """What is known about credentials that a client's request was refused with. One question at a time for each."""

    def __init__(self, relay: Pool) -> None:
        self._relay = relay
        self._checks: dict[Account, _Check] = {}

    async def accepted(self, route: Route, account: Account, credential: Credential, seconds: float) -> bool | None:
        """False: it is known to be refused, in the vendor's own words. None: nobody could say, within `seconds`."""
        now = time.monotonic()
        self._checks = {one: check for one, check in self._checks.items() if check.until > now}
        check = self._checks.get(account)
        if check is None or check.secret != credential.secret:
            check = _Check(credential.secret, self._ask(route, account, credential, seconds))
            self._checks[account] = check
        return await asyncio.shield(check.answer)  # a client that leaves takes nothing from the others who wait

    async def _ask(self, route: Route, account: Account, credential: Credential, seconds: float) -> bool | None:
        try:
            async with asyncio.timeout(seconds):
                status, verdict = await ask_cheapest(route, account, credential, self._relay, seconds)
        except (WireError, GatewayError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            log.info("%s account %s can't be checked: %s", account.provider, account.name, why)
            return None
        if verdict.action is Action.BACK_OFF:
            return None
        if verdict.action is Action.PARK:
            account.apply(verdict, time.time())
        accepted = verdict.action is not Action.REFRESH
        words = "accepted" if accepted else f"refused ({status})"
        log.info("%s account %s: its credential is %s in the cheapest request", account.provider, account.name, words)
        return accepted
