"""Which conversation a request belongs to, so that it stays on one account and its prompt cache lives."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimux.plugin.body import Body
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import RequestHead

LONGEST = 128
"""Characters kept of a key that a client chose: there are thousands of them."""
_NO_CONVERSATION = frozenset({"system", "developer"})


def conversation_of(provider: Provider, head: RequestHead, body: Body) -> str | None:
    """A key that is the same for all requests of a user's conversation; None where nothing tells.

    What the client names, else a hash of the conversation's first message. The system prompt alone never counts: a
    whole team may share it.
    """
    if key := named_conversation(provider, head, body):
        return key
    first = _first_message(body)
    return None if first is None else _hashed(json.dumps(first, sort_keys=True))


def named_conversation(provider: Provider, head: RequestHead, body: Body) -> str | None:
    """What the client itself calls it. With an empty body: as far as its headers do."""
    key = provider.conversation_key(head, body)
    return key if key is None or (len(key) <= LONGEST and key.isprintable()) else _hashed(key)


def _hashed(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _first_message(body: Body) -> object:
    data = body.json()
    messages = data.get("messages", data.get("input"))
    if isinstance(messages, str):
        return messages or None
    if not isinstance(messages, list):
        return None
    for message in messages:
        if isinstance(message, dict) and message.get("role") not in _NO_CONVERSATION:
            return message.get("content", message)
    return None
