"""When a token's time is over, whoever uses it hears of that, whatever the clocks do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from aimux.people import People
from aimux.people import people as people_module

HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0
        self._real = time.time

    def __call__(self) -> float:
        return self._real() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(people_module, "LOOK_SECONDS", 0.01)
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", made)
        yield made


@pytest.fixture
def heard(people: People) -> asyncio.Event:
    event = asyncio.Event()
    people.on_change = event.set
    return event


async def within(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()
    event.clear()


async def test_a_machine_that_slept_over_it_knows(clock: Clock, people: People, heard: asyncio.Event) -> None:
    """The loop's timers have an hour to go, as its clock stood still."""
    people.ends(int((clock() + HOUR) * 1000))
    await asyncio.sleep(0.05)
    assert not heard.is_set()
    clock.ahead = 2 * HOUR
    await within(heard)


async def test_a_clock_that_was_ahead_for_a_while_does_not_hide_it(
    clock: Clock, people: People, heard: asyncio.Event
) -> None:
    people.ends(int((clock() + HOUR) * 1000))
    clock.ahead = 2 * HOUR
    await within(heard)
    clock.ahead = 0.0
    await asyncio.sleep(0.05)
    assert not heard.is_set()
    clock.ahead = HOUR + 1
    await within(heard)


async def test_it_is_said_once(clock: Clock, people: People, heard: asyncio.Event) -> None:
    people.ends(int((clock() + 0.02) * 1000))
    await within(heard)
    people.ends(int((clock() + HOUR) * 1000))
    people.ends(int((clock() - HOUR) * 1000))
    await asyncio.sleep(0.05)
    assert not heard.is_set()
