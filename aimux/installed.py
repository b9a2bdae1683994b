"""What is installed, read from the folders beside the code: asking `importlib.metadata` costs four starts of Python."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing for it would cost half a start of Python
    from collections.abc import Iterator

DISTRIBUTION = "aimux-gateway"
"""The name under which aimux is installed: in the registry `aimux` is another program."""


def version() -> str:
    """aimux's own."""
    prefix, suffix = DISTRIBUTION.replace("-", "_") + "-", ".dist-info"
    for folder in _metadata():
        name = folder.name
        if name.startswith(prefix) and name.endswith(suffix):
            return name[len(prefix) : -len(suffix)]
    from importlib import metadata  # it may lie in an archive

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # in its source tree, while it is built
        return "unknown"


def compiled() -> bool:
    """Whether its hot path runs as machine code (hatch_build.py): known without importing it."""
    with os.scandir(os.path.join(os.path.dirname(__file__), "http")) as entries:  # noqa: PTH118, PTH120
        return any(entry.name.startswith("head.") and entry.name.endswith((".so", ".pyd")) for entry in entries)


def version_line() -> str:
    """The version, and which build it is."""
    return f"{version()} ({'compiled' if compiled() else 'pure Python'})"


def others_in(group: str) -> bool:
    """Whether another distribution than aimux has an entry point in this group."""
    own = DISTRIBUTION.replace("-", "_") + "-"
    for folder in _metadata():
        try:
            with open(os.path.join(folder.path, "entry_points.txt"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
                if f"[{group}]" in file.read().split("\n") and not folder.name.startswith(own):
                    return True
        except OSError:
            pass
    return False


def _metadata() -> Iterator[os.DirEntry[str]]:
    for path in sys.path:
        try:
            with os.scandir(path or ".") as entries:
                yield from (entry for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
        except OSError:
            pass  # an archive, or nothing
