"""Which conversation a request belongs to, so that it stays on one account and its prompt cache lives."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from multidict import istr

if TYPE_CHECKING:
    from aimux.plugin.body import Body
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import RequestHead

LONGEST = 128
"""Characters kept of a key that a client chose: there are thousands of them."""
_NO_CONVERSATION = frozenset({"system", "developer"})
_SESSION_HEADERS = (istr("x-session-affinity"), istr("x-session-id"), istr("x-opencode-session"))
"""What clients of any vendor send for gateways: opencode, Crush, pi."""
_ASIDE = frozenset({"type", "cache_control", "prompt_cache_breakpoint"})
"""What makes no other message of it: marks for the cache slide on from turn to turn, and clients that write a plain
text make a part with a type of it to mark it."""
_TOLD = 8_000
"""Characters by which a first message is known: of a large body no more may be at hand."""


def conversation_of(provider: Provider, head: RequestHead, body: Body) -> str | None:
    """A key that is the same for all requests of a user's conversation; None where nothing tells.

    What the client names, else a hash of the conversation's first message. The system prompt alone never counts: a
    whole team may share it.
    """
    if key := named_conversation(provider, head, body):
        return key
    return _known_by(_first_message(body))


def named_conversation(provider: Provider, head: RequestHead, body: Body) -> str | None:
    """What the client itself calls it. With an empty body: as far as its headers do."""
    key = provider.conversation_key(head, body) or next(filter(None, map(head.headers.get, _SESSION_HEADERS)), None)
    return key if key is None or (len(key) <= LONGEST and key.isprintable()) else _hashed(key)


def _hashed(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _first_message(body: Body) -> object:
    data = body.json()
    messages = data.get("messages", data.get("input"))
    if isinstance(messages, str):
        return messages
    if not isinstance(messages, list):
        return None
    for message in messages:
        if isinstance(message, dict) and message.get("role") not in _NO_CONVERSATION:
            return message.get("content", message)
    return None


def _known_by(content: object) -> str | None:
    """A hash of the first texts in a message."""
    digest, room = blake2b(digest_size=16), _TOLD
    rest = [content]
    while rest and room > 0:
        value = rest.pop()
        if isinstance(value, str) and value:
            piece = value[:room]
            room -= len(piece)
            digest.update(piece.encode("utf-8", "surrogatepass") + b"\0")
        elif isinstance(value, list):
            rest += reversed(value)
        elif isinstance(value, dict):
            rest += [value[name] for name in sorted(value, reverse=True) if name not in _ASIDE]
    return digest.hexdigest() if room < _TOLD else None
