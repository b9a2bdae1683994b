"""aimux with four things that no service has: a clock that can be moved (which is noticed soon), a short memory, little
room for connections, and a census of what lives.

Its arguments are the clock's file, the census's file, and aimux's own. SIGUSR1 asks for a census.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import encodings.idna  # noqa: F401 - the first name that is resolved brings it, which would count as growth
import functools
import gc
import json
import mmap
import resource
import runpy
import signal
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

KEPT = 50
"""Requests, conversations, header lines and whatever else is cached: that many in place of thousands. So few are there
before the faults begin: what a process holds more at the end than at the start is no memory, but a leak."""

DESCRIPTORS = 640
"""They last for 288 connections: all clients, and no crowd beside them."""


class Allocated(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


def move_the_clock(file: Path) -> None:
    """From now on it is ahead by as many seconds as the file says at the moment."""
    with file.open("rb") as opened:
        by = mmap.mmap(opened.fileno(), 8, access=mmap.ACCESS_READ)
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + struct.unpack("d", by)[0]
    time.time_ns = lambda: nanoseconds() + int(struct.unpack("d", by)[0] * 1e9)


def forget() -> None:
    cache = functools.lru_cache

    def small(maxsize: Any = 128, typed: bool = False) -> Any:
        return cache(min(maxsize, KEPT) if isinstance(maxsize, int) else maxsize, typed)

    functools.lru_cache = small
    # Only now: whoever is imported before the clock can be moved may hold on to the one that can't.
    from aimux.accounts import pool
    from aimux.http import head
    from aimux.limits import keeper
    from aimux.metering import journal

    keeper.LOOK_SECONDS = 0.5
    head._REMEMBERED = KEPT  # type: ignore[misc]
    journal.Journal.__init__.__defaults__ = (KEPT,)
    conversations = pool.Conversations  # type: ignore[attr-defined]
    pool.Conversations = lambda: conversations(KEPT)  # type: ignore[assignment, attr-defined, misc]


def census(file: Path) -> None:
    """Objects by type, and bytes that are in use by libraries; what is free goes back to the system."""
    gc.collect()
    libc, native = ctypes.CDLL(None), 0
    with contextlib.suppress(AttributeError):  # a C library of another make
        libc.malloc_trim(0)
        libc.mallinfo2.restype = Allocated
        info = libc.mallinfo2()
        native = info.uordblks + info.hblkhd
    kinds = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    # An answer that is kept for others (a credential's check) is a task that is done.
    tasks = sorted(str(one.get_coro()) for one in gc.get_objects() if isinstance(one, asyncio.Task) and not one.done())
    kinds["_asyncio.Task"] = len(tasks)
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"kinds": kinds, "native": native, "blocks": sys.getallocatedblocks(), "tasks": tasks}))
    new.replace(file)


if __name__ == "__main__":
    clock, counted = map(Path, sys.argv[1:3])
    move_the_clock(clock)
    forget()
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    signal.signal(signal.SIGUSR1, lambda *_: census(counted))
    sys.argv = ["aimux", *sys.argv[3:]]
    runpy.run_module("aimux.cli.main", run_name="__main__", alter_sys=True)
