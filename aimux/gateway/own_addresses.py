"""Answers that send the client to the upstream itself, where its aimux token would be exposed and refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.gateway.whole_answers import read_beside, whole_answer
from aimux.plugin.codings import DecodeError, decode

if TYPE_CHECKING:
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.vendor_storage import VendorStorage


async def with_own_addresses(call: Call, attempt: Attempt, storage: VendorStorage) -> bytes | None:
    """The answer's body with paths in place of the upstream's addresses; None if it passes as it came."""
    provider, answer = attempt.route.provider, attempt.head
    addresses = provider.own_addresses(call.head)
    if addresses is None or answer.status != 200:
        return None
    raw = await whole_answer(attempt)
    if raw is None:
        return None

    def read() -> tuple[bytes, bytes]:
        body = decode(raw, answer.coding)
        return body, addresses.sub(b"", body)

    try:
        body, changed = await read_beside(call, len(raw), read)
    except DecodeError:
        return None
    if changed == body:
        return None
    meter = provider.meter(call.head, answer.status, answer.headers)
    if meter is not None and call.admitted.caller.own is None:
        meter.feed(body)
        meter.end()
        storage.deposits.learn(call, attempt, meter)
    return changed
