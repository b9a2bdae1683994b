"""What other accounts would have done, as the API tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aimux.metering.record import OWN_LOGIN, RequestRecord
from tests.control.conftest import Aimux, Start
from tests.control.metered import ANN, filled
from tests.metering.support import record

SINCE = "since=2026-11-20"


async def test_more_accounts_would_have_done(start: Start) -> None:
    """Six requests of 3 $, ten minutes apart: a window of 5 hours that holds 10 $ is full after four."""
    talk = [
        record(time=1_795_694_400 + number * 600, conversation=f"talk-{number}", usage={"input_tokens": 1_000_000})
        for number in range(6)
    ]
    aimux = await filled(start, talk)
    answer = await aimux.get(f"/plan?{SINCE}&accounts=claude=1&window=5h=10")
    (one,) = answer["items"]
    assert (one["provider"], one["requests"], one["refused"], one["held"]) == ("claude", 6, 2, {"5h": 10.0})
    assert [account["account"] for account in one["accounts"]] == ["default"]
    (two,) = (await aimux.get(f"/plan?{SINCE}&accounts=claude=2&window=5h=10"))["items"]
    assert (two["refused"], len(two["accounts"])) == (0, 2)


async def test_how_far_back_requests_are_kept_is_told_where_more_is_asked_for(start: Start) -> None:
    aimux = await start(ledger={"keep_requests": "7d"})
    assert (await aimux.get("/plan?since=6d"))["kept_since"] is None
    kept = datetime.fromisoformat((await aimux.get("/plan?since=8d"))["kept_since"])
    assert timedelta(days=7) <= datetime.now(UTC) - kept < timedelta(days=7, minutes=5)


@pytest.mark.parametrize(("weights", "refused"), [({}, 0), ({"users": {"bob": {"weight": 9}}}, 6)])
async def test_fair_shares_have_the_weights_that_hold(start: Start, weights: dict[str, Any], refused: int) -> None:
    """Ann takes four fifths of a window, and bob nearly nothing; until that is known, his share is kept."""
    times = [1_795_694_400 + number * 60 for number in range(40)]
    usage = {"input_tokens": 1_000_000}
    talks = [record(time=time, user="ann", conversation="", usage=usage) for time in times]
    talks += [record(time=time + 1, user="bob", conversation="") for time in times]
    aimux = await filled(start, talks, limits={"fair_share": True} | weights)
    (plan,) = (await aimux.get(f"/plan?{SINCE}&window=5h=150"))["items"]
    assert (plan["requests"], plan["not_their_share"]) == (80, refused)


async def test_what_a_user_sent_with_an_own_login_is_no_account_s(start: Start) -> None:
    told = record(time=1_795_694_400, usage={"input_tokens": 1_000_000})
    own = record(time=1_795_695_000, account=OWN_LOGIN, usage={"input_tokens": 1_000_000})
    aimux = await filled(start, [told, own])
    (plan,) = (await aimux.get(f"/plan?{SINCE}&window=5h=10"))["items"]
    assert (plan["requests"], [account["account"] for account in plan["accounts"]]) == (1, ["default"])


KEY = {"claude": {"api_key": "sk-ant-api03-" + "k" * 40}}


def spent(*accounts: str) -> list[RequestRecord]:
    """Of a request of 3 $ each, ten minutes apart."""
    return [
        record(
            time=1_795_694_400 + number * 600,
            account=account,
            conversation=f"talk-{number}",
            usage={"input_tokens": 1_000_000},
        )
        for number, account in enumerate(accounts)
    ]


async def test_an_api_key_has_no_windows(start: Start) -> None:
    """It takes what a subscription has no room for, and is left out first."""
    aimux = await filled(start, spent(*["api-key", "default"] * 6), providers=KEY)
    (both,) = (await aimux.get(f"/plan?{SINCE}&window=5h=10"))["items"]
    assert [(one["account"], list(one["fullest"])) for one in both["accounts"]] == [
        ("default", ["5h"]),
        ("api-key", []),
    ]
    assert both["refused"] == 0
    (one,) = (await aimux.get(f"/plan?{SINCE}&window=5h=10&accounts=claude=1"))["items"]
    assert ([account["account"] for account in one["accounts"]], one["refused"]) == (["default"], 8)


async def test_keys_alone_are_planned_without_a_window(start: Start) -> None:
    aimux = await filled(start, spent(*["api-key"] * 6), providers=KEY)
    answer = await aimux.get(f"/plan?{SINCE}&accounts=claude=2")
    (plan,) = answer["items"]
    assert (answer["unknown"], plan["held"], plan["refused"]) == ([], {}, 0)
    assert [(one["account"], one["requests"]) for one in plan["accounts"]] == [("api-key", 3), ("new-1", 3)]


async def test_an_account_that_was_renamed_is_one(start: Start) -> None:
    """Also if it was renamed twice, or back again."""
    aimux = await filled(start, [record(time=1_795_694_400, usage={"input_tokens": 1_000_000})])
    for before, after in (("default", "ann"), ("ann", "team")):
        await aimux.post(f"/accounts/claude/{before}/rename", {"name": after})
    aimux.app.metering.ledger.record(record(time=1_795_694_460, account="ann", usage={"input_tokens": 9}))
    aimux.app.metering.ledger.record(record(time=1_795_694_520, account="team", usage={"input_tokens": 9}))
    (plan,) = (await aimux.get(f"/plan?{SINCE}&window=5h=10"))["items"]
    assert (plan["requests"], [account["account"] for account in plan["accounts"]]) == (3, ["team"])
    await aimux.post("/accounts/claude/team/rename", {"name": "default"})
    (plan,) = (await aimux.get(f"/plan?{SINCE}&window=5h=10"))["items"]
    assert [account["account"] for account in plan["accounts"]] == ["default"]


async def test_nothing_is_made_up_of_windows_that_nobody_knows(start: Start) -> None:
    aimux = await filled(start, [record()])
    assert await aimux.get(f"/plan?{SINCE}") == {"items": [], "unknown": ["claude"], "kept_since": None}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("accounts=claude", 422),
        ("accounts=claude=0", 422),
        ("accounts=claude=1001", 422),
        ("accounts=nobody=2", 404),
        ("window=week=5", 422),
        ("window=5h=-1", 422),
        ("since=yesterday", 422),
        ("strategy=random", 422),
    ],
)
async def test_what_is_wrong_is_told(aimux: Aimux, query: str, status: int) -> None:
    assert (await aimux.send("GET", f"/plan?{query}"))[0] == status


async def test_a_process_that_the_system_kills_is_told(
    aimux: Aimux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(killed))
    status, _, problem = await aimux.send("GET", "/plan")
    assert status == 503
    assert problem["detail"] == "The plan could not be made: its process ended without a word (status -9)."


async def test_how_accounts_and_windows_are_written_is_told(aimux: Aimux) -> None:
    for query, example in (("accounts=claude", "claude=4,chatgpt=2"), ("window=week=5", "5h=12.50,7d=90")):
        _, _, problem = await aimux.send("GET", f"/plan?{query}")
        assert f"is not understood: write it like {example}" in problem["detail"]


async def test_a_member_may_not_plan(start: Start) -> None:
    aimux = await filled(start, [])
    assert (await aimux.send("GET", "/plan", headers={"authorization": f"Bearer {ANN}"}))[0] == 403
