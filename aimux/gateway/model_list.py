"""The list of models: the upstream's, in the form that its clients know, with the configured names in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.gateway.whole_answers import read_beside, whole_answer
from aimux.plugin.codings import DecodeError, decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.gateway.call import Attempt, Call


async def model_list(call: Call, attempt: Attempt, names: Mapping[str, str]) -> bytes | None:
    """None if the request is for something else, or the answer has to pass as it came."""
    provider, head, answer = attempt.route.provider, call.head, attempt.head
    if head.method != "GET" or answer.status == 304 or provider.list_models(head, b"", names) is None:
        return None
    if answer.status != 200:
        return provider.list_models(head, b"", names) if names else None
    raw = await whole_answer(attempt)
    if raw is None:
        return None  # half of a list would hide the other half

    def read() -> bytes | None:
        return provider.list_models(head, decode(raw, answer.coding), names)

    try:
        return await read_beside(call, len(raw), read)
    except DecodeError:
        return None
