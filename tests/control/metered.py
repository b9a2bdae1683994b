"""An aimux whose ledger holds requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aimux.metering.record import RequestRecord
from tests.control.conftest import Aimux, Start

ANN, BOB = "a-users-own-token-123", "another-users-token-45"
USERS = [{"name": "ann", "token": ANN, "groups": ["red"]}, {"name": "bob", "token": BOB}]
SPAN = "since=2026-11-20&until=2026-11-27"
PRICES = {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3, "cache_write_1h": 6, "reasoning": 20}


async def filled(start: Start, records: Sequence[RequestRecord], **settings: Any) -> Aimux:
    aimux = await start(users=USERS, prices={"sonnet": PRICES}, **settings)
    for one in records:
        aimux.app.metering.ledger.record(one)
    await aimux.app.metering.ledger.catch_up(30)  # a reader waits 3 s, and opening the database may take longer
    return aimux
