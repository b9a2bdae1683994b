"""Standard streams that are closed or can't be written: aimux serves all the same."""

from __future__ import annotations

import codecs
import io
import os
import sys

_PLAINER = {"→": "->", "–": "-", "…": "...", "·": "|", "█": "#", "░": ".", "✓": "+", "✗": "x"}
"""What commands write beside ASCII, and what stands for it elsewhere."""


def open_closed_streams() -> None:
    """Put /dev/null in place of each stream that the process was started without.

    Otherwise the next files that it opens would become those streams, and libuv ends a process that closes one.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest one that is free: this
        if getattr(sys, name) is None:
            mode = "r" if fd == 0 else "w"
            setattr(sys, name, open(fd, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115


def write_every_character() -> None:
    """Let stdout and stderr take what their encoding has no character for: in Latin-1 `→` becomes `->`."""
    codecs.register_error("aimux", _plainer)
    for stream in (sys.stdout, sys.stderr):
        # Some are stand-ins without it.
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="aimux")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_PLAINER.get(one, "?") for one in error.object[error.start : error.end]), error.end


def give_up_stdout(error: OSError) -> None:
    """It is full, or its reader has gone: what it still holds is lost, and so is what follows."""
    import logging  # which takes as long as the rest of a command's start

    logging.getLogger("aimux").warning("stdout can't be written: %s", error.strerror)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
