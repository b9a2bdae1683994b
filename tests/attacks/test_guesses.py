"""Guesses at tokens, from the honest client's own address."""

from __future__ import annotations

from tests.attacks.conftest import Victim, withstands


async def test_guesses_stall_nobody(victim: Victim) -> None:
    await withstands(victim, "guesses")
