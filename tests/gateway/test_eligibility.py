"""Accounts that are left alone: because a share of them is somebody else's, or because they would cost money."""

from __future__ import annotations

import time
from typing import Any

import pytest

from aimux.limits import Who
from aimux.plugin import Action, LimitWindow, Verdict
from tests.gateway.answers import answer, json_of, status_of
from tests.gateway.conftest import TOKEN, Aimux, Start, Upstream, request

USERS = [{"name": name, "token": f"{TOKEN}-{name}"} for name in ("ann", "bob")]
RESET = time.time() + 4 * 3600


def tell(aimux: Aimux, used: float, name: str = "default", window: str = "5h", **more: Any) -> None:
    """The vendor tells how much of a window is used."""
    aimux.account(name).observe((LimitWindow(window, used, RESET, **more),), time.time())


def ask(user: str, **options: Any) -> bytes:
    return request(token=f"{TOKEN}-{user}", **options)


async def share(aimux: Aimux, upstream: Upstream) -> None:
    """Ann has used half of the window, and everything that was used of it."""
    tell(aimux, 0.0)
    upstream.answer = answer(1000)
    assert status_of(await aimux.send(ask("ann"))) == 200
    tell(aimux, 0.5)


async def test_who_is_alone_has_all_of_an_account(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS, limits={"fair_share": True})
    await share(aimux, upstream)
    assert status_of(await aimux.send(ask("ann"))) == 200


async def test_who_has_had_his_share_waits_as_soon_as_another_one_comes(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS, limits={"fair_share": True})
    await share(aimux, upstream)
    assert status_of(await aimux.send(ask("bob"))) == 200
    refused = await aimux.send(ask("ann"))
    assert status_of(refused) == 429
    assert "Your fair share of the plain accounts is used up while others are working." in json_of(refused)["plain"]
    assert b"x-should-retry: false" in refused
    assert status_of(await aimux.send(ask("bob"))) == 200
    assert len(upstream.requests) == 3


async def test_a_window_that_is_full_is_its_vendors_to_refuse(start: Start, upstream: Upstream) -> None:
    """Who knows whether there is more, and until when there is not."""
    aimux = await start(users=USERS, limits={"fair_share": True})
    await share(aimux, upstream)
    assert status_of(await aimux.send(ask("bob"))) == 200
    tell(aimux, 1.0)
    assert status_of(await aimux.send(ask("ann"))) == 200


async def test_an_account_that_is_nobodys_is_taken_instead(start: Start, upstream: Upstream) -> None:
    aimux = await start(accounts=("default", "other"), users=USERS, limits={"fair_share": True})
    aimux.account("other").disable()
    await share(aimux, upstream)
    assert status_of(await aimux.send(ask("bob"))) == 200
    aimux.account("other").enable()
    tell(aimux, 0.9, "other")
    assert status_of(await aimux.send(ask("ann"))) == 200
    assert b"-other" in upstream.requests[-1]


async def test_weights_decide(start: Start, upstream: Upstream) -> None:
    limits = {"fair_share": True, "users": {"ann": {"weight": 3}}}
    aimux = await start(users=USERS, limits=limits)
    await share(aimux, upstream)
    assert status_of(await aimux.send(ask("bob"))) == 200
    assert status_of(await aimux.send(ask("ann"))) == 200, "of the half that is left, a quarter of the whole is hers"


async def test_without_fair_share_nobody_waits(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS)
    await share(aimux, upstream)
    for user in ("bob", "ann"):
        assert status_of(await aimux.send(ask(user))) == 200


async def test_a_reload_switches_it(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS)
    assert not aimux.app.gateway.limiting.fair.on
    aimux.app.config = aimux.app.config.model_copy()
    file = aimux.folder / "config.json"
    file.write_text(file.read_text().replace('"users"', '"limits": {"fair_share": true}, "users"', 1))
    assert await aimux.app.reload()
    assert aimux.app.gateway.limiting.fair.on


async def test_who_asks_is_told_of_the_own_share(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS, limits={"fair_share": True})
    await share(aimux, upstream)
    limiting, accounts, now = aimux.app.gateway.limiting, [aimux.account()], time.time()
    [alone] = limiting.windows(accounts, Who("ann"), now)
    assert (alone.name, alone.used) == ("5h", pytest.approx(0.5, abs=0.01))
    assert status_of(await aimux.send(ask("bob"))) == 200
    now += 2
    told = {name: limiting.windows(accounts, Who(name), now)[0].used for name in ("ann", "bob")}
    assert told == {"ann": 1.0, "bob": pytest.approx(0.0, abs=0.05)}
    limiting.fair.on = False
    assert [window.used for window in limiting.windows(accounts, Who("ann"), now)] == [0.5]


def told(received: bytes) -> dict[str, str]:
    """An answer's headers about limits."""
    lines = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    fields = (line.partition(": ") for line in lines)
    return {name.lower(): value for name, _, value in fields if name.lower().startswith("x-limit-")}


async def test_an_answer_tells_the_own_share_in_place_of_the_accounts_windows(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS, limits={"fair_share": True, "users": {"bob": {"tokens_per_day": 5000}}})
    tell(aimux, 0.0)
    upstream.answer = answer(1000).replace(b"\r\n\r\n", b"\r\nX-Limit-5h: 0.77\r\n\r\n")
    assert told(await aimux.send(ask("ann"))) == {"x-limit-5h": "0.00"}
    tell(aimux, 0.5)
    assert told(await aimux.send(ask("bob"))).keys() == {"x-limit-day"}, "who has limits is told of them"
    assert status_of(await aimux.send(ask("ann"))) == 429


async def test_without_shares_the_accounts_windows_reach_the_client(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS)
    upstream.answer = answer(1000).replace(b"\r\n\r\n", b"\r\nX-Limit-5h: 0.77\r\n\r\n")
    assert told(await aimux.send(ask("ann"))) == {"x-limit-5h": "0.77"}


# --- money -----------------------------------------------------------------------------------------------------------


async def test_who_may_not_go_on_with_extra_usage_is_stopped_before_it(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS, limits={"users": {"ann": {"overage": "forbid"}}})
    tell(aimux, 0.99)
    assert status_of(await aimux.send(ask("ann"))) == 200
    tell(aimux, 1.0, status="warning")
    refused = await aimux.send(ask("ann"))
    assert status_of(refused) == 429
    assert "you may not go on with paid extra usage" in json_of(refused)["plain"]
    assert "error=overage_forbidden" in aimux.log
    assert status_of(await aimux.send(ask("bob"))) == 200
    assert len(upstream.requests) == 2


async def test_nor_is_a_limited_account_tried_as_a_last_resort(start: Start, upstream: Upstream) -> None:
    """Extra usage may have been allowed since it was limited: what it would serve is paid."""
    aimux = await start(users=USERS, limits={"users": {"ann": {"overage": "forbid"}}})
    tell(aimux, 1.0, status="rejected")
    aimux.account().apply(Verdict(Action.COOL_DOWN, "the 5h limit is reached", until=RESET), time.time())
    refused = await aimux.send(ask("ann"))
    assert status_of(refused) == 429
    assert "you may not go on with paid extra usage" in json_of(refused)["plain"]
    assert not upstream.requests
    assert status_of(await aimux.send(ask("bob"))) == 200


@pytest.mark.parametrize("strategy", ["priority", "round_robin"])
async def test_included_usage_goes_before_paid_of_another_account(
    start: Start, upstream: Upstream, strategy: str
) -> None:
    """Also where extra usage is allowed, and of a conversation that is at home there."""
    providers = {"plain": {"base_url": f"http://127.0.0.1:{upstream.port}", "strategy": strategy}}
    aimux = await start(accounts=("default", "other"), users=USERS, providers=providers)
    aimux.account("other").load(1)
    talk = ask("ann").replace(b"\r\n\r\n", b"\r\nX-Conversation: c\r\n\r\n", 1)
    used = [b"-other" in (await aimux.send(talk), upstream.requests[-1])[1]]
    assert used == [False]
    tell(aimux, 1.0, status="warning")
    tell(aimux, 0.9, "other")
    for _ in range(3):
        assert status_of(await aimux.send(talk)) == 200
        assert b"-other" in upstream.requests[-1]
    tell(aimux, 1.0, "other", status="warning")
    for _ in range(3):
        assert status_of(await aimux.send(talk)) == 200, "somebody has to pay"
    tell(aimux, 0.1)
    assert status_of(await aimux.send(talk)) == 200
    assert b"-other" not in upstream.requests[-1]


async def test_another_account_that_has_room_serves_instead(start: Start, upstream: Upstream) -> None:
    limits = {"default": {"providers": {"plain": {"overage": "forbid"}}}}
    aimux = await start(accounts=("default", "other"), users=USERS, limits=limits)
    tell(aimux, 1.0, status="warning")
    tell(aimux, 0.9, "other")
    for _ in range(3):
        assert status_of(await aimux.send(ask("ann"))) == 200
        assert b"-other" in upstream.requests[-1]


@pytest.mark.parametrize("first", ["default", "other"])
async def test_the_last_of_the_windows_that_are_used_up_says_when_there_is_room(
    start: Start, upstream: Upstream, first: str
) -> None:
    """Of the account where there is first."""
    aimux = await start(accounts=("default", "other"), users=USERS, limits={"default": {"overage": "forbid"}})
    later = RESET + 72 * 3600
    for name in ("default", "other"):
        until = later if name == first else later + 3600
        aimux.account(name).observe((LimitWindow("5h", 1.0, RESET), LimitWindow("7d", 1.0, until)), time.time())
    told = (await aimux.send(ask("ann"))).partition(b"\r\n\r\n")[0].lower()
    wait = next(int(line.partition(b": ")[2]) for line in told.split(b"\r\n") if line.startswith(b"retry-after"))
    assert wait == pytest.approx(later - time.time(), abs=5)


async def test_a_window_that_is_full_for_one_model_only_is_not_meant(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS, limits={"default": {"overage": "forbid"}})
    tell(aimux, 1.0, scope="opus")
    assert status_of(await aimux.send(ask("ann"))) == 200


@pytest.mark.parametrize(("size", "expected"), [(700_000, 200), (900_000, 400)])
async def test_long_context_can_be_forbidden(start: Start, upstream: Upstream, size: int, expected: int) -> None:
    aimux = await start(users=USERS, limits={"users": {"ann": {"long_context": "forbid"}}})
    long = b'{"model":"m","x":"' + b"a b " * (size // 4) + b'"}'
    told = await aimux.send(ask("ann", body=long))
    assert status_of(told) == expected
    if expected == 400:
        assert json_of(told)["plain"].startswith("prompt is too long: 225005 tokens > 200000 maximum.")
        assert b"x-should-retry: false" in told
        assert "error=long_context_forbidden" in aimux.log
    assert status_of(await aimux.send(ask("bob", body=long))) == 200
