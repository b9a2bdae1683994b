"""A detector of calls that wait for a disk or a socket while aimux's event loop runs: no request may wait for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster

MAY_BLOCK = {
    "aimux/app/app.py": {"start", "reload"},
    "aimux/accounts/state.py": {"_read"},
    "aimux/embedding.py": {"application"},
    "aimux/front/listening.py": {"_unix_socket"},
    "aimux/logs/writer.py": {"_write_now"},
    "aimux/storage/migrations/__init__.py": {"upgrade"},
    "aimux/storage/sqlite.py": {"watch"},
}
"""Who may: at a start or a reload, for files of a few kB; whoever asks first whether it would wait; and the look at
what others wrote to SQLite's file, which takes 3 µs."""


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> Iterator[None]:
    """For a conftest to import: it then holds for every test of the folder."""
    detector = BlockBuster("aimux", excluded_modules=["aimux.simulator", "aimux.cli"])
    for function in detector.functions.values():
        for file, functions in MAY_BLOCK.items():
            function.can_block_in(file, functions)
    detector.activate()
    yield
    detector.deactivate()
