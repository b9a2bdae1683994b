"""Bodies that are made to be hard to read."""

from __future__ import annotations

import pytest

from tests.attacks.conftest import Victim, withstands
from tests.e2e.process import TOKEN


@pytest.mark.parametrize("token", ["", TOKEN], ids=["a stranger", "a user"])
async def test_tiny_chunks_stall_nobody(victim: Victim, token: str) -> None:
    await withstands(victim, "tiny_chunks", token=token)


@pytest.mark.parametrize("attack", ["packed_bodies", "plain_bodies", "brackets"])
async def test_large_bodies_stall_nobody(victim: Victim, attack: str) -> None:
    await withstands(victim, attack, token=TOKEN)
