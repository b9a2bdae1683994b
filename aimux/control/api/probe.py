"""`test`: the cheapest real call with an account's credential, the way a client's request goes."""

from __future__ import annotations

import time
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from aimux.accounts import Account
from aimux.accounts.credentials import parse_credential
from aimux.control.api.problems import Refused, sentence
from aimux.gateway.credential_checks import ask_cheapest
from aimux.gateway.route import Route
from aimux.http.errors import WireError
from aimux.plugin import Action, RefreshError, RequestRefused, Verdict

if TYPE_CHECKING:
    from aimux.accounts import AccountPool
    from aimux.plugin import Credential, Provider
    from aimux.relay.pool import Pool

SECONDS = 30.0


async def check(accounts: AccountPool, raw: bytes, relay: Pool) -> None:
    """Ask the vendor about a credential that is not kept yet. Refused 422 if the vendor refuses it, but not if it can't
    be reached. Raises CredentialError."""
    provider = accounts.provider
    credential = parse_credential(provider, raw)
    account = Account("new", provider.instance)
    account.publish(credential, time.time())
    try:
        status, verdict = await ask_cheapest(Route(provider, accounts), account, credential, relay, SECONDS)
    except (WireError, RequestRefused):
        return
    if verdict.action in {Action.REFRESH, Action.PARK}:
        said = f"{verdict.reason or 'the credential was not accepted'} (status {status})"
        raise Refused(422, "credential-refused", sentence(said), remedy="copy it again, and whole")


async def probe(accounts: AccountPool, account: Account, relay: Pool) -> tuple[int | None, Verdict]:
    """The upstream's status (None: no answer), and what it means. RELAY with a status below 400: the account serves.

    A refused credential is renewed once, as for a client's request, and limits and verdicts count as they do there.
    """
    route = Route(accounts.provider, accounts)

    async def ask(credential: Credential) -> tuple[int, Verdict]:
        status, verdict = await ask_cheapest(route, account, credential, relay, SECONDS)
        told = verdict.reason or status < 400
        return status, verdict if told else replace(verdict, reason=_unsaid(accounts.provider, credential, status))

    try:
        credential = account.usable(time.time()) or await account.renew()
        status, verdict = await ask(credential)
        if verdict.action is Action.REFRESH and account.served and not credential.renewable:
            remedy = verdict.remedy or account.another()
            return status, Verdict(Action.BACK_OFF, f"{verdict.reason}, although it has served", remedy=remedy)
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


def _unsaid(provider: Provider, credential: Credential, status: int) -> str:
    """What a status says where its answer says nothing of the credential."""
    request, _ = provider.cheapest_request(credential)
    said = f"it answered {status} to {request.method} {request.path}"
    if status == HTTPStatus.NOT_FOUND:  # as MiniMax does, which has no list of models
        return f"{said}: the base URL is wrong, or it has nothing there to try a key with"
    return said
