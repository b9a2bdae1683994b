"""pgbouncer between aimux and its server."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from aimux.storage import Database, StorageError, Unusable
from tests.postgresql import Server, name_of
from tests.running import free_port
from tests.storage.conftest import keys, put
from tests.tools import program

SETTINGS = """
[databases]
{name} = host={server.folder} user=aimux
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


@contextmanager
def pooling(postgresql: Server, url: str, mode: str) -> Iterator[str]:
    """The URL of the same database by way of a pooler in that mode."""
    name, port = name_of(url), free_port()
    file = postgresql.folder / f"pgbouncer-{port}.ini"
    file.write_text(SETTINGS.format(name=name, server=postgresql, port=port, mode=mode))
    command = [program("pgbouncer", "pgbouncer"), str(file)]
    # It refuses to be root, as the server does.
    with subprocess.Popen(command, user=postgresql.user, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = ""
            while "process up" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            yield f"postgresql://aimux@127.0.0.1:{port}/{name}"
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture
def pooled(postgresql: Server, postgresql_url: str) -> Iterator[Callable[[str], str]]:
    """Begins a pooler in a mode; gives the database's URL there."""
    with ExitStack() as stack:
        yield lambda mode: stack.enter_context(pooling(postgresql, postgresql_url, mode))


async def test_one_that_lends_connections_for_as_long_as_a_client_stays_is_not_noticed(
    pooled: Callable[[str], str], tmp_path: Path
) -> None:
    nodes = [await Database.open(pooled("session"), tmp_path) for _ in range(2)]
    heard = asyncio.Event()
    nodes[1].subscribe("topic", heard.set)
    await put(nodes[0], "a")
    async with asyncio.timeout(5):
        await heard.wait()
    assert await keys(nodes[1]) == ["a"]
    async with nodes[0].lock("x"):
        with pytest.raises(StorageError, match="in use by another node"):
            async with nodes[1].lock("x", patience=0.1):
                pass
    assert len(await nodes[0].nodes()) == 2
    for node in nodes:
        await node.close()


async def test_one_that_lends_them_for_a_transaction_is_refused_at_the_start(
    pooled: Callable[[str], str], postgresql_url: str, tmp_path: Path
) -> None:
    """What listens would hear nothing, and a lock would be anybody's."""
    await (await Database.open(postgresql_url, tmp_path)).close()  # makes the tables
    with pytest.raises(Unusable, match=r"a pooler in between lends .*: set pool_mode"):
        await Database.open(pooled("transaction"), tmp_path)


async def test_an_option_that_it_does_not_know_is_said_to_be_one(pooled: Callable[[str], str], tmp_path: Path) -> None:
    url = pooled("session")
    await (await Database.open(f"{url}?connect_timeout=10&channel_binding=prefer", tmp_path)).close()
    with pytest.raises(Unusable, match=r"parameter: search_path: take it out of database.url, or have the pooler"):
        await Database.open(f"{url}?search_path=x", tmp_path)
