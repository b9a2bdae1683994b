"""Answers that aimux reads as a whole before it answers: short ones that it changes for the client, such as the list
of models, or one that names the upstream's own addresses."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aimux.plugin.body import Body
from aimux.plugin.codings import DecodeError, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.deposits import Deposits

T = TypeVar("T")

MOST = 16 * 1024 * 1024
"""Bytes of an upstream's list. OpenRouter's of models has half a megabyte, the Codex backend's their instructions."""
SECONDS = 10.0
AT_ONCE = 128 * 1024
"""A shorter answer is parsed in less than a millisecond; a longer one is parsed beside the event loop."""


async def whole_answer(attempt: Attempt) -> bytes | None:
    """As it came, compressed or not; None if it is too large or broke off. It can still be relayed."""
    raw = await attempt.exchange.peek(lambda _payload: False, SECONDS, MOST)
    return raw if attempt.exchange.held_whole else None


async def read_beside(call: Call, size: int, read: Callable[[], T]) -> T:
    """What `read` makes of so many bytes."""
    if size <= AT_ONCE:
        return read()
    return await call.turn.apart(asyncio.to_thread(read))


async def model_list(call: Call, attempt: Attempt, names: Mapping[str, str]) -> bytes | None:
    """The upstream's list of models, in the form that its clients know, with the configured names in it, and without
    those that the caller may not use: clients offer what is listed.

    None if the request is for something else, or the answer has to pass as it came."""
    provider, head, answer = attempt.route.provider, call.head, attempt.head
    if head.method != "GET" or answer.status == 304 or provider.list_models(head, b"", names) is None:
        return None
    caller = call.admitted.caller
    bound = not caller.may_use(provider.instance, "")
    may_use = partial(caller.may_use, provider.instance)
    if answer.status != 200:
        listed = provider.list_models(head, b"", names) if names else None
        return _usable(listed, may_use) if bound and listed is not None else listed
    raw = await whole_answer(attempt)
    if raw is None:
        return None  # half of a list would hide the other half

    def read() -> bytes | None:
        told = decode(raw, answer.coding)
        listed = provider.list_models(head, told, names)
        return _usable(told if listed is None else listed, may_use) if bound else listed

    try:
        return await read_beside(call, len(raw), read)
    except DecodeError:
        return None


def _usable(listed: bytes, may_use: Callable[[str], bool]) -> bytes:
    """A list of models, in the form of any vendor, with those that are asked for by a name that may be used. Where its
    next page begins is left as it is: the upstream knows that."""
    document = Body(listed).json()
    for member in ("data", "models"):
        if isinstance(models := document.get(member), list):
            document[member] = [model for model in models if (name := _name(model)) is None or may_use(name)]
    return json.dumps(document).encode() if document else listed


def _name(model: Any) -> str | None:
    """By Codex' lists it is the slug."""
    name = model.get("slug", model.get("id")) if isinstance(model, dict) else None
    return name if isinstance(name, str) else None


async def with_own_addresses(call: Call, attempt: Attempt, deposits: Deposits) -> bytes | None:
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
        deposits.learn(call, attempt, meter)
    return changed
