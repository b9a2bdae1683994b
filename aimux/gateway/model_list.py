"""The list of models: the upstream's, in the form that its clients know, with the configured names in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aimux.plugin.codings import DecodeError, decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.gateway.call import Attempt, Call

MOST = 16 * 1024 * 1024
"""Bytes of an upstream's list. OpenRouter's has half a megabyte, the Codex backend's each model's instructions."""
SECONDS = 10.0
AT_ONCE = 128 * 1024
"""What is read in less than a millisecond; a longer list is read beside the event loop."""


async def model_list(call: Call, attempt: Attempt, names: Mapping[str, str]) -> bytes | None:
    """None where the request is for something else, or the answer has to pass as it came."""
    provider, head, answer = attempt.route.provider, call.head, attempt.head
    if head.method != "GET" or answer.status == 304 or provider.list_models(head, b"", names) is None:
        return None
    if answer.status != 200:
        return provider.list_models(head, b"", names) if names else None
    exchange = attempt.exchange
    raw = await exchange.peek(lambda _payload: False, SECONDS, MOST)
    if not exchange.held_whole:
        return None  # half of a list would hide the other half

    def read() -> bytes | None:
        return provider.list_models(head, decode(raw, answer.get("content-encoding")), names)

    try:
        if len(raw) <= AT_ONCE:
            return read()
        work = asyncio.to_thread(read)
        return await (work if call.turn is None else call.turn.apart(work))
    except DecodeError:
        return None
