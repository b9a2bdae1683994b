"""Work of foreign bytes gets its share of each round, and no more."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from itertools import count
from unittest.mock import patch

import pytest

from aimux.http.rounds import SHARE, soon, through


async def test_everybody_else_runs_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(0.0, SHARE / 2.5)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    done: list[int] = []
    for number in range(9):
        soon(lambda number=number: done.append(number))  # type: ignore[misc]
    seen = []
    while len(done) < 9:
        await asyncio.sleep(0)
        seen.append(len(done))
    assert seen == [3, 6, 9]
    assert done == [*range(9)], "in their order"


async def test_what_a_piece_adds_waits_for_another_round_behind_the_others() -> None:
    done: list[str] = []

    def piece(name: str, left: int) -> None:
        done.append(name)
        if left:
            soon(lambda: piece(name, left - 1))

    soon(lambda: piece("a", 3))
    soon(lambda: piece("b", 3))
    while len(done) < 8:
        before = len(done)
        await asyncio.sleep(0)
        assert len(done) - before <= 2
    assert "".join(done) == "abababab"


async def test_a_fault_stops_nobody_else() -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    with patch.object(loop, "call_exception_handler") as told:
        soon(lambda: next(iter(())))
        soon(done.set)
        await asyncio.wait_for(done.wait(), 10)
    assert told.call_count == 1


async def test_a_long_work_takes_many_rounds_and_its_fault_is_its_own() -> None:
    taken: list[int] = []
    work = asyncio.create_task(through(map(taken.append, range(5))))
    while len(taken) < 5:
        before = len(taken)
        await asyncio.sleep(0)
        assert len(taken) - before <= 1
    await work
    with pytest.raises(ZeroDivisionError):
        await through(1 // number for number in (1, 0, 1))


async def test_a_cancelled_work_stops_and_holds_nothing() -> None:
    class Steps:
        def __iter__(self) -> Steps:
            return self

        def __next__(self) -> int:
            taken.append(1)
            return 1

    taken: list[int] = []
    steps = Steps()
    held = weakref.ref(steps)
    gc.collect()
    gc.disable()
    try:
        work = asyncio.create_task(through(steps))
        del steps
        while len(taken) < 3:
            await asyncio.sleep(0)
        work.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert work.cancelled()
        del work
        count = len(taken)
        await asyncio.sleep(0)
        assert len(taken) == count
        assert held() is None
    finally:
        gc.enable()
