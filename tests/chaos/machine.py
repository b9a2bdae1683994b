"""What a machine can do to a process: its disk and its clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path


class Disk:
    """The state folder's own disk, which can be full or read-only: a small tmpfs where that may be mounted.

    Elsewhere a limit on the size of the process's files stands for a full disk, and folders that may not be written for
    a read-only one. The latter stops nobody who is root.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", str(folder)]
        root = os.geteuid() == 0
        self.mounted = (
            root
            and shutil.which("mount") is not None
            and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )
        self.lockable = self.mounted or not root
        self._filler = folder / "filler"

    def __str__(self) -> str:
        if self.mounted:
            return "a tmpfs"
        if self.lockable:
            return "the common disk (no tmpfs may be mounted): RLIMIT_FSIZE makes it full, modes make it read-only"
        return "the common disk (no tmpfs may be mounted): RLIMIT_FSIZE makes it full; root may write to any"

    @contextlib.asynccontextmanager
    async def full(self, pid: int) -> AsyncIterator[None]:
        """Whatever the process gives back meanwhile, as it tidies up its database."""
        self._fill(pid)
        task = asyncio.create_task(self._stay_full(pid))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._empty(pid)

    async def _stay_full(self, pid: int) -> None:
        while self.mounted:
            await asyncio.sleep(0.05)
            self._fill(pid)

    def _fill(self, pid: int) -> None:
        if self.mounted:
            with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        else:
            self._limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, self._limits[1]))

    def _empty(self, pid: int) -> None:
        if self.mounted:
            self._filler.unlink(missing_ok=True)
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, self._limits)

    def lock(self) -> None:
        if not self.mounted:
            self._modes(0o500)
            return
        # Not the disk itself: that can't become read-only while the database lies on it, open.
        for folder in self._accounts():
            subprocess.run(["mount", "--bind", folder, folder], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)

    def unlock(self) -> None:
        if self.mounted:
            for folder in self._accounts():
                subprocess.run(["umount", "--lazy", folder], check=True)
        else:
            self._modes(0o700)

    def _accounts(self) -> list[str]:
        """The folders of the instances."""
        return [str(path) for path in self.folder.iterdir() if path.is_dir()]

    def _modes(self, mode: int) -> None:
        for folder, _, _ in os.walk(self.folder):
            Path(folder).chmod(mode)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


class Clock:
    """The process's time of day, which can be moved. The machine's own clock is not a test's to set."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(struct.pack("d", 0.0))

    def move(self, by: float) -> None:
        """So many seconds from what it really is."""
        with self.file.open("r+b", buffering=0) as file:
            file.write(struct.pack("d", by))
