"""The process that serves, as operations on the installation see it; and links that sign a browser in to it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aimux.config import Config
    from aimux.metering.activity import Activity
    from aimux.plugin.loader import Plugin


class Links:
    """Links that sign a browser in once, for five minutes. They live in this process: whoever asks for one gets it
    for the address that answered."""

    LIFETIME = 300.0
    MOST = 1000

    def __init__(self) -> None:
        self._codes: dict[bytes, tuple[str, str, float]] = {}

    def make(self, user: str, token_id: str) -> str:
        """A code for `user` ("": an administrator without a name). The session ends with the token that asked."""
        now = time.monotonic()
        self._codes = {digest: known for digest, known in self._codes.items() if known[2] > now}
        while len(self._codes) >= self.MOST:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_urlsafe(24)
        self._codes[_hashed(code)] = (user, token_id, now + self.LIFETIME)
        return code

    def user_of(self, code: str) -> str | None:
        """Whom it would sign in; it stays good."""
        known = self._codes.get(_hashed(code))
        return known[0] if known is not None and known[2] > time.monotonic() else None

    def use(self, code: str) -> tuple[str, str] | None:
        """Whom it signs in, once, and the id of the token that asked for it."""
        user, known = self.user_of(code), self._codes.pop(_hashed(code), None)
        return (user, known[1]) if user is not None and known is not None else None


class Reload(NamedTuple):
    """What a reload has to say."""

    warnings: list[str]
    after_restart: list[str]


@dataclass(frozen=True, slots=True)
class Running:
    """`started`: unix seconds; `certificate_ends` gives the same, or None without TLS."""

    config: Callable[[], Config]
    plugins: Sequence[Plugin]
    addresses: Callable[[], Sequence[str]]
    certificate_ends: Callable[[], float | None]
    certificate: Callable[[], bytes | None]
    """The self-signed one, as PEM."""
    activity: Callable[[], Activity]
    """What runs at this moment."""
    started: float = field(default_factory=time.time)
    links: Links = field(default_factory=Links)


def _hashed(code: str) -> bytes:
    return sha256(code.encode("utf-8", "surrogateescape")).digest()
