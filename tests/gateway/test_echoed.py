"""What an answer gives a client to send back goes to the account that gave it, and to no other one."""

from __future__ import annotations

import re

import pytest

from aimux.accounts import echoed
from aimux.accounts.echoed import Echoed

from .answers import OK, account_of, error, script, status_of
from .conftest import BOTH_WAYS, Plain, Start, Upstream, request

GIVES = OK.replace(b"\r\n\r\n", b"\r\nX-Turn: of-%b\r\n\r\n")
TALK = "X-Conversation: c\r\n"


@pytest.fixture(autouse=True)
def _echoes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "echoed_header", "x-turn")


def sent(upstream: Upstream) -> list[tuple[str, str]]:
    """Each request's account, and what it sent back."""
    found = [(account_of(one), re.search(rb"x-turn: ([\w-]+)", one)) for one in upstream.requests]
    return [(account, match[1].decode() if match else "") for account, match in found]


@BOTH_WAYS
async def test_another_account_does_not_get_it(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": [GIVES % b"default", error(429, "retry-after: 30")], "two": GIVES % b"two"})
    aimux = await start(accounts=("default", "two"))
    aimux.account("two").load(1)
    answer = await aimux.send(request(headers=TALK))
    assert b"x-turn: of-default" in answer.replace(b"X-Turn", b"x-turn"), "the client gets it"
    for _ in range(2):
        assert status_of(await aimux.send(request(headers=TALK + "x-turn: of-default\r\n"))) == 200
    assert status_of(await aimux.send(request(headers=TALK + "x-turn: of-two\r\n"))) == 200
    assert sent(upstream) == [
        ("default", ""),
        ("default", "of-default"),
        ("two", ""),
        ("two", ""),
        ("two", "of-two"),
    ]


async def test_what_nobody_knows_passes(start: Start, upstream: Upstream) -> None:
    """Such as after a restart."""
    script(upstream, {"default": OK})
    aimux = await start()
    await aimux.send(request(headers="x-turn: of-yesterday\r\n"))
    assert sent(upstream) == [("default", "of-yesterday")]


async def test_an_account_keeps_it_under_another_name(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": GIVES % b"default", "two": GIVES % b"two"})
    aimux = await start(accounts=("default", "two"))
    pool = aimux.app.pools["plain"]
    pool.accounts["default"].load(1)
    await aimux.send(request(headers=TALK))
    await pool.rename("two", "three")
    await aimux.send(request(headers=TALK + "x-turn: of-two\r\n"))
    assert sent(upstream) == [("two", ""), ("two", "of-two")]


def test_a_bounded_number_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echoed, "MOST", 2)
    known = Echoed()
    for value in ("a", "b", "a", "c"):
        known.note(value, "one")
    assert [known.is_anothers(value, "two") for value in "abc"] == [True, False, True]
    known.note("a", "two")
    assert not known.is_anothers("a", "two")
