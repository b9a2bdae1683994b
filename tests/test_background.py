"""Work in the background: an exception that nobody foresaw is in the log, and the work goes on."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aimux import background
from aimux.background import keep_going

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(background, "PAUSES", (0.0, 0.0))
    yield


@pytest.mark.usefixtures("no_pauses")
async def test_a_fault_is_logged_and_the_work_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    faults = [ValueError("odd"), KeyError("missing")]

    async def work() -> None:
        if faults:
            raise faults.pop(0)

    async with asyncio.timeout(5):
        await keep_going("counting sheep", work)
    assert caplog.text.count("a fault in counting sheep") == 2
    assert "ValueError: odd" in caplog.text, "with its traceback"


async def test_the_pause_grows_and_is_short_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slept: list[float] = []
    lasts = [0.0, 0.0, 0.0, 61.0, 0.0]
    clock = 0.0

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def work() -> None:
        nonlocal clock
        if not lasts:
            return
        clock += lasts.pop(0)
        raise ValueError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(background, "PAUSES", (20.0, 60.0))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(loop, "time", lambda: clock)
    await keep_going("counting sheep", work)
    assert slept == [20.0, 40.0, 60.0, 20.0, 40.0]
    assert "which goes on in 60 s" in caplog.text


async def test_it_ends_when_it_is_cancelled() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = keep_going("counting sheep", work)
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_whatever_runs_for_ever_is_kept_going() -> None:
    """A task keeps its exception to itself: a loop of its own would end in silence."""
    kept = 0
    for path in sorted(Path(background.__file__).parent.rglob("*.py")):
        if "simulator" in path.parts or path.name == "background.py":
            continue
        tree = ast.parse(path.read_text())
        kept += "keep_going(" in path.read_text()
        endless = {one.name for one in ast.walk(tree) if isinstance(one, ast.AsyncFunctionDef) and _is_endless(one)}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("create_task", "ensure_future")):
                started = call.args[0]
                name = ast.unparse(started.func).rpartition(".")[2] if isinstance(started, ast.Call) else ""
                assert name not in endless, f"{path}:{call.lineno}: keep_going(..., {name})"
    assert kept > 5


def _is_endless(function: ast.AsyncFunctionDef) -> bool:
    return any(isinstance(one, ast.While) and ast.unparse(one.test) == "True" for one in ast.walk(function))
