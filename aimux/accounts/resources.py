"""What the renewers of one pool work with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aimux.accounts.account import Account
    from aimux.accounts.vault import Vault
    from aimux.plugin.http import Http
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Credential


@dataclass(slots=True)
class Resources:
    """Shared by all of them; owns their tasks. `provider` is replaced when the configuration is read again."""

    provider: Provider
    vault: Vault
    http: Http
    margin: float
    clock: Callable[[], float]
    on_outcome: Callable[[Account, str], None] | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def scan(self) -> dict[str, str]:
        return await self.vault.scan(self.provider.instance, self.provider.credential_file)

    def start(self, work: Coroutine[Any, Any, Credential]) -> asyncio.Task[Credential]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has seen it, or nobody waits any longer

    async def close(self) -> None:
        while self.tasks:
            await asyncio.wait(self.tasks)
