"""What a client hears when no account can serve: in words, with the time, and with nobody's name."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from aimux.accounts import Account, Selection
from aimux.gateway.unserved import unserved, when
from aimux.plugin import Action, Verdict

from .answers import OK, body_of, error, head_of, json_of, script, status_of
from .conftest import Aimux, Start, Upstream, request

NAMES = ("default", "anns-private-login")
NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("wait", "said"),
    [
        (0.2, "at 12:00 UTC, in 1 s"),
        (89, "at 12:01 UTC, in 89 s"),
        (90, "at 12:01 UTC, in 2 minutes"),
        (3600, "at 13:00 UTC, in 60 minutes"),
        (6 * 3600, "at 18:00 UTC, in 6 hours"),
        (3 * 86400, "on Monday, 30 November, at 12:00 UTC, in 3 days"),
    ],
)
def test_a_time_in_words(wait: float, said: str) -> None:
    assert when(NOON + wait, NOON, UTC) == said


def accounts(aimux: Aimux) -> list[Account]:
    return list(aimux.app.pools["plain"].accounts.values())


def out_of_service(account: Account) -> None:
    account.park("their credit card was refused", "ask ann@example.org")


def limited(account: Account) -> None:
    account.apply(Verdict(Action.COOL_DOWN, "a secret reason", until=time.time() + 7260), time.time())


def unrenewed(account: Account) -> None:
    account.keep_off(time.time() + 120, time.time(), "its file /home/ann/auth.json can't be read")


async def told(aimux: Aimux) -> tuple[int, str, bytes]:
    """Status, message and head of an answer in which nobody is named."""
    answer = await aimux.send(request())
    for word in (b"private", b"default", b"ann@", b"/home", b"credit", b"secret"):
        assert word not in answer
    return status_of(answer), json_of(answer)["plain"], head_of(answer)


async def test_nobody_is_in_service(start: Start) -> None:
    aimux = await start(accounts=NAMES)
    out_of_service(accounts(aimux)[0])
    accounts(aimux)[1].disable()
    status, message, head = await told(aimux)
    assert status == 503
    assert message == (
        "Every plain account that you may use is out of service; whoever runs aimux sees why with `aimux accounts`."
    )
    assert b"x-should-retry: false" in head
    assert b"retry-after" not in head


SECONDS: list[tuple[Callable[[Account], None], str]] = [
    (limited, ""),
    (out_of_service, " or is out of service"),
    (unrenewed, " or is out of service"),
]


@pytest.mark.parametrize(("second", "what"), SECONDS, ids=["limited", "parked", "unrenewed"])
async def test_their_limits_are_reached(start: Start, second: Callable[[Account], None], what: str) -> None:
    """The upstream is asked all the same; where it says nothing, this is what is known."""
    aimux = await start(accounts=NAMES, providers={"plain": {"base_url": "http://127.0.0.1:1"}})
    limited(accounts(aimux)[0])
    second(accounts(aimux)[1])
    status, message, head = await told(aimux)
    assert status == 429
    assert f"has reached its limit{what}; the next one is free " in message
    assert message.endswith("in 2 minutes." if second is unrenewed else "in 2 hours.")
    assert b"x-should-retry: false" in head
    assert b"retry-after: " in head


async def test_the_time_is_told_in_the_zone_of_limits(start: Start) -> None:
    aimux = await start(
        providers={"plain": {"base_url": "http://127.0.0.1:1"}}, limits={"time_zone": "Pacific/Kiritimati"}
    )
    limited(accounts(aimux)[0])
    then = datetime.fromtimestamp(time.time() + 7260, ZoneInfo("Pacific/Kiritimati"))
    message = (await told(aimux))[1]
    assert any(f"at {at:%H:%M} +14, in 2 hours" in message for at in (then, then + timedelta(minutes=1)))


async def test_a_limit_of_one_model(start: Start) -> None:
    aimux = await start(providers={"plain": {"base_url": "http://127.0.0.1:1"}})
    verdict = Verdict(Action.COOL_DOWN, "limited", until=time.time() + 7260, model="m")
    accounts(aimux)[0].apply(verdict, time.time())
    _, message, _ = await told(aimux)
    assert message.startswith("Every plain account that you may use has reached its limit for m; it is free again ")


@pytest.mark.parametrize(("wait", "tells"), [(5, None), (120, False)])
async def test_a_login_that_cannot_be_renewed_now(start: Start, wait: float, tells: bool | None) -> None:
    aimux = await start()
    now = time.time()
    accounts(aimux)[0].keep_off(now + wait, now, "its file /home/ann/auth.json can't be read")
    error = unserved(aimux.app.gateway.setup.routes["plain"], Selection(), now, UTC)
    assert (error.status, error.retry) == (503, tells)
    assert error.retry_after == pytest.approx(wait)
    assert "has a login that can't be renewed for now; aimux tries again " in error.message
    assert "/home" not in error.message


@pytest.mark.parametrize(("wait", "tells"), [(20, None), (120, False)])
async def test_a_client_waits_by_itself_for_what_is_free_soon(start: Start, wait: float, tells: bool | None) -> None:
    aimux, now = await start(), time.time()
    accounts(aimux)[0].apply(Verdict(Action.COOL_DOWN, "limited", until=now + wait), now)
    error = unserved(aimux.app.gateway.setup.routes["plain"], Selection(), now, UTC)
    assert (error.status, error.retry) == (429, tells)
    assert error.retry_after == pytest.approx(wait, abs=1)


async def test_there_is_none_yet(start: Start) -> None:
    status, message, head = await told(await start(accounts=()))
    assert (status, message) == (
        503,
        "aimux has no plain account yet; whoever runs it adds one with `aimux login plain`.",
    )
    assert b"x-should-retry: false" in head


async def test_there_is_none_for_this_user(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": OK})
    provider = {"base_url": f"http://127.0.0.1:{upstream.port}", "accounts": {"default": {"groups": ["secret"]}}}
    users = [{"name": "ann", "token": "test-token-0123456789abcdef", "groups": ["others"]}]
    aimux = await start(providers={"plain": provider}, users=users)
    status, message, _ = await told(aimux)
    assert (status, message) == (503, "There is no plain account for you or your groups; ask whoever runs aimux.")


@pytest.mark.parametrize("waits", [(300, 20), (20, 300)])
async def test_the_soonest_of_several_limits_is_the_one_that_is_told(
    start: Start, upstream: Upstream, waits: tuple[int, int]
) -> None:
    answers = [error(429, f"retry-after: {wait}", body=b'{"wait":%d}' % wait) for wait in waits]
    script(upstream, dict(zip(("default", "two"), answers, strict=True)))
    aimux = await start(accounts=("default", "two"))
    answer = await aimux.send(request(body=b"{}"))
    assert (status_of(answer), body_of(answer)) == (429, b'{"wait":20}')


@pytest.mark.parametrize(("seconds", "words"), [(3600, "the next one is free"), (30, '"theirs"')])
async def test_a_limit_that_lasts_is_told_by_aimux_and_not_in_the_words_of_one_account(
    start: Start, upstream: Upstream, seconds: int, words: str
) -> None:
    """The vendor speaks of `your account`, and knows nothing of the others'; what ends soon clients wait for."""
    body = b'{"error":"theirs"}'
    upstream.answer = b"HTTP/1.1 429 Slow\r\nretry-after: %d\r\ncontent-length: %d\r\n\r\n%b" % (
        seconds,
        len(body),
        body,
    )
    aimux = await start(accounts=("default", "other"))
    for _ in range(2):
        answer = await aimux.send(request())
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert words.encode() in answer
        assert (b"x-should-retry: false" in answer) is (seconds > 60)
        assert b"other" not in answer


def test_what_may_be_tried_again_at_once_has_no_time_of_long_ago() -> None:
    assert when(0.0, NOON, UTC) == when(NOON + 1, NOON, UTC)
