"""Processes under measurement: pinned to a core, with the CPU time and memory of their whole tree."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

CORES = sorted(os.sched_getaffinity(0))
CONTENDER_CORE = {CORES[0]}
UPSTREAM_CORE = {CORES[min(1, len(CORES) - 1)]}
LOAD_CORE = {CORES[min(2, len(CORES) - 1)]}

SETTLE = 60.0
"""Seconds after which contenders are measured although they are not quiet."""

_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """What is started inside inherits the cores."""
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


def start(
    command: Sequence[str], cores: set[int], log: Path, environ: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server with its output in `log`."""
    with pinned(cores), log.open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **(environ or {})}
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one)
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree, children that are gone included.

    /proc/PID/stat counts in steps of 10 ms. /proc/PID/task/TID/schedstat has the same sum in nanoseconds, so that is
    read for the living threads where the kernel offers it.
    """
    total = 0.0
    for one in tree(pid):
        folder = Path(f"/proc/{one}")
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        utime, stime, cutime, cstime = map(int, fields[11:15])
        try:
            own = sum(int(task.read_text().split()[0]) for task in folder.glob("task/*/schedstat")) / 1e9
        except (OSError, IndexError):
            own = 0.0
        total += (own or (utime + stime) / _TICKS) + (cutime + cstime) / _TICKS
    return total


def settle(pids: Collection[int]) -> None:
    """Wait until they have done what a start leaves for later, when none takes 2 % of a core; at most SETTLE."""
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        before = {pid: cpu_seconds(pid) for pid in pids}
        time.sleep(2)
        if all(cpu_seconds(pid) - spent < 0.04 for pid, spent in before.items()):
            return


def rss_bytes(pid: int) -> int:
    """Resident memory of the tree."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")
