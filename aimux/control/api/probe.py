"""`test`: the cheapest real call with an account's credential, the way a client's request goes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from aimux.gateway.call import Route
from aimux.gateway.proofs import ask_cheapest
from aimux.http.errors import WireError
from aimux.plugin import Action, RefreshError, RequestRefused, Verdict

if TYPE_CHECKING:
    from aimux.accounts import Account, AccountPool
    from aimux.plugin import Credential
    from aimux.relay.pool import Pool

SECONDS = 30.0


async def probe(accounts: AccountPool, account: Account, relay: Pool) -> tuple[int | None, Verdict]:
    """The upstream's status (None: no answer), and what it means. RELAY with a status below 400: the account serves.

    A refused credential is renewed once, as for a client's request, and limits and verdicts count as they do there.
    """
    route = Route(accounts.provider, accounts)

    async def ask(credential: Credential) -> tuple[int, Verdict]:
        status, verdict = await ask_cheapest(route, account, credential, relay, SECONDS)
        told = verdict.reason or status < 400
        return status, verdict if told else replace(verdict, reason=f"it answered {status}")

    try:
        credential = account.usable(time.time()) or await account.renew()
        status, verdict = await ask(credential)
        if verdict.action is Action.REFRESH and account.served and not credential.renewable:
            return status, Verdict(Action.BACK_OFF, f"{verdict.reason}, although it has served", remedy=verdict.remedy)
        if verdict.action is Action.REFRESH:
            credential = await account.renew(rejected=credential)
            status, verdict = await ask(credential)
            if verdict.action is Action.REFRESH:
                verdict = Verdict(Action.PARK, verdict.reason, remedy=verdict.remedy or "log in again")
    except RefreshError as error:
        return None, Verdict(Action.BACK_OFF, error.reason, remedy=error.remedy)
    except (WireError, RequestRefused) as error:
        return None, Verdict(Action.BACK_OFF, str(error))
    account.apply(verdict, time.time())
    return status, verdict
