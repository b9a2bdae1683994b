"""Remembers the refresh tokens that were rotated away, so that no stale copy of a file brings one back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aimux.plugin.documents import load_object
from aimux.plugin.errors import CredentialError

KEPT = 64
"""Tokens kept for an account: with a renewal every eight hours they cover three weeks."""


@dataclass(frozen=True, slots=True)
class Rotations:
    """The rotations of one account. The file is beside its credential, and as secret."""

    retired: tuple[str, ...] = ()
    """Hashes of the tokens, oldest first."""
    change: dict[str, Any] | None = field(default=None, repr=False)
    """What the last rotation changed in the file: nested keys with their new values. None: it is no JSON object."""

    @classmethod
    def read(cls, raw: bytes) -> Rotations:
        """A file that can't be read counts as empty."""
        try:
            data = load_object(raw)
        except CredentialError:
            return cls()
        retired, change = data.get("retired"), data.get("change")
        hashes = tuple(one for one in retired if isinstance(one, str)) if isinstance(retired, list) else ()
        return cls(hashes[-KEPT:], change if isinstance(change, dict) else None)

    def written(self) -> bytes:
        """For the file."""
        return json.dumps({"version": 1, "retired": self.retired, "change": self.change}, indent=1).encode()

    def covers(self, token: str | None) -> bool:
        """Whether this refresh token was rotated away, and is dead."""
        return token is not None and _hashed(token) in self.retired

    def after(self, token: str, before: bytes, fresh: bytes) -> Rotations:
        """These and one more: `token` was replaced, and the file went from `before` to `fresh`."""
        try:
            change = _difference(load_object(before), load_object(fresh))
        except CredentialError:
            change = None
        return Rotations((*self.retired, _hashed(token))[-KEPT:], change)

    def mended(self, stale: bytes, newest: bytes | None) -> bytes | None:
        """A file that holds a dead token, with the living one in its place; everything else stays. None: the living one
        isn't known.

        `newest`: the file as it was last used, if known.
        """
        if self.change is None:
            return newest  # the format is the provider's own: only the whole of it is known
        try:
            data = load_object(stale)
            last = load_object(newest) if newest is not None else {}
        except CredentialError:
            return None
        return _dumped(_put(data, self.change, last), stale)


def with_text(raw: bytes, old: str, new: str) -> bytes:
    """The JSON object with `new` wherever it holds the text `old`. Raises CredentialError if it is none."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(inner) for key, inner in value.items()}
        return new if isinstance(value, str) and value.strip() == old else value

    return _dumped(replaced(load_object(raw)), raw)


def _dumped(data: dict[str, Any], like: bytes) -> bytes:
    """Indented if `like` is."""
    return json.dumps(data, indent=2 if b"\n" in like.strip() else None, ensure_ascii=False).encode()


def _hashed(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := _difference(old, value):
                changed[key] = inner
        elif key not in before or value != old:
            changed[key] = value
    return changed


def _put(data: dict[str, Any], change: dict[str, Any], newest: dict[str, Any]) -> dict[str, Any]:
    for key, value in change.items():
        last = newest.get(key)
        if isinstance(value, dict):
            old = data.get(key)
            data[key] = _put(old if isinstance(old, dict) else {}, value, last if isinstance(last, dict) else {})
        else:
            data[key] = newest.get(key, value)
    return data
