"""Accounts of different plans: one that does not have a model leaves it to the others."""

from __future__ import annotations

import pytest

from aimux.accounts import Account, lacking
from aimux.accounts.lacking import LONGEST, MOST, SECONDS, Lacking

from .answers import OK, body_of, error, script, state, status_of
from .conftest import Aimux, Start, Upstream, request

REFUSED = error(404, body=b'{"e":"no such model"}')
DEAR = b'{"model":"dear"}'


async def statuses(aimux: Aimux, count: int = 4, body: bytes = DEAR) -> set[int]:
    return {status_of(await aimux.send(request(body=body))) for _ in range(count)}


async def test_another_account_is_asked_and_from_then_on_first(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": REFUSED, "two": OK})
    aimux = await start(accounts=("default", "two"))
    aimux.account("two").load(1)
    assert await statuses(aimux) == {200}
    assert asked == ["default", *["two"] * 4]
    assert state(aimux, "default") == "healthy"
    await statuses(aimux, 1, b'{"model":"cheap"}')
    assert asked[-2] == "default", "it may have another model"


async def test_it_is_asked_again_after_a_while(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lacking, "SECONDS", -1.0)
    asked = script(upstream, {"default": REFUSED, "two": OK})
    aimux = await start(accounts=("default", "two"))
    aimux.account("two").load(1)
    assert await statuses(aimux) == {200}
    assert asked == ["default", "two"] * 4


async def test_a_model_that_nobody_has_is_refused_in_the_vendors_words(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": REFUSED, "two": REFUSED})
    aimux = await start(accounts=("default", "two"))
    for _ in range(3):
        answer = await aimux.send(request(body=DEAR))
        assert (status_of(answer), body_of(answer)) == (404, b'{"e":"no such model"}')
    assert sorted(asked) == sorted(["default", "two"] * 3), "somebody may have it by now"


async def test_a_limit_of_the_account_that_has_it_is_what_a_client_hears(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": REFUSED, "two": error(429, "retry-after: 30")})
    aimux = await start(accounts=("default", "two"))
    aimux.account("two").load(1)
    assert await statuses(aimux) == {429}


async def test_the_only_account_answers_itself(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": REFUSED})
    assert await statuses(await start(), 2) == {404}
    assert asked == ["default"] * 2


async def test_why_an_account_was_passed_over_is_told(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": REFUSED, "two": OK})
    aimux = await start(accounts=("default", "two"), log_level="debug")
    aimux.account("two").load(1)
    await statuses(aimux, 2)
    assert "(default does not have dear; two 0% used" in aimux.log


async def test_another_login_may_have_it(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": [REFUSED, OK], "two": OK})
    aimux = await start(accounts=("default", "two"))
    pool = aimux.app.pools["plain"]
    pool.accounts["two"].load(1)
    await statuses(aimux, 2)
    pool.lacking.forget(pool.accounts["default"])
    assert asked == ["default", "two", "two"]
    await statuses(aimux, 1)
    assert asked[-1] == "default"


def test_what_is_remembered_is_bounded() -> None:
    known, account = Lacking(), Account("a", "p")
    for number in range(MOST + 5):
        known.note(account, f"m{number}", 100.0)
    known.note(account, "x" * (LONGEST + 1), 100.0)
    assert not known.names("m0", 100.0)
    assert not known.names("x" * (LONGEST + 1), 100.0)
    assert known.names(f"m{MOST}", 99.0 + SECONDS) == {"a"}
    assert not known.names(f"m{MOST}", 100.0 + SECONDS)
    known.forget(account)
    assert not any(known.names(f"m{number}", 100.0) for number in range(MOST + 5))
