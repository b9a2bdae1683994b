"""Whose signatures count, according to the current configuration."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import TYPE_CHECKING

from aimux.background import end, keep_going
from aimux.people.keys import FetchedKeys, read_keys
from aimux.people.signed import Signed

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.config.auth import SignedTokens
    from aimux.people.keys import KeySet
    from aimux.people.people import People
    from aimux.plugin.http import Http


class Trust:
    """`signed` verifies tokens signed elsewhere; None: none are taken."""

    def __init__(self, people: People, http: Http, state_dir: Path) -> None:
        self.signed: Signed | None = None
        self._people = people
        self._http = http
        self._state_dir = state_dir
        self._settings: SignedTokens | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def adopt(self, settings: SignedTokens | None) -> None:
        """Use these settings from here on; verified tokens stay verified if they are the same. Raises NoKeys."""
        if settings == self._settings and (settings is None or settings.key_file is None):
            return
        keys: KeySet | FetchedKeys | None = None
        if settings is not None and settings.key_file is not None:
            keys = await asyncio.to_thread(read_keys, settings.key_file)
        await self.close()
        if settings is not None and settings.jwks_url is not None:
            keys = FetchedKeys(settings.jwks_url, self._http, self._kept(settings.jwks_url), self._changed)
            await keys.load()
            self._fetching = keep_going("fetching keys", keys.run)
        self.signed = Signed(settings, keys, self._people.ends) if settings is not None else None
        self._settings = settings

    async def close(self) -> None:
        await end(self._fetching)
        self._fetching = None

    def _kept(self, url: str) -> Path:
        """Where the keys lie that were fetched last. A file for each URL: a former signer is not to be believed while
        the new one does not answer."""
        return self._state_dir / f"jwks-{sha256(url.encode()).hexdigest()[:16]}.json"

    def _changed(self) -> None:
        """Verify everything again: one of the old keys may have been given up for a reason."""
        assert self.signed is not None
        self.signed.forget()
        self._people.on_change()
