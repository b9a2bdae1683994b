"""Whether the providers that a person may use serve them now."""

from __future__ import annotations

import time

from aimux.plugin.types import Action, Verdict
from tests.control.conftest import Start

ANN, BOB = "a-users-own-token-123", "another-users-token-45"
USERS = [
    {"name": "ann", "token": ANN, "groups": ["red"]},
    {"name": "bob", "token": BOB, "scopes": ["provider:chatgpt"]},
]


async def test_it_says_until_when_everybody_waits(start: Start) -> None:
    aimux = await start(users=USERS)

    async def told(token: str) -> dict[str, tuple[str, bool]]:
        _, _, body = await aimux.send("GET", "/me/providers", headers={"authorization": f"Bearer {token}"})
        return {one["provider"]: (one["status"], one["until"] is not None) for one in body["items"]}

    assert await told(ANN) == {"chatgpt": ("serving", False), "claude": ("serving", False)}
    assert await told(BOB) == {"chatgpt": ("serving", False)}, "what a person may not use is none of theirs"
    now = time.time()
    aimux.app.pools["claude"].accounts["default"].apply(Verdict(Action.COOL_DOWN, "used up", until=now + 600), now)
    assert (await told(ANN))["claude"] == ("limited", True)
    await aimux.post("/accounts/claude/default/disable")
    assert (await told(ANN))["claude"] == ("out", False)
