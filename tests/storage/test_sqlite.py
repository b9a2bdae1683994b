"""What is particular to the file: its modes, its damage, its disk, and what stays unloaded without it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aimux.storage import Conflict, Database, StorageError, Unusable, sqlite, sqlite_file
from aimux.storage.status import status
from tests.accounts.disks import failing
from tests.storage.conftest import keys, put
from tests.waiting import until


async def test_nothing_is_made_before_the_first_write(state_dir: Path) -> None:
    database = await Database.open(None, state_dir)
    await database.close()
    assert not state_dir.exists()


async def test_the_owner_alone_can_read_it(state_dir: Path) -> None:
    database = await Database.open(None, state_dir)
    await put(database, "a")
    modes = {path.name: path.stat().st_mode & 0o777 for path in state_dir.iterdir()}
    assert modes == {"aimux.db": 0o600, "aimux.db-wal": 0o600, "aimux.db-shm": 0o600}
    assert state_dir.stat().st_mode & 0o777 == 0o700
    await database.close()


async def test_a_file_that_others_could_read_is_closed(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    written.chmod(0o644)
    await (await Database.open(None, written.parent)).close()
    assert written.stat().st_mode & 0o777 == 0o600
    assert "could be read by others" in caplog.text


async def test_who_reads_cannot_write_whatever_came_before(state_dir: Path) -> None:
    database = await Database.open(None, state_dir)
    for key in ("a", "b"):
        await put(database, key)
        for _ in range(2):
            with pytest.raises(Unusable):
                async with database.read() as connection:
                    await connection.exec_driver_sql("INSERT INTO meta VALUES ('c', 'd')")
    assert await keys(database) == ["a", "b"]
    await database.close()


async def test_a_file_that_comes_later_is_heard_of(state_dir: Path) -> None:
    server, told = await Database.open(None, state_dir), asyncio.Event()
    server.subscribe("topic", told.set)
    assert not server.touched("topic")
    beside = await Database.open(None, state_dir)
    await put(beside, "a")
    async with asyncio.timeout(1):
        await told.wait()
    assert server.touched("topic")
    assert await keys(server) == ["a"]
    await server.close()
    await beside.close()


def test_opening_one_that_holds_nothing_to_load_imports_no_sqlalchemy(written: Path) -> None:
    code = f"""if True:
        import asyncio, pathlib, sys
        from aimux.storage import Database
        async def main():
            database = await Database.open(None, pathlib.Path({str(written.parent)!r}))
            print(database.touched("topic"), database.touched("people"), *(name in sys.modules for name in
                ("sqlalchemy", "alembic", "asyncpg")))
            await database.close()
        asyncio.run(main())"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False", "False", "False"]


def test_what_is_only_for_postgresql_is_not_imported(tmp_path: Path) -> None:
    code = f"""if True:
        import asyncio, pathlib, sys
        from aimux.metering.store import prepare
        from aimux.storage import Database
        async def main():
            prepare()
            database = await Database.open(None, pathlib.Path({str(tmp_path)!r}))
            async with database.write():
                names = ("sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql", "sqlalchemy.orm", "greenlet")
                print(*(name in sys.modules for name in names))
            await database.close()
        asyncio.run(main())"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False", "False"], "the ORM alone takes 6 MB"


def fill(folder: Path) -> None:
    """Leave no block free."""
    with (folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))


# --- damage ----------------------------------------------------------------------------------------------------------


def overwrite(path: Path, at: int, what: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(what)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: overwrite(path, 0, b"not a database at all"),
        lambda path: overwrite(path, 100, bytes(3000)),
        lambda path: overwrite(path, path.stat().st_size // 2 // 4096 * 4096, bytes(range(256)) * 64),
        lambda path: overwrite(path, path.stat().st_size // 4 // 4096 * 4096, bytes(path.stat().st_size // 2)),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(path.read_bytes()[:2000]),
        lambda path: path.write_bytes(b"x"),
    ],
    ids=["header", "schema", "page", "pages", "half", "less than a page", "one byte"],
)
async def test_a_damaged_file_is_refused_and_left_as_it_is(written: Path, damage: Callable[[Path], object]) -> None:
    damage(written)
    before = written.read_bytes()
    with pytest.raises(StorageError, match=r"damaged.*aimux db backup.*\.recover"):
        await Database.open(None, written.parent)
    assert written.read_bytes() == before


async def test_another_program_s_database_is_refused(state_dir: Path) -> None:
    state_dir.mkdir()
    with contextlib.closing(sqlite3.connect(state_dir / "aimux.db")) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(StorageError, match=r"not aimux's: move it away"):
        await Database.open(None, state_dir)


async def test_an_empty_file_is_a_database_to_be_made(state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "aimux.db").touch()
    database = await Database.open(None, state_dir)
    await put(database, "a")
    await database.close()


async def test_who_meets_another_that_makes_the_file_waits_for_it(state_dir: Path) -> None:
    state_dir.mkdir()
    # As it is between two writes of another that has begun and doesn't write ahead yet: SQLite waits for nobody then.
    with contextlib.closing(sqlite3.connect(state_dir / "aimux.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.2, other.execute, "ROLLBACK")
        database = await Database.open(None, state_dir)
        await put(database, "a")
        await database.close()


async def test_another_program_that_closes_it_takes_nothing_away(written: Path) -> None:
    read = f"import sqlite3; c = sqlite3.connect({str(written)!r}); print(*c.execute('SELECT max(key) FROM meta'))"

    async def other() -> str:
        command = [sys.executable, "-c", read]
        return (await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)).stdout

    database = await Database.open(None, written.parent)
    await asyncio.sleep(0.6)  # two looks
    await put(database, "x")
    assert "x" in await other()
    assert written.with_name("aimux.db-wal").exists(), "who has it open still writes there"
    await put(database, "y")
    assert "y" in await other()
    await database.close()


async def test_a_locked_database_says_so(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file.connect, "__kwdefaults__", {"timeout": 0.1, "locks": True})
    with contextlib.closing(sqlite3.connect(written, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked by another program: end it"):
            await Database.open(None, written.parent)


async def test_a_folder_that_can_t_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    database = await Database.open(None, tmp_path / "state")
    with pytest.raises(StorageError, match=r"can't open .*state/aimux.db"):
        await put(database, "a")
    assert database.trouble is not None
    await database.close()


async def test_a_folder_of_somebody_else_is_named(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs aimux, or a command, may not even look."""
    monkeypatch.setattr(Path, "stat", failing(errno.EACCES))
    with pytest.raises(StorageError, match=r"can't open .*aimux\.db .Permission denied.: give the user"):
        await Database.open(None, written.parent)
    with pytest.raises(StorageError, match="give the user that runs aimux access"):
        await status(None, written.parent)


async def test_a_read_only_file_says_so(small_disk: Path) -> None:
    await put(database := await Database.open(None, small_disk), "a")
    await database.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="is read-only: mount it read-write"):
        await Database.open(None, small_disk)


async def test_a_disk_without_inodes_says_so(small_disk: Path) -> None:
    await put(database := await Database.open(None, small_disk), "a")
    await database.close()
    subprocess.run(["mount", "-o", "remount,nr_inodes=3", str(small_disk)], check=True)
    (small_disk / "last").touch()
    with pytest.raises(StorageError, match="takes no new file: free some space, or inodes"):
        await put(await Database.open(None, small_disk), "b")


async def test_a_process_without_file_descriptors_says_so(tmp_path: Path) -> None:
    await put(database := await Database.open(None, tmp_path), "a")
    await database.close()
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        told = str(sqlite_file.explain(tmp_path / "aimux.db", error))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "no file descriptors left: raise LimitNOFILE=" in told


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_PROTOCOL], ids=str
)
def test_a_file_system_without_locks_or_shared_memory_is_no_full_disk(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a network's, or what a virtual machine has of its host's: to free space there helps nobody."""

    def refuse(*_: object, **__: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(sqlite_file, "connect", refuse)
    with pytest.raises(Unusable, match=r"without the locks and shared memory .*: let state_dir be on a local disk"):
        sqlite_file.try_to_write(tmp_path / "aimux.db")


async def test_on_a_full_disk_it_is_read_and_says_what_it_can_t_do(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = await Database.open(None, small_disk)
    await put(database, "a")
    fill(small_disk)
    with pytest.raises(Unusable, match="is full: free some space"):
        await put(database, "b", "x" * 100_000)
    assert await keys(database) == ["a"]
    assert database.trouble is not None, "that it can be read is no recovery"

    again = await Database.open(None, small_disk)
    assert "nobody can be added" in caplog.text
    assert await keys(again) == ["a"]
    (small_disk / "filler").unlink()
    await put(again, "b")
    await put(database, "c")
    assert (await keys(again), database.trouble) == (["a", "b", "c"], None)
    await again.close()
    await database.close()


INSERT = "INSERT INTO meta (key, value) VALUES (?, ?)"


async def test_statements_at_once_are_one_transaction(state_dir: Path) -> None:
    database = await Database.open(None, state_dir)
    assert await database.at_once([(INSERT, [("a", "1"), ("b", "2")]), (INSERT, [("c", "3")])])
    with pytest.raises(Conflict) as refused:
        await database.at_once([(INSERT, [("d", "a-secret-value")]), (INSERT, [("a", "a-secret-value")])])
    assert "a-secret-value" not in str(refused.value)
    with pytest.raises(StorageError):
        await database.at_once([(INSERT, [("e", "5")]), ("INSERT INTO nowhere VALUES (?)", [("f",)])])
    with pytest.raises(UnicodeEncodeError):  # a fault of the caller's, and none of the database's
        await database.at_once([(INSERT, [("h", "1")]), (INSERT, [("i", "\udc80")])])
    assert database.trouble is not None, "of the statement before"
    assert await database.at_once([(INSERT, [("g", "7")])])
    assert await keys(database) == ["a", "b", "c", "g"]
    assert database.trouble is None
    await database.close()


async def test_statements_at_once_wait_for_those_before_and_for_writers(written: Path) -> None:
    database = await Database.open(None, written.parent)
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[tuple[str, list[tuple[str, str]]]]:
        yield INSERT, [("x", "1")]
        begun.set()
        go_on.wait(10)

    first = asyncio.create_task(database.at_once(slowly()))
    await asyncio.to_thread(begun.wait, 10)
    first.cancel()  # its thread goes on
    await asyncio.gather(first, return_exceptions=True)
    async with asyncio.timeout(10):
        _, *done = await asyncio.gather(
            asyncio.to_thread(go_on.set),
            *(database.at_once([(INSERT, [(f"y{number}", "1")])]) for number in range(5)),
            *(put(database, f"z{number}") for number in range(5)),
        )
    assert done == [True] * 5 + [None] * 5
    assert len([key for key in await keys(database) if key[0] in "xyz"]) == 11
    await database.close()


async def test_statements_at_once_on_a_full_disk_are_tried_again(small_disk: Path) -> None:
    database = await Database.open(None, small_disk)
    assert await database.at_once([(INSERT, [("a", "1")])])
    fill(small_disk)
    with pytest.raises(Unusable, match="is full: free some space"):
        await database.at_once([(INSERT, [("b", "x" * 100_000)])])
    assert await keys(database) == ["a"]
    assert database.trouble is not None
    (small_disk / "filler").unlink()
    assert await database.at_once([(INSERT, [("b", "2")])])
    assert (await keys(database), database.trouble) == (["a", "b"], None)
    await database.close()


async def test_a_start_without_one_page_of_room_reads_it(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = await Database.open(None, small_disk)
    await put(database, "a")
    await database.close()
    assert not (small_disk / "aimux.db-shm").exists(), "what SQLite makes anew for each reader"
    fill(small_disk)
    again = await Database.open(None, small_disk)
    assert "is full: free some space" in caplog.text
    assert await again.quick(["SELECT key FROM meta"]) == [[{"key": "a"}]]
    with pytest.raises(Unusable, match="is full: free some space"):
        await put(again, "b")
    (small_disk / "filler").unlink()
    await put(again, "b")
    assert (await keys(again), again.trouble) == (["a", "b"], None)
    await again.close()


def test_what_is_read_at_a_start_is_all_of_one_state(written: Path) -> None:
    """A group that goes in between must not leave its members behind."""

    class Interrupted(list[str]):
        def __iter__(self) -> Iterator[str]:
            for query in super().__iter__():
                yield query
                with contextlib.closing(sqlite3.connect(written)) as other, other:
                    other.execute("DELETE FROM meta")

    first, second = sqlite_file.rows(written, Interrupted(["SELECT key FROM meta"] * 2))
    assert len(first) == 100
    assert second == first


@pytest.mark.parametrize("linked", [False, True])
async def test_without_room_to_read_it_all_a_start_does_not_go_by_half(
    small_disk: Path, tmp_path: Path, linked: bool
) -> None:
    """What a killed process wrote last is beside the file, and may have revoked a token."""
    state_dir = tmp_path / "state" if linked else small_disk
    if linked:  # the file alone was put on another disk
        state_dir.mkdir(mode=0o700)
        (state_dir / "aimux.db").symlink_to(small_disk / "aimux.db")
    database = await Database.open(None, small_disk)
    await put(database, "a")
    kept = {name: (small_disk / name).read_bytes() for name in ("aimux.db", "aimux.db-wal")}
    await database.close()
    for name, content in kept.items():
        (small_disk / name).write_bytes(content)
    fill(small_disk)
    with pytest.raises(Unusable, match="is full: free some space"):
        await Database.open(None, state_dir)
    (small_disk / "filler").unlink()
    again = await Database.open(None, state_dir)
    assert await keys(again) == ["a"]
    await again.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_one_that_is_removed_under_it_is_noticed(written: Path, replaced: bool) -> None:
    """Or replaced, as by a copy that is put back under a server that runs."""
    copy = Path(shutil.copy(written, written.with_name("copy")))
    database = await Database.open(None, written.parent)
    await put(database, "a")
    await asyncio.sleep(0.3)  # a look
    if replaced:
        copy.replace(written)
    else:
        written.replace(written.with_name("elsewhere"))
    await until(lambda: database.trouble is not None, 2)
    assert "restart aimux" in str(database.trouble)
    await database.close()


async def test_a_copy_is_whole_while_it_is_written_to(written: Path) -> None:
    database = await Database.open(None, written.parent)
    target = written.with_name("copy")
    written.with_name("copy.part").touch(mode=0o644)  # of one that was killed, or put there by somebody
    writing = asyncio.gather(*(put(database, f"more-{n}") for n in range(50)))
    await asyncio.to_thread(sqlite_file.copy, written, target)
    await writing
    await database.close()
    with contextlib.closing(sqlite3.connect(target)) as connection:
        assert sqlite_file.check(connection) == ""
        assert connection.execute("SELECT count(*) FROM meta WHERE key LIKE '0%'").fetchone() == (100,)
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in target.parent.glob("copy*")) == ["copy"]
    assert target.read_bytes()[18:20] == b"\1\1", "in WAL mode it could not be read where nothing may be written"


async def test_a_large_copy_ends_although_somebody_writes_all_the_time(written: Path) -> None:
    with contextlib.closing(sqlite3.connect(written)) as connection:
        connection.execute("CREATE TABLE large AS SELECT zeroblob(50000000) AS content")
    copied = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(written, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            while not copied.is_set():
                connection.execute("UPDATE meta SET value = value || 'x' WHERE key = '000'")

    def copy() -> None:
        try:
            sqlite_file.copy(written, written.with_name("copy"))
        finally:
            copied.set()

    writing, copying = (asyncio.create_task(asyncio.to_thread(work)) for work in (write, copy))
    try:
        async with asyncio.timeout(30):
            await asyncio.shield(copying)
    finally:
        copied.set()  # without a writer it ends in any case
        await asyncio.gather(writing, copying)


async def test_a_copy_of_one_that_is_locked_says_so(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file.connect, "__kwdefaults__", {"timeout": 0.1, "locks": True})
    with contextlib.closing(sqlite3.connect(written, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE meta SET value = ''")
        with pytest.raises(StorageError, match=rf"^{written} is locked by another program: end it"):
            await asyncio.to_thread(sqlite_file.copy, written, written.with_name("copy"))


async def test_a_copy_that_has_no_room_leaves_nothing_behind(written: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(1 << 19))
    with contextlib.closing(sqlite3.connect(written)) as connection:
        connection.execute("CREATE TABLE large AS SELECT zeroblob(1 << 20)")
    with pytest.raises(Unusable, match="is full: free some space"):
        await asyncio.to_thread(sqlite_file.copy, written, small_disk / "copy")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


async def test_a_copy_needs_no_locks_where_it_is_made(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network's file system, where many keep theirs. Here another process has them all."""
    monkeypatch.setattr(sqlite_file.connect, "__kwdefaults__", {"timeout": 0.1, "locks": True})
    target = written.with_name("copy")
    code = "f = open(sys.argv[1], 'wb'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", f"import fcntl, sys; {code}", str(target.with_name("copy.part"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        await asyncio.to_thread(sqlite_file.copy, written, target)
        other.stdin.close()
    with contextlib.closing(sqlite3.connect(target)) as connection:
        assert sqlite_file.check(connection) == ""


async def test_the_disk_has_back_what_a_long_read_let_pile_up(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, the largest size that `-wal` ever had stays taken until a restart."""
    monkeypatch.setattr(sqlite, "AHEAD", 1 << 20)
    ahead = written.with_name(f"{written.name}-wal")
    database = await Database.open(None, written.parent)
    async with database.read() as connection:
        await connection.exec_driver_sql("SELECT count(*) FROM meta")
        await put(database, "large", "x" * (8 << 20))
        assert ahead.stat().st_size > 8 << 20
    await put(database, "begins to copy what piled up")
    await put(database, "begins at its start")
    assert ahead.stat().st_size <= 1 << 20
    await database.close()


@pytest.mark.parametrize("how", ["read-only", "full"])
async def test_what_lies_on_a_disk_that_takes_nothing_can_be_saved(small_disk: Path, tmp_path: Path, how: str) -> None:
    """As one is after errors: nobody but aimux has the file in the midst of something, and that was stopped."""
    database = await Database.open(None, small_disk)
    await put(database, "a")
    await database.close()
    if how == "full":
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert (await status(None, small_disk)).tables["meta"] == 1
    await asyncio.to_thread(sqlite_file.copy, small_disk / "aimux.db", tmp_path / "copy")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as connection:
        assert connection.execute("SELECT key FROM meta").fetchall() == [("a",)]
