"""Crowds of connections, with room for a hundred."""

from __future__ import annotations

import pytest

from tests.attacks.conftest import Victim, withstands
from tests.e2e import process


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *process.COMMAND))


@pytest.mark.parametrize("attack", ["one_byte", "refused_posts"])
async def test_a_crowd_of_refused_ones_keeps_nobody_out(victim: Victim, attack: str) -> None:
    await withstands(victim, attack)
