"""Runs one request's coroutine on the event loop without an asyncio task.

A task is woken one round of the loop after the packet it waits for, twice for each request, and costs 8 µs to make. A
turn goes on within the very callback that brought the packet. Whatever needs a task (locks, timeouts, connecting) gets
one by `apart`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

T = TypeVar("T")
U = TypeVar("U")

log = logging.getLogger("aimux.relay")


class _Pause:
    def __await__(self) -> Generator[None, None, None]:
        yield


PAUSE: Awaitable[None] = _Pause()
"""Awaiting it waits for the turn's `resume`. That may come for another reason, so check again for what you wait for."""


class Turn(Generic[T]):
    """`start`, then `resume` whenever something it may wait for has happened, or `cancel` or `fail`."""

    __slots__ = ("_coroutine", "_ended", "_running", "_thrown")

    def __init__(self, ended: Callable[[T | None], None]) -> None:
        """`ended` is called once, with the coroutine's result; None where it was cancelled or failed."""
        self._ended = ended
        self._coroutine: Coroutine[object, None, T] | None = None
        self._running = False
        self._thrown: BaseException | None = None

    def start(self, work: Coroutine[object, None, T]) -> None:
        """Run `work` to its first pause."""
        self._coroutine = work
        self.resume()

    def resume(self) -> None:
        """Go on. Does nothing while the turn runs: it checks by itself before it pauses."""
        work = self._coroutine
        if work is None or self._running:
            return
        self._running = True
        result: T | None = None
        try:
            awaited = work.throw(self._taken()) if self._thrown is not None else work.send(None)
        except StopIteration as end:
            result = end.value
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("a request ended with a fault in aimux itself")
        else:
            self._running = False
            if awaited is not None and self._thrown is None:  # nothing would ever resume it
                kind = type(awaited).__name__
                self._thrown = RuntimeError(f"a turn awaits a {kind}: it may await `PAUSE` alone, or use `apart`")
            if self._thrown is not None:
                self.resume()
            return
        self._running = False
        self._coroutine = None
        self._ended(result)

    def _taken(self) -> BaseException:
        """The exception to throw. No name may hold it in the frames from where it is caught upwards: it refers to these
        frames, and all of them, a request's body included, would stay until a garbage collection."""
        thrown, self._thrown = self._thrown, None
        assert thrown is not None
        return thrown

    def cancel(self) -> None:
        """Raise CancelledError where it pauses."""
        self.fail(asyncio.CancelledError())

    def fail(self, error: BaseException) -> None:
        """Raise `error` where it pauses."""
        self._thrown = error
        del error
        self.resume()

    async def apart(self, work: Awaitable[U]) -> U:
        """What `work` gives, run as a task of its own, which ends with the turn."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._done)
        try:
            while not task.done():
                await PAUSE
        except BaseException:
            task.cancel()
            raise
        return task.result()

    def _done(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled():
            task.exception()  # the turn may be over, so that nobody is waiting for it
        self.resume()


async def in_turn(work: Callable[[Turn[None]], Coroutine[object, None, U]]) -> U:
    """Run `work` as a turn, and return its result: for a task that has to wait for what only turns can wait for.

    Raises what it raises. Cancelled, it ends the turn.
    """
    outcome: asyncio.Future[U] = asyncio.get_running_loop().create_future()

    def ended(_: None) -> None:
        outcome.cancel()  # unless it is done by then

    turn: Turn[None] = Turn(ended)
    turn.start(_tell(work(turn), outcome))
    try:
        return await outcome
    finally:
        turn.cancel()


async def _tell(work: Coroutine[object, None, U], outcome: asyncio.Future[U]) -> None:
    try:
        result = await work
    except Exception as error:
        if not outcome.done():
            outcome.set_exception(error)
    else:
        if not outcome.done():
            outcome.set_result(result)
