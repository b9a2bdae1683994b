"""The admin key: from the configuration, or one that aimux makes for its own machine."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from aimux import atomic

if TYPE_CHECKING:
    from pathlib import Path

KEY_FILE = "admin.key"
MIN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Key:
    """A key's SHA-256. `local`: it was made here, is kept in `file`, and serves this machine only."""

    sha256: bytes = field(repr=False)
    local: bool
    file: Path | None = None

    @property
    def id(self) -> str:
        """Identifies the key in what it opened and what ends with it. No token's id has a colon."""
        return f"key:{self.sha256.hex()[:16]}"


def ensure_key(state_dir: Path) -> tuple[Key, str | None]:
    """The key in `state_dir`, made (0600) if there is none; then its text is also returned, to be shown this once.

    Raises OSError if the folder can't be written.
    """
    path = state_dir / KEY_FILE
    text = read_key(path)
    if text is not None:
        return Key(sha256(text.encode()).digest(), local=True, file=path), None
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = secrets.token_urlsafe(32)
    atomic.write(path, f"{made}\n".encode())
    return Key(sha256(made.encode()).digest(), local=True, file=path), made


def read_key(path: Path) -> str | None:
    """The key in a file; None if there is none, or nothing that could be one. Raises OSError.

    A file that others can read is made private, as it was when it was made.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_mode & 0o077:
            os.fchmod(fd, 0o600)
        text = file.read(4096).decode("ascii", "replace").strip()
    return text if len(text) >= MIN_LENGTH and text.isprintable() and text.isascii() else None
