"""The process that serves: its signals, its terminal, its memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
import termios
import threading
from typing import TYPE_CHECKING

import uvloop

from aimux.app.app import App
from aimux.front.bounds import raise_descriptor_limit
from aimux.logs import Logs
from aimux.plugin.loader import Plugins, load_plugins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aimux.config import Config

log = logging.getLogger("aimux")

M_MMAP_THRESHOLD = -3
LEAVE_SECONDS = 2.0
"""For what still runs in threads when all is done. A look-up of a name, of a webhook's for example, can't be cancelled,
and where no name server answers it takes ten seconds for each of them, twice."""


async def serve(app: App, announce: Callable[[App], Awaitable[None]]) -> bool:
    """Run until SIGTERM, SIGINT or the end of its terminal; SIGHUP reloads. A second signal waits for no request.

    True: open requests had all their time. False: a second signal cut them off.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    reloads = asyncio.Event()
    terminal = _terminal()
    signals, started = 0, False

    def end() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            ended.set()
            reloads.set()
        elif signals == 2 and started:
            log.warning("ending: open requests are cut off")
            app.hurry()
        else:
            log.warning("ending at once")
            os._exit(1)

    def hung_up() -> None:
        if terminal is not None and not _is_there(terminal):
            end()
        else:
            reloads.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGINT, end)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    await app.start()  # only now: whoever is told that it is ready may send a signal at once
    started = True
    # What exists now stays, and a request leaves no cycles: looking for them every 700 objects costs a small request 3
    # % of its instructions.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    await announce(app)
    app.made_key = None
    try:
        while True:
            await reloads.wait()
            reloads.clear()
            if ended.is_set():
                break
            await app.reload()
    finally:
        await app.stop()
    return signals < 2


def _terminal() -> int | None:
    """A descriptor of the terminal that it runs in, if it does."""
    return next((fd for fd in (0, 1, 2) if _is_there(fd)), None)


def _is_there(terminal: int) -> bool:
    """Whether that is a terminal whose window is still open; it answers with EIO afterwards."""
    try:
        termios.tcgetattr(terminal)
    except (termios.error, OSError):
        return False
    return True


def _return_large_blocks() -> None:
    """Make memory of large bodies and messages go back to the system when it is freed.

    glibc learns from the first such block that is freed to keep the next ones (up to 32 MB each), between small ones
    that stay: a few rounds of 16 MB messages left 1 GB.
    """
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 256 * 1024)
    except (OSError, AttributeError):
        pass  # not every system's library has it


def _leave(logs: Logs, patient: bool) -> None:
    logs.close()
    os._exit(0 if patient else 1)


def run(load: Callable[[Plugins], Config], announce: Callable[[App], Awaitable[None]]) -> None:
    """Serve until a signal ends it. `announce` is called once it listens. Raises what `start` does."""
    raise_descriptor_limit()
    _return_large_blocks()
    logs = Logs()
    try:
        plugins = load_plugins()
        app = App(lambda: load(plugins), plugins, logs, os.environ)

        async def work() -> tuple[bool, threading.Timer]:
            patient = await serve(app, announce)
            leaving = threading.Timer(LEAVE_SECONDS, _leave, (logs, patient))
            leaving.daemon = True
            leaving.start()
            return patient, leaving

        patient, leaving = uvloop.run(work())
        leaving.cancel()
    finally:
        logs.close()
    if not patient:
        sys.exit(1)
