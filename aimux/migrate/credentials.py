"""Credential files in the form that the vendors' own CLIs write, made from what other gateways keep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aimux.migrate.fields import MigrationError
from aimux.plugin import CredentialError, load_object
from aimux.plugin.oauth import read_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aimux.migrate.plan import MakeCredential
    from aimux.plugin import Provider


def api_key(key: str) -> MakeCredential:
    return lambda provider: provider.api_key_file(key)


def setup_token(token: str) -> MakeCredential:
    """A long-lived token that the vendor's CLI made; it can't be renewed."""
    return lambda provider: provider.setup_token_file(token)


def as_it_is(path: Path) -> MakeCredential:
    """A file that the provider reads in its own form."""

    def make(_: Provider) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise MigrationError(f"can't read {path}: {error.strerror}") from None

    return make


def claude_oauth(
    access_token: str, refresh_token: str, expires: object, extra: Mapping[str, Any] | None = None
) -> MakeCredential:
    oauth: dict[str, Any] = {"accessToken": access_token, "refreshToken": refresh_token}
    if (seconds := timestamp(expires)) is not None:
        oauth["expiresAt"] = int(seconds * 1000)
    oauth |= {name: value for name, value in (extra or {}).items() if value}
    return lambda _: json.dumps({"claudeAiOauth": oauth}, indent=2).encode()


def codex_oauth(tokens: Mapping[str, str], last_refresh: str) -> MakeCredential:
    """`tokens`: id_token, access_token, refresh_token, account_id; empty ones are left out."""
    data: dict[str, Any] = {"OPENAI_API_KEY": None, "tokens": {name: value for name, value in tokens.items() if value}}
    if last_refresh:
        data["last_refresh"] = last_refresh
    return lambda _: json.dumps(data, indent=2).encode()


def timestamp(value: object) -> float | None:
    """As `read_time`; None also if it says nothing (Go's zero time)."""
    seconds = read_time(value)
    return seconds if seconds is not None and seconds > 0 else None


def load_json(path: Path) -> dict[str, Any]:
    """Raises MigrationError with a position, never with content."""
    try:
        return load_object(path.read_bytes())
    except OSError as error:
        raise MigrationError(f"can't read {path}: {error.strerror}") from None
    except CredentialError as error:
        raise MigrationError(f"{path} {error}") from None
