"""Writes row after row and says so after each: `python -m tests.storage.child URL STATE_DIR PREFIX`."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from aimux.storage import Database
from tests.storage.conftest import put


async def main(url: str, state_dir: str, prefix: str) -> None:
    database = await Database.open(url or None, Path(state_dir))
    for number in itertools.count():
        await put(database, f"{prefix}{number}")
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
