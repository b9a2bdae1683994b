"""A request with a credential of the vendor's that its user brought along: relayed with that, once, and no account of
aimux's is asked, changed or told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.accounts import Account
from aimux.gateway.call import Attempt, Call
from aimux.gateway.unserved import failure
from aimux.gateway.upstream_request import build_request
from aimux.gateway.verdicts import by_head
from aimux.http.errors import WireError
from aimux.metering.record import OWN_LOGIN
from aimux.plugin.types import Action

if TYPE_CHECKING:
    from aimux.plugin.types import Credential
    from aimux.relay.pool import Pool


async def send(call: Call, pool: Pool, credential: Credential, patience: float) -> Attempt:
    """The upstream's answer, whatever it is: what it says about the credential is for its owner. Raises
    GatewayError."""
    record, route = call.record, call.admitted.route
    record.account = OWN_LOGIN
    request, origin = build_request(call, call.body, route, credential)
    record.attempts += 1
    try:
        exchange, head = await pool.request(
            call.turn, origin, call.head.method, request, patience, upgrade=call.upgrade is not None
        )
    except WireError as error:
        call.note(OWN_LOGIN, 0, error.phase, str(error))
        told = failure(route, error, late=False)
        assert told is not None  # it has words for each of them
        raise told from error
    account = Account(OWN_LOGIN, route.provider.instance)
    account.load(1)
    attempt = Attempt(route, account, credential, exchange, head, record.model, own=True)
    try:
        by_head(attempt)
    except BaseException:
        attempt.end()
        raise
    call.note(OWN_LOGIN, head.status, Action.RELAY, "")
    return attempt
