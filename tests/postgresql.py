"""A real PostgreSQL server for the tests, started by the first that asks for it and ended after the last.

Debian's package `postgresql` brings it (or anything that has `initdb` and `postgres` on PATH). Fixtures:
`postgresql_url`: a new, empty database of its own. `tables_url`: one that has aimux's tables. `database_url`: the same
test on both engines, None for SQLite.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

MISSING = "no PostgreSQL server is installed (Debian: apt-get install postgresql)"


def name_of(url: str) -> str:
    """The database's name in its address."""
    return urlsplit(url).path.removeprefix("/")


class Server:
    """A cluster of its own in a temporary folder, on a Unix socket; nothing of it is synced to the disk."""

    def __init__(self, programs: Path, folder: Path, *, of: Server | None = None, **settings: str) -> None:
        """`of`: a standby of that one, which follows it until `promote`."""
        self.folder = folder
        self._programs = programs
        self._settings = settings
        self.user: str | None = None
        """Whose the folder is, and who runs the server: None, whoever runs the tests."""
        if os.geteuid() == 0:  # which PostgreSQL refuses
            self.user = next(name for name in ("postgres", "nobody") if _exists(name))
            shutil.chown(folder, self.user)
        self._names = (f"test{number}" for number in itertools.count(1))
        self._process: subprocess.Popen[bytes] | None = None
        options = ["--no-sync", "--pgdata", str(folder / "data")]
        if of is None:
            self._run("initdb", *options, "--auth=trust", "--username=aimux", "--encoding=UTF8", "--locale=C")
        else:
            of_it = ["--dbname", of.url("postgres"), "--write-recovery-conf", "--checkpoint=fast"]
            self._run("pg_basebackup", *options, *of_it)

    def start(self) -> None:
        """Start, or start again."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", *options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self.user,
                start_new_session=True,  # Ctrl-C is for the tests
            )
        deadline = time.monotonic() + 30
        while not self._ready():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not come up"
            time.sleep(0.02)

    def stop(self, sig: signal.Signals = signal.SIGINT) -> None:
        """End it; open connections are cut. SIGQUIT is a crash: nothing more is written, or sent to a standby."""
        if self._process is not None:
            self._process.send_signal(sig)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(20)
            self._process = None

    def url(self, database: str) -> str:
        """A database's URL, whether or not it is there."""
        return f"postgresql://aimux@/{database}?host={self.folder}"

    def create(self, template: str = "template0") -> str:
        """Make a database and give its name."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    @functools.cached_property
    def tables(self) -> str:
        """A database with aimux's tables, to be copied: to make them takes 85 ms more of a processor."""
        from aimux.storage import Database

        name = self.create()

        async def make() -> None:
            database = await Database.open(self.url(name), self.folder)
            await database.close()

        _apart(make())
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """One statement as the superuser."""
        import asyncpg

        async def run() -> None:
            connection = await asyncpg.connect(self.url(database))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        _apart(run())

    def _ready(self) -> bool:
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        return lines[-1:] in (["ready"], ["standby"])

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.folder,
            user=self.user,
        )
        assert done.returncode == 0, done.stderr


def _apart(work: Coroutine[None, None, None]) -> None:
    with ThreadPoolExecutor(1) as thread:  # the caller may be on a loop
        thread.submit(asyncio.run, work).result()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def programs() -> Path | None:
    """The folder of the newest server's programs."""
    if debian := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])):
        return debian[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextlib.contextmanager
def running(*, of: Server | None = None, **settings: str) -> Iterator[Server]:
    """A server; `of`: a standby of that one."""
    found = programs()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="aimux-pg-"))  # short: a socket's path has 107 characters at most
    try:
        server = Server(found, folder, of=of, **settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """The server."""
    with running() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: Server) -> Iterator[str]:
    """A new, empty database."""
    name = postgresql.create()
    yield postgresql.url(name)
    postgresql.drop(name)


@pytest.fixture
def tables_url(postgresql: Server) -> Iterator[str]:
    """A new database as it is after its first start."""
    name = postgresql.create(postgresql.tables)
    yield postgresql.url(name)
    postgresql.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """What `Database.open` takes, for each engine."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("tables_url")
    return url
