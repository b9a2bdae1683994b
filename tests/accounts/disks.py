"""Disks that fail: what takes the place of calls of `os`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NoReturn


def failing(code: int) -> Callable[..., NoReturn]:
    """Any call, failing with this errno."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


def opening(code: int, flags: int) -> Callable[..., int]:
    """`os.open`, failing with this errno when any of these flags is asked for."""
    real = os.open

    def guarded(path: str, asked: int, *more: int, **named: int) -> int:
        if asked & flags:
            raise OSError(code, os.strerror(code))
        return real(path, asked, *more, **named)

    return guarded


def read_only() -> Callable[..., int]:
    """`os.open` of a file system that is mounted read-only."""
    return opening(errno.EROFS, os.O_CREAT | os.O_RDWR | os.O_WRONLY)
