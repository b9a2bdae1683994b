"""Credentials at rest in a database: AES-256-GCM, bound to their place."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from aimux.accounts.vault import Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

_NONCE = 12


class Sealer:
    """Seals with the first key and opens with any. A key is 32 bytes; its id reveals nothing about it."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 30 ms: only where there is a database

        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self.current, *self.old = map(key_id, keys)
        """The ids of the key that seals, and of those that only open."""

    def seal(self, raw: bytes, place: str) -> bytes:
        """Different each time, even for the same content."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._ciphers[self.current].encrypt(nonce, raw, place.encode())

    def open(self, sealed: bytes, key: str, place: str) -> bytes:
        """Raises Unreadable if the key is missing, or if this was sealed elsewhere or changed since."""
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(key)
        if cipher is None:
            raise Unreadable(
                f"the credential of {place} is encrypted with another key",
                remedy="set that one as database.encryption_key, or list it in database.old_encryption_keys; if it is"
                " lost, log in again",
            )
        try:
            return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode())
        except (InvalidTag, ValueError):  # the latter: cut short
            raise Unreadable(f"the credential of {place} was changed in the database", remedy="log in again") from None


def key_id(key: bytes) -> str:
    """The same for the same key, on every node."""
    return hashlib.sha256(b"aimux key id\0" + key).hexdigest()[:8]
