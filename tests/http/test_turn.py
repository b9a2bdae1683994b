"""A coroutine driven by whoever brings what it waits for."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Coroutine

import pytest

from aimux.http.turn import PAUSE, Turn, in_turn


def turn(work: Callable[[Turn[str]], Coroutine[None, None, str]]) -> tuple[Turn[str], list[str | None]]:
    ended: list[str | None] = []
    made: Turn[str] = Turn(ended.append)
    made.start(work(made))
    return made, ended


def test_it_runs_within_the_calls_that_resume_it() -> None:
    ready: list[str] = []

    async def work(_: Turn[str]) -> str:
        while not ready:
            await PAUSE
        return ready[0]

    made, ended = turn(work)
    made.resume()
    assert ended == [], "what it waits for has not come"
    ready.append("it")
    made.resume()
    assert ended == ["it"]
    made.resume()
    made.cancel()
    assert ended == ["it"], "it ends once"


def test_a_resume_or_a_cancel_from_within_waits_for_its_next_pause() -> None:
    seen = []

    async def work(own: Turn[str]) -> str:
        own.resume()
        seen.append("resumed")
        own.cancel()
        seen.append("cancelled")
        try:
            await PAUSE
        finally:
            seen.append("pause")
        return "never"

    _, ended = turn(work)
    assert seen == ["resumed", "cancelled", "pause"]
    assert ended == [None]


def test_a_fault_is_logged_and_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    async def work(_: Turn[str]) -> str:
        raise ValueError("of our own")

    with caplog.at_level(logging.ERROR):
        _, ended = turn(work)
    assert ended == [None]
    assert "fault in aimux itself" in caplog.text


async def test_a_turn_that_awaits_anything_else_fails_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody would resume it: it would hang without a word."""
    ended: list[object] = []

    async def work() -> str:
        await asyncio.get_running_loop().create_future()
        return "never"

    turn: Turn[str] = Turn(ended.append)
    turn.start(work())
    assert ended == [None]
    assert "a turn awaits a Future: it may await `PAUSE` alone, or use `apart`" in caplog.text


async def test_what_needs_a_task_runs_apart() -> None:
    async def inside() -> str:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return "timed"

    async def failing() -> str:
        await asyncio.sleep(0)
        raise KeyError("apart")

    async def work(own: Turn[str]) -> str:
        try:
            await own.apart(failing())
        except KeyError:
            return await own.apart(inside())
        return "no error"

    _, ended = turn(work)
    assert ended == []
    while not ended:
        await asyncio.sleep(0)
    assert ended == ["timed"]


async def test_what_runs_apart_ends_with_it() -> None:
    gone = asyncio.Event()

    async def inside() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return "never"

    made, ended = turn(lambda own: own.apart(inside()))
    await asyncio.sleep(0)
    made.cancel()
    assert ended == [None]
    await gone.wait()


async def test_a_cancelled_turn_holds_nothing() -> None:
    """A cycle would keep what its frames hold, request bodies of megabytes, until a garbage collection."""

    class Held:
        pass

    async def work(own: Turn[str]) -> str:
        held = Held()
        seen.append(weakref.ref(held))
        await own.apart(asyncio.sleep(60))
        return "never"

    seen: list[weakref.ref[Held]] = []
    gc.collect()
    gc.disable()
    try:
        made, ended = turn(work)
        made.cancel()
        await asyncio.sleep(0)
        assert ended == [None]
        assert seen[0]() is None
    finally:
        gc.enable()


async def test_a_task_has_what_its_turn_gives_or_raises() -> None:
    async def gives(turn: Turn[None]) -> str:
        asyncio.get_running_loop().call_soon(turn.resume)
        await PAUSE
        return await turn.apart(asyncio.sleep(0, "it"))

    async def raises(_: Turn[None]) -> None:
        raise ValueError("no")

    async def is_cancelled(turn: Turn[None]) -> None:
        turn.cancel()
        await PAUSE

    assert await in_turn(gives) == "it"
    with pytest.raises(ValueError, match="no"):
        await in_turn(raises)
    with pytest.raises(asyncio.CancelledError):
        await in_turn(is_cancelled)


async def test_a_task_that_is_cancelled_ends_its_turn() -> None:
    ended = asyncio.Event()

    async def work(_: Turn[None]) -> None:
        try:
            await PAUSE
        finally:
            ended.set()

    task = asyncio.create_task(in_turn(work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
