"""The small files that a configuration points at."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BYTES = 16 * 1024 * 1024


def working_folder(environ: Mapping[str, str]) -> Path:
    """The one that aimux works in. Where it was removed meanwhile, as by the next release's deployment, what has its
    name now."""
    try:
        return Path.cwd()
    except OSError:
        return Path(environ.get("PWD") or "/")


def read_text(path: Path) -> str:
    """A file's text without trailing newlines (an editor's, or `echo`'s). Raises OSError with a message for people."""
    try:
        # O_NONBLOCK, because opening a FIFO would wait for its writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{path} is not a regular file")
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise OSError(f"{path} does not exist") from None
    except PermissionError:
        raise OSError(f"{path} can't be read: permission denied") from None
    except IsADirectoryError:
        raise OSError(f"{path} is a folder") from None
    except OSError as error:
        raise OSError(f"{path} can't be read: {error.strerror}" if error.strerror else str(error)) from None
    except ValueError:
        raise OSError("the path holds a NUL character") from None
    if len(raw) > MAX_BYTES:
        raise OSError(f"{path} is larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise OSError(f"{path} is not UTF-8 text (at byte {error.start}): save it as UTF-8") from None


def open_to_others(path: Path, *, whosever: bool = False) -> bool:
    """Whether every user of the machine can read our file; with `whosever`, also somebody else's.

    Kubernetes and Docker hand secrets out in files of root that everybody in the container can read.
    """
    try:
        status = path.stat()
    except OSError:
        return False
    return bool(status.st_mode & stat.S_IROTH) and (whosever or status.st_uid == os.geteuid())


def local_path(text: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """An absolute path: `~` is the user's home and `~bob` bob's, a relative path starts at `folder`. Raises OSError
    without such a home."""
    if not text.startswith("~"):
        return folder / text
    tilde, slash, below = text.partition("/")
    home = environ.get("HOME") if tilde == "~" else None
    if not home:
        try:
            home = (pwd.getpwuid(os.geteuid()) if tilde == "~" else pwd.getpwnam(tilde[1:])).pw_dir
        except KeyError:
            why = "HOME is not set" if tilde == "~" else f"this machine has no user {tilde[1:]!r}"
            raise OSError(f"{text} has no meaning, because {why}") from None
    return folder / (home + slash + below)
