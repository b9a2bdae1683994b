"""The form of a token that aimux issues: `aimux_`, 32 random bytes in base 62, and a CRC-32 of both in base 62.

Secret scanners find it (`aimux_[0-9A-Za-z]{49}`), and a mistyped or cut one can be told from an unknown one.
"""

from __future__ import annotations

import secrets
import zlib
from hashlib import sha256
from typing import Literal

PREFIX = "aimux_"
SHOWN = 8
"""Characters of a token that are kept and shown, to recognise it."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY, _CHECK = 43, 6
"""How many digits hold 32 bytes, and a CRC-32."""

Form = Literal["whole", "mistyped", "foreign"]


def make_token() -> str:
    """A new token; it is kept nowhere else."""
    body = PREFIX + _base62(int.from_bytes(secrets.token_bytes(32), "big"), _BODY)
    return body + _checksum(body)


def make_id(kind: str) -> str:
    """An id for a row that nobody types and nobody can guess: `tok_` and 12 characters."""
    return f"{kind}_{_base62(secrets.randbelow(62**12), 12)}"


def form(token: str) -> Form:
    """Whether a text is a token of this form, was meant to be one, or is something else altogether."""
    if not token.startswith(PREFIX):
        return "foreign"
    body, check = token[:-_CHECK], token[-_CHECK:]
    whole = len(token) == len(PREFIX) + _BODY + _CHECK and token.isascii() and _checksum(body) == check
    return "whole" if whole else "mistyped"


def digest(token: str) -> bytes:
    """What is kept of a token: its SHA-256, 32 bytes."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK)


def _base62(number: int, width: int) -> str:
    text = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        text = _DIGITS[digit] + text
    return text
