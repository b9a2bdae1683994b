"""What comes over WebSockets."""

from __future__ import annotations

import pytest

from tests.attacks.conftest import Victim, withstands
from tests.e2e.process import TOKEN


@pytest.mark.parametrize("attack", ["half_messages", "tiny_frames"])
async def test_sockets_stall_nobody_and_hold_little(victim: Victim, attack: str) -> None:
    await withstands(victim, attack, token=TOKEN)
