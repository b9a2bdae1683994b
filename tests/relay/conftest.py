from __future__ import annotations

from tests.blocking import _nothing_blocks_the_loop  # noqa: F401 - a fixture
