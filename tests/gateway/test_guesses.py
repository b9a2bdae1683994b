"""How many guesses are looked at."""

from __future__ import annotations

import asyncio
import time

import pytest

from aimux.gateway.guesses import (
    EACH_SECOND,
    FREE,
    FREE_IN_ALL,
    IN_ALL_EACH_SECOND,
    MAX_ADDRESSES,
    MAX_RIGHT,
    TELL_EVERY,
    Guesses,
    NotLookedAt,
)

from .answers import status_of
from .conftest import BOTH_WAYS, TOKEN, Aimux, Start, request


def looks(guesses: Guesses, address: str, count: int, now: float = 0.0) -> int:
    """How many of so many are taken."""
    taken = 0
    for _ in range(count):
        try:
            guesses.look(address, now)
        except NotLookedAt:
            continue
        taken += 1
    return taken


def test_an_address_has_a_few_at_once_and_then_some_each_second() -> None:
    guesses = Guesses()
    assert looks(guesses, "8.8.8.8", 100) == FREE
    assert looks(guesses, "8.8.8.8", 100, now=5.0) == min(FREE, 5 * EACH_SECOND)
    assert looks(guesses, "8.8.4.4", 100, now=5.0) == FREE


def test_so_have_all_together() -> None:
    guesses = Guesses()
    taken = sum(looks(guesses, f"10.0.{number >> 8}.{number & 255}", 1) for number in range(5 * FREE_IN_ALL))
    assert taken == FREE_IN_ALL
    taken = sum(looks(guesses, f"10.1.{number >> 8}.{number & 255}", 1, now=2.0) for number in range(5 * FREE_IN_ALL))
    assert taken == 2 * IN_ALL_EACH_SECOND


def test_an_ipv6_network_is_one_address() -> None:
    guesses = Guesses()
    assert sum(looks(guesses, f"2001:db8::{number:x}", 1) for number in range(100)) == FREE
    assert looks(guesses, "2001:db8:0:1::1", 1) == 1
    assert looks(guesses, "::ffff:10.0.0.1", 1) == 1


def test_the_log_names_the_address_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """No other line of it does, and whoever runs aimux has to find the program."""
    guesses = Guesses()
    looks(guesses, "8.8.8.8", FREE)
    assert not caplog.messages
    looks(guesses, "8.8.8.8", 100)
    looks(guesses, "8.8.8.8", 100, now=TELL_EVERY - 1)
    looks(guesses, "8.8.4.4", 100, now=TELL_EVERY - 1)
    looks(guesses, "8.8.8.8", 100, now=TELL_EVERY)
    addresses = ("8.8.8.8", "8.8.4.4", "8.8.8.8")
    assert caplog.messages == [
        f"many wrong tokens come from {address}: most of them are not looked at" for address in addresses
    ]


def test_what_is_right_gives_its_look_back() -> None:
    guesses = Guesses()
    for number in range(10 * FREE):
        shown = b"%08d" % number
        guesses.look("8.8.8.8", 0.0)
        guesses.right("8.8.8.8", shown, looked=True)
        assert guesses.knows("8.8.8.8", shown)
        assert not guesses.knows("8.8.4.4", shown)


def test_memory_is_bounded() -> None:
    guesses = Guesses()
    for number in range(MAX_RIGHT + MAX_ADDRESSES + 50):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        guesses.wrong(address, b"guess-%d" % number)
        guesses.right(address, b"right-%d" % number, looked=False)
    for number in range(100):
        guesses.wrong(address, b"%08d" % number)
    assert len(guesses) == MAX_ADDRESSES + MAX_RIGHT


async def test_whoever_comes_last_gets_the_next_look() -> None:
    guesses = Guesses()
    first = asyncio.create_task(guesses.turn("8.8.8.8"))
    other = asyncio.create_task(guesses.turn("8.8.4.4"))
    await asyncio.sleep(0)
    last = asyncio.create_task(guesses.turn("8.8.8.8"))
    assert await first is False
    assert await last is True
    assert await other is True


# --- through the gateway -------------------------------------------------------------------------------------------


async def guess(aimux: Aimux, token: str) -> int:
    return status_of(await aimux.send(request(token=token)))


@BOTH_WAYS
async def test_a_burst_is_not_looked_at_and_the_right_one_passes(start: Start, way: str) -> None:
    aimux = await start()
    statuses = await asyncio.gather(*(guess(aimux, f"wrong-token-{number:08d}") for number in range(60)))
    assert set(statuses) == {401, 429}
    assert statuses.count(401) < 30
    began = time.perf_counter()
    assert await guess(aimux, TOKEN) == 200, "which nobody has shown yet"
    assert time.perf_counter() - began < 2.0
    for number in range(FREE):
        await asyncio.gather(guess(aimux, f"another-{number:08d}"), guess(aimux, f"or-another-{number:08d}"))
    assert await guess(aimux, TOKEN) == 200


async def test_one_after_the_other_they_take_their_time(start: Start) -> None:
    aimux = await start()
    began = time.perf_counter()
    statuses = [await guess(aimux, f"wrong-token-{number:08d}") for number in range(FREE + 6)]
    assert statuses[:FREE] == [401] * FREE
    assert statuses[-1] == 429, "it was looked at, and a guesser is told to slow down"
    assert await guess(aimux, f"wrong-token-{FREE + 5:08d}") == 401, "the same one again is no guess"
    assert await guess(aimux, TOKEN) == 200
    assert time.perf_counter() - began > 5 / EACH_SECOND


@pytest.mark.parametrize("vendors", ["vendor-login-0123456789", "aimux_cut-short-0123456789"])
async def test_what_is_no_token_of_ours_gets_its_advice_all_the_same(start: Start, vendors: str) -> None:
    aimux = await start()
    tokens = [f"{vendors}{number}" for number in range(3 * FREE)]
    assert {*await asyncio.gather(*(guess(aimux, token) for token in tokens))} == {401}


def test_what_took_no_look_gives_none_back() -> None:
    guesses = Guesses()
    for _ in range(FREE):
        guesses.look("192.0.2.1", 0.0)
    guesses.right("192.0.2.1", b"one of aimux's own", looked=False)
    with pytest.raises(NotLookedAt):
        guesses.look("192.0.2.1", 0.0)
    guesses.right("192.0.2.1", b"a foreign one", looked=True)
    guesses.look("192.0.2.1", 0.0)
