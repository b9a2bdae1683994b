"""Keeps credentials fresh in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.accounts.pool import AccountPool


class Keeper:
    def __init__(self, pools: Iterable[AccountPool], interval: float, *, poll: float = 2.0, parallel: int = 4) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        """Until cancelled."""
        raise NotImplementedError
