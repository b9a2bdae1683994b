"""The vault for one machine: credential files in the state folder."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from aimux import atomic
from aimux.accounts import files
from aimux.accounts.vault import (
    ACCOUNT_NAME,
    BESIDE,
    DEFAULT,
    SPARE,
    Conflict,
    Missing,
    Unsafe,
    Vault,
    VaultError,
    check_new,
)
from aimux.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger(__name__)

MAX_SIZE = 1024 * 1024
_TICK_NS = 100_000_000
_IN_PLACE = "%s is written in place, for its folder or mount allows no rename; mount the folder instead of the file"


class FileVault(Vault):
    """`{state_dir}/{instance}/{file}` is the account `default`, `{state_dir}/{instance}/{account}/{file}` any other.

    0600 in 0700. If the file is a symbolic link (a login shared with the vendor's CLI), its target is replaced and the
    link stays. Files and folders below `state_dir` that others can read are fixed, others are refused.
    """

    def __init__(self, state_dir: Path, *, lock_timeout: float = 90.0) -> None:
        self._root = Path(state_dir)
        self._lock_timeout = lock_timeout
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self._holders: dict[Path, asyncio.Task[object] | None] = {}
        self._told: set[tuple[str, Path]] = set()
        self._reserved: dict[Path, Path] = {}
        """Files with room for what is to be written at those paths."""

    async def scan(self, instance: str, file_name: str) -> dict[str, str]:
        return await in_thread(self._scan, self._path(instance, DEFAULT, file_name))

    async def list(self, instance: str, file_name: str) -> list[str]:
        return sorted(await self.scan(instance, file_name))

    async def read(self, instance: str, account: str, file_name: str) -> bytes:
        return await in_thread(self._read, self._path(instance, account, file_name))

    async def write(
        self, instance: str, account: str, file_name: str, raw: bytes, *, expect: bytes | None, detach: bool = False
    ) -> None:
        path = self._path(instance, account, file_name)
        if expect is None:
            check_new(account, file_name)
        async with self._locked(path):
            await in_thread(self._write, path, raw, expect, detach)

    async def delete(self, instance: str, account: str, file_name: str) -> None:
        path = self._path(instance, account, file_name)
        async with self._locked(path):
            await in_thread(self._delete, path)

    async def rename(self, instance: str, account: str, new: str, file_name: str) -> None:
        source, target = self._path(instance, account, file_name), self._path(instance, new, file_name)
        check_new(new, file_name)
        first, second = sorted((source, target))  # the same order everywhere, or two renames could wait for each other
        if source == target:
            raise Conflict(f"account {new!r} already has that name")
        async with self._locked(first), self._locked(second):
            await in_thread(self._rename, source, target)

    async def links(self, instance: str, file_name: str) -> dict[str, str]:
        names = await self.scan(instance, file_name)
        paths = {name: self._path(instance, name, file_name) for name in names}
        return await in_thread(
            lambda: {name: os.path.realpath(path) for name, path in paths.items() if path.is_symlink()}
        )

    async def link(self, instance: str, account: str, file_name: str, target: Path, *, replace: bool = False) -> None:
        """Make the account a link to another program's login, which both use from then on.

        Raises Conflict if there is such an account, unless it is to be replaced; it is replaced only once the link is
        there and leads to a usable file.
        """
        path = self._path(instance, account, file_name)
        check_new(account, file_name)
        async with self._locked(path):
            await in_thread(self._link, path, target, replace)

    async def reserve(self, instance: str, account: str, file_name: str, size: int) -> None:
        await in_thread(self._reserve, self._path(instance, account, file_name), size)

    @asynccontextmanager
    async def lock(self, instance: str, account: str, file_name: str) -> AsyncIterator[None]:
        async with self._hold(self._path(instance, account, file_name)):
            yield

    # --- locks -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _locked(self, path: Path) -> AsyncIterator[None]:
        if self._holders.get(path.parent) is asyncio.current_task():
            yield
        else:
            async with self._hold(path):
                yield

    @asynccontextmanager
    async def _hold(self, path: Path) -> AsyncIterator[None]:
        folder = path.parent  # an account has a folder of its own: its lock is the folder's, and covers the spare
        among_tasks = self._locks.setdefault(folder, asyncio.Lock())
        grip = files.Grip(path)
        taken = False
        try:
            try:
                async with asyncio.timeout(self._lock_timeout):
                    taken = await among_tasks.acquire()
                    await in_thread(self._make_folders, path)
                    pause = 0.005
                    while not await in_thread(grip.take):
                        await asyncio.sleep(pause)  # flock can't be awaited, and a waiting thread can't be cancelled
                        pause = min(0.25, pause * 1.5)
            except TimeoutError:
                raise VaultError(f"{path} is in use by another process", remedy="is one of them stopped?") from None
            except OSError as error:
                raise _io_error("lock", path, error) from None
            self._holders[folder] = asyncio.current_task()
            yield
        finally:
            try:
                for each in [each for each in self._reserved if each.parent == folder]:
                    with suppress(OSError):  # whoever writes next sweeps what stays
                        await in_thread(self._reserved.pop(each).unlink, missing_ok=True)
            finally:
                grip.release()
                if taken:
                    self._holders.pop(folder, None)
                    among_tasks.release()

    # --- blocking parts ----------------------------------------------------------------------------------------------

    def _path(self, instance: str, account: str, file_name: str) -> Path:
        for name in (instance, account):
            if not ACCOUNT_NAME.fullmatch(name):
                raise VaultError(
                    f"{name!r} can't be a name", remedy="use letters, digits and . _ @ + - (at most 64, no dot first)"
                )
        folder = self._root / instance
        return folder / file_name if account == DEFAULT else folder / account / file_name

    def _make_folders(self, path: Path) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in reversed([parent for parent in path.parents if parent != self._root and self._inside(parent)]):
            folder.mkdir(mode=0o700, exist_ok=True)

    def _inside(self, path: Path) -> bool:
        return path.is_relative_to(self._root)

    def _scan(self, default: Path) -> dict[str, str]:
        folder, file_name = default.parent, default.name
        found: dict[str, str] = {}
        try:
            entries = [entry for entry in os.scandir(folder) if entry.is_dir()]
            self._tighten_folder(folder, folder.stat())
        except FileNotFoundError:
            return found
        except OSError as error:
            raise _io_error("read", folder, error) from None
        if tag := _tag(default):
            found[DEFAULT] = tag
        for entry in entries:
            if tag := _tag(Path(entry.path, file_name)):
                if entry.name == DEFAULT:
                    self._tell(
                        "%s is not used: the default account's files are in the folder above it", Path(entry.path)
                    )
                elif ACCOUNT_NAME.fullmatch(entry.name):
                    self._tighten_folder(Path(entry.path), entry.stat())
                    found[entry.name] = tag
                else:
                    self._tell(
                        "%s is not used: no account can have that name (1 to 64 of A-Z a-z 0-9 . _ @ + -)",
                        Path(entry.path),
                    )
        return found

    def _read(self, path: Path) -> bytes:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if path.is_symlink():
                raise Missing(f"{path} leads to a file that isn't there", remedy="log in again") from None
            raise Missing(f"{path} is not there", remedy="log in, or import a login") from None
        except OSError as error:
            raise _io_error("read", path, error) from None
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_SIZE:
                what = "a folder, and no" if stat.S_ISDIR(info.st_mode) else "not a"
                remedy = f"move it away: a file of at most {MAX_SIZE} bytes goes there"
                raise VaultError(f"{path} is {what} credential file", remedy=remedy)
            if info.st_mode & 0o077:
                self._tighten_file(fd, path)
            return os.pread(fd, MAX_SIZE, 0)
        except OSError as error:
            raise _io_error("read", path, error) from None
        finally:
            os.close(fd)

    def _reserve(self, path: Path, size: int) -> None:
        real = Path(os.path.realpath(path))
        try:
            files.sweep(real.parent, spared=self._reserved.values())
            made = files.reserve(real, size)
        except OSError as error:
            raise _io_error("write", real, error) from None
        if made is not None:
            self._reserved[path] = made

    def _write(self, path: Path, raw: bytes, expect: bytes | None, detach: bool) -> None:
        try:
            current = self._read(path)
        except Missing:
            current = None
        if current != expect:
            raise Conflict(f"{path} was changed by another program meanwhile")
        real = Path(os.path.realpath(path))
        try:
            if detach and path.is_symlink():
                atomic.write(path, raw)
            else:
                files.sweep(real.parent, spared=self._reserved.values())
                if not files.replace(real, raw, self._reserved.pop(path, None)):
                    self._tell(_IN_PLACE, real)
            if detach:
                path.with_name(path.name + SPARE).unlink(missing_ok=True)
        except OSError as error:
            raise _io_error("write", real, error) from None

    def _delete(self, path: Path) -> None:
        try:
            path.unlink()
        except FileNotFoundError:
            raise Missing(f"{path} is not there") from None
        except OSError as error:
            raise _io_error("remove", path, error) from None
        for beside in _beside(path):
            beside.unlink(missing_ok=True)
        self._leave(path)

    def _rename(self, source: Path, target: Path) -> None:
        if os.path.lexists(target):
            raise Conflict(f"{target} already exists")
        try:
            if source.is_symlink():
                target.symlink_to(os.path.realpath(source))  # a relative link would not survive the move
                source.unlink()
            else:
                source.rename(target)
            for old, new in zip(_beside(source), _beside(target), strict=True):
                if old.exists():
                    old.rename(new)
            atomic.sync_folder(target.parent)
        except FileNotFoundError:
            raise Missing(f"{source} is not there") from None
        except OSError as error:
            raise _io_error("rename", source, error) from None
        self._leave(source)

    def _link(self, path: Path, target: Path, replace: bool) -> None:
        if not replace and os.path.lexists(path):
            raise Conflict(f"{path} already exists")
        self._read(target)
        try:
            files.link_over(path, target.absolute())
        except OSError as error:
            raise _io_error("link", path, error) from None
        path.with_name(path.name + SPARE).unlink(missing_ok=True)

    def _leave(self, path: Path) -> None:
        if path.parent.parent != self._root:  # an account's own folder; the instance's holds the others
            files.clear_folder(path.parent)

    # --- permissions -------------------------------------------------------------------------------------------------

    def _tighten_file(self, fd: int, path: Path) -> None:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._root.resolve()):
            raise Unsafe(f"{real} can be read by others", remedy=f"run: chmod 600 {real}")
        try:
            os.fchmod(fd, 0o600)
        except OSError:
            raise Unsafe(f"{real} can be read by others", remedy=f"run as its owner: chmod 600 {real}") from None
        self._tell("%s could be read by others; it is 0600 now", real)

    def _tighten_folder(self, folder: Path, info: os.stat_result) -> None:
        if info.st_mode & 0o077 and not folder.is_symlink():
            try:
                folder.chmod(0o700)
            except OSError:
                self._tell("%s is open to others, and only its owner can change that", folder)
            else:
                self._tell("%s was open to others; it is 0700 now", folder)

    def _tell(self, message: str, path: Path) -> None:
        if (message, path) not in self._told:
            self._told.add((message, path))
            log.warning(message, path)


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in BESIDE]


def _tag(path: Path) -> str | None:
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "dangling" if path.is_symlink() else None
    except OSError as error:
        return f"unreadable:{error.errno}"
    tag = f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"
    # File times move in ticks of some milliseconds: a second change within one would not show. So a file that changed
    # just now gets another tag a moment later, and is read once more.
    return tag if abs(time.time_ns() - info.st_ctime_ns) > _TICK_NS else f"{tag}:moving"


_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EROFS: "mount it read-write",
    errno.EACCES: "give the user that runs aimux access to it",
    errno.EPERM: "give the user that runs aimux access to it",
    errno.EISDIR: "move that folder away",
    errno.ELOOP: "it is a link in a circle; remove it",
}


def _io_error(verb: str, path: Path, error: OSError) -> VaultError:
    return VaultError(f"can't {verb} {path} ({error.strerror})", remedy=_REMEDIES.get(error.errno or 0, ""))
