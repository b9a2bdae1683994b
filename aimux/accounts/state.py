"""What has to outlive a restart and is no secret: one small file for all pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class StateFile:
    """`{state_dir}/accounts.json`."""

    def __init__(self, path: Path) -> None:
        raise NotImplementedError

    async def flush(self) -> None:
        """Write what changed since the last time, if anything did."""
        raise NotImplementedError
