"""`test`: the cheapest real call with an account's credential, the way a client's request goes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from aimux.accounts import Selection
from aimux.gateway.attempts import ERROR_BODY, ERROR_BODY_SECONDS
from aimux.gateway.auth import Caller
from aimux.gateway.call import Admitted, Call, Route
from aimux.gateway.upstream_request import build_request
from aimux.http.errors import WireError
from aimux.http.request import parse_request_head
from aimux.metering.record import RequestRecord
from aimux.plugin import RELAY, Action, RefreshError, RequestRefused, Verdict
from aimux.plugin.codings import DecodeError, decode
from aimux.plugin.types import Body

if TYPE_CHECKING:
    from aimux.accounts import Account, AccountPool
    from aimux.plugin import Credential
    from aimux.relay.pool import Pool

SECONDS = 30.0


async def probe(accounts: AccountPool, account: Account, relay: Pool) -> tuple[int | None, Verdict]:
    """The upstream's status (None: no answer), and what it means. RELAY with a status below 400: the account serves.

    A refused credential is renewed once, as for a client's request, and limits and verdicts count as they do there.
    """
    try:
        credential = account.usable(time.time()) or await account.renew()
        status, verdict = await _call(accounts, account, credential, relay)
        if verdict.action is Action.REFRESH:
            credential = await account.renew(rejected=credential)
            status, verdict = await _call(accounts, account, credential, relay)
            if verdict.action is Action.REFRESH:
                verdict = Verdict(Action.PARK, verdict.reason, remedy=verdict.remedy or "log in again")
    except RefreshError as error:
        return None, Verdict(Action.BACK_OFF, error.reason, remedy=error.remedy)
    except (WireError, RequestRefused) as error:
        return None, Verdict(Action.BACK_OFF, str(error))
    account.apply(verdict, time.time())
    return status, verdict


async def _call(accounts: AccountPool, account: Account, credential: Credential, relay: Pool) -> tuple[int, Verdict]:
    provider = accounts.provider
    head, raw = provider.cheapest_request(credential)
    lines = "".join(f"\r\n{name}: {value}" for name, value in head.headers.items())
    received = parse_request_head(f"{head.method} {head.target} HTTP/1.1\r\nhost: aimux{lines}".encode())
    record = RequestRecord("", time.time(), head.method, head.path)
    route = Route(provider, accounts)
    call = Call(Admitted(None, route, Caller(None, b""), head, received), Body(raw), record, (), Selection())
    request, origin = build_request(call, call.body, route, credential)
    account.load(1)
    try:
        exchange, answer = await relay.request(origin, head.method, request, SECONDS)
    finally:
        account.load(-1)
    try:
        account.observe(provider.limits(answer.headers), time.time())
        if answer.status < 400:
            return answer.status, RELAY
        payload = await exchange.peek(lambda payload: len(payload) >= ERROR_BODY, ERROR_BODY_SECONDS)
    finally:
        exchange.discard()
    try:
        body = decode(payload, answer.get("content-encoding"))
    except DecodeError:
        body = b""
    verdict = provider.classify(answer.status, answer.headers, body)
    return answer.status, verdict if verdict.reason else replace(verdict, reason=f"it answered {answer.status}")
