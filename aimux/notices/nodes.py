"""Nodes of one database see the same things: they ask each other who sends a notice.

Whoever asks and hears of nobody sends it. The others ask again until it has arrived, so that a node that ends before is
replaced. Nothing is stored: what nobody remembers is sent, as twice is better than never.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from aimux.background import end
from aimux.storage import StorageError

if TYPE_CHECKING:
    from aimux.storage import Database

ASKS, SENDS, SENT = "notice-asks", "notice-sends", "notice-sent"
"""What nodes say of a notice, by its key and the word of who asks: of two that ask at once the lower one goes first."""
PATIENCE = 1.0
"""Seconds in which the others answer."""
AGAIN = 60.0
"""Seconds until one that another node sends is asked about again."""


class Nodes:
    """What this node has to say of notices, and what it hears."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._word = secrets.token_hex(8)
        self._states: dict[str, str] = {}
        """Of each notice's key, what this node says."""
        self._heard: dict[str, set[str]] = {}
        """What the others said since this node asked."""
        self._answers: set[asyncio.Task[None]] = set()
        database.hear(self._hear)

    async def mine(self, key: str) -> bool:
        """Whether this node is to send a notice. While another one does, wait until it has arrived."""
        while True:
            self._states[key], self._heard[key] = ASKS, set()
            try:
                await self._database.tell(f"{ASKS} {key} {self._word}")
                await asyncio.sleep(PATIENCE)
            except StorageError:
                pass  # nobody can be asked
            said = self._heard.pop(key, set())
            if not said or SENT in said:
                self._states[key] = SENT if said else SENDS
                return not said
            del self._states[key]
            await asyncio.sleep(AGAIN)

    def sent(self, key: str) -> None:
        """It has arrived, or never will."""
        if key in self._states:
            self._states[key] = SENT

    def forget(self, key: str) -> None:
        self._states.pop(key, None)
        self._heard.pop(key, None)

    async def close(self) -> None:
        """What has not arrived by now is another node's."""
        self._states = {key: state for key, state in self._states.items() if state == SENT}
        await end(*self._answers)

    def _hear(self, _node: str, text: str) -> None:
        said, _, rest = text.partition(" ")
        key, _, word = rest.partition(" ")
        state = self._states.get(key)
        if said == ASKS and state == ASKS and word < self._word:
            self._heard[key].add(SENDS)  # both ask, and the other one goes first
        elif said == ASKS and state is not None:
            task = asyncio.get_running_loop().create_task(self._answer(SENT if state == SENT else SENDS, rest))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        elif said in {SENDS, SENT} and word == self._word and key in self._heard:
            self._heard[key].add(said)

    async def _answer(self, state: str, asked: str) -> None:
        try:
            await self._database.tell(f"{state} {asked}")
        except StorageError:
            pass  # whoever asks sends it, too
