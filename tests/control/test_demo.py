"""The demo's month, in a running aimux."""

from __future__ import annotations

import time

import pytest

from aimux.cli import demo_data
from tests.control.conftest import Start


async def test_limits_and_ledger_tell_the_same(start: Start) -> None:
    team = demo_data.settings()
    prices = {model: {"input": 3, "output": 15} for person in demo_data.TEAM for model in person.models}
    aimux = await start(**{name: team[name] for name in ("users", "groups", "limits")}, prices=prices)
    await demo_data.remember(aimux.app)
    month = time.strftime("%Y-%m-01", time.gmtime())
    [ada] = [item for item in (await aimux.get("/limits"))["items"] if item["name"] == "ada"]
    used = {one["limit"]: one["used"] for one in ada["usage"]}
    spent = (await aimux.get(f"/usage?user=ada&since={month}"))["total"]["cost_usd"]
    assert used["cost_per_month"] == pytest.approx(spent)
