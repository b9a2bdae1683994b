"""What is particular to a server: it can be away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from aimux import __version__
from aimux.certificates import ServerTLS, TLSFiles
from aimux.storage import MOST_TOLD, Database, StorageError, Unusable, locks, postgresql_hosts
from aimux.storage import postgresql as module
from aimux.storage.schema import METADATA
from aimux.storage.status import status
from tests.postgresql import Server, name_of
from tests.storage.conftest import keys, put
from tests.waiting import until


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("{base}nowhere?host={folder}", r"nowhere.* does not exist: make it: createdb"),
        ("postgresql://nobody-here@/postgres?host={folder}", "nobody-here.*check user and password"),
        ("postgresql://u:a-pass-word@/x?host={folder}/away", "can't be reached .*check that it runs"),
        ("postgresql://u:a-pass-word@127.0.0.1:1/x", "can't be reached .*check that it runs"),
        ("postgresql://u:a-pass-word@127.0.0.1:1/x?sslmode=wrong", "sslmode"),
        ("postgresql://u:a-pass-word@a..b/x", "its host is no host's name: correct database.url"),
        ("{base}postgres?host={folder}&pool_size=5", '"pool_size": take it out of database.url'),
    ],
)
async def test_one_that_can_t_be_used_says_why(postgresql: Server, tmp_path: Path, url: str, words: str) -> None:
    address = url.format(folder=postgresql.folder, base="postgresql://aimux@/")
    with pytest.raises(StorageError, match=words) as caught:
        await Database.open(address, tmp_path)
    assert "a-pass-word" not in str(caught.value)


SECRET = "a-pass-word"


async def refused(address: str, folder: Path) -> str:
    """Why a database can't be opened, in words."""
    with pytest.raises(StorageError) as caught:
        await Database.open(address, folder)
    assert isinstance(caught.value, Unusable)
    assert SECRET not in str(caught.value)
    return str(caught.value)


async def test_what_the_address_says_of_tls_and_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    address = f"postgresql://u:{SECRET}@127.0.0.1:1/x?sslmode="
    said = await refused(f"{address}verify-full", tmp_path)
    assert f'root certificate file "{tmp_path}/.postgresql/root.crt" does not exist' in said
    assert said.endswith("name the certificate of the server's authority in database.url: sslrootcert=FILE")
    said = await refused(f"{address}verify-full&sslrootcert={tmp_path}/ca.pem", tmp_path)
    assert f"sslrootcert={tmp_path}/ca.pem can't be read (No such file or directory): correct database.url" in said
    (tmp_path / "ca.pem").write_text("no certificate")
    said = await refused(f"{address}verify-full&sslrootcert={tmp_path}/ca.pem", tmp_path)
    assert f"there is no certificate in {tmp_path}/ca.pem: correct sslrootcert" in said
    said = await refused(f"{address}require&sslcert={tmp_path}/no.pem&sslkey={tmp_path}/no.key", tmp_path)
    assert f"sslcert={tmp_path}/no.pem can't be read" in said
    assert "check that it runs" in await refused(f"{address}require", tmp_path)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"N", "has no TLS: switch it on there"),
        (b"S", "the server's certificate is not accepted (self-signed certificate): sslrootcert in database.url is to"),
    ],
)
async def test_what_is_wrong_with_the_servers_tls_is_said(tmp_path: Path, answer: bytes, words: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # SSLRequest
        writer.write(answer)
        if answer == b"S":
            with contextlib.suppress(OSError):
                await writer.start_tls(tls)
        writer.close()

    of_server, of_another = (TLSFiles.self_signed(tmp_path / name) for name in ("server", "another"))
    for files in (of_server, of_another):
        ServerTLS(files)  # makes them
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(of_server.cert_path, of_server.key_path)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        address = f"postgresql://u:{SECRET}@127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        options = f"sslmode=verify-full&sslrootcert={of_another.cert_path}"
        assert words in await refused(f"{address}?{options}", tmp_path)


async def test_the_systems_authorities_vouch_for_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As libpq has it: `sslrootcert=system` names no file."""
    of_server = TLSFiles.self_signed(tmp_path / "server")
    ServerTLS(of_server)  # makes it
    monkeypatch.setenv("SSL_CERT_FILE", str(of_server.cert_path))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(of_server.cert_path, of_server.key_path)
    trusted = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # SSLRequest
        writer.write(b"S")
        with contextlib.suppress(OSError):
            await writer.start_tls(tls)
            if await reader.read(1):  # what follows the handshake
                trusted.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        address = f"postgresql://u:{SECRET}@127.0.0.1:{server.sockets[0].getsockname()[1]}/x?sslrootcert=system"
        assert "can't be reached" in await refused(address, tmp_path)
        assert trusted.is_set()
        said = await refused(f"{address}&sslcert={tmp_path}/no.pem", tmp_path)
        assert f"sslcert={tmp_path}/no.pem can't be read" in said


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_one_whose_encoding_can_t_hold_what_clients_send_is_not_begun(
    postgresql: Server, tmp_path: Path, encoding: str
) -> None:
    """One request for a model with a foreign name was lost, and kept others from the ledger until it was."""
    name = f"encoded_{encoding.lower()}"
    postgresql.execute(f"CREATE DATABASE {name} ENCODING {encoding} TEMPLATE template0")
    try:
        if encoding == "LATIN1":
            said = await refused(postgresql.url(name), tmp_path)
            assert "LATIN1 can't hold every script: make another: createdb --encoding=UTF8" in said
        else:
            database = await Database.open(postgresql.url(name), tmp_path)
            await put(database, "日本 😀")
            assert await keys(database) == ["日本 😀"]
            await database.close()
    finally:
        postgresql.drop(name)


async def test_nodes_that_start_together_make_the_tables_once_whatever_the_isolation(
    postgresql: Server, postgresql_url: str, tmp_path: Path
) -> None:
    """Where a user's transactions see what was there when they began, the second one saw no tables."""
    name = name_of(postgresql_url)
    postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
    nodes = await asyncio.gather(*(Database.open(postgresql_url, tmp_path) for _ in range(4)))
    await asyncio.gather(*(put(node, str(number)) for number, node in enumerate(nodes)))
    assert await keys(nodes[0]) == ["0", "1", "2", "3"]
    for node in nodes:
        await node.close()


async def test_one_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_hosts, "CONNECT_TIMEOUT", 0.2)
    connected = []
    server = await asyncio.start_server(lambda *streams: connected.append(streams), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StorageError, match="no answer in time"):
        await Database.open(f"postgresql://u@127.0.0.1:{port}/x", tmp_path)
    for _, writer in connected:
        writer.close()
    server.close()
    await server.wait_closed()


def with_hosts(postgresql_url: str, hosts: str, ports: str) -> str:
    """A database's URL with these hosts."""
    return f"{postgresql_url.partition('?')[0]}?host={hosts}&port={ports}"


async def test_a_host_that_is_silent_does_not_keep_it_from_the_other(
    postgresql: Server, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the primary has lost its power: the driver would wait for it for as long as for all hosts."""
    monkeypatch.setattr(postgresql_hosts, "CONNECT_TIMEOUT", 2.0)
    asked = []
    server = await asyncio.start_server(lambda *streams: asked.append(streams), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        address = with_hosts(postgresql_url, f"127.0.0.1,{postgresql.folder}", f"{port},5432")
        database = await Database.open(address, tmp_path)
        await put(database, "a")
        assert await keys(database) == ["a"]
        await database.close()
        for _, writer in asked:
            writer.close()
    assert len(asked) == 1, "one that was good is asked first"


async def test_what_waits_for_an_answer_of_the_host_before_goes_on_at_the_next(
    postgresql: Server, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is another name of the same server, of which one session is as silent as without power."""
    monkeypatch.setattr(module, "PAUSES", (0.02, 0.1))
    monkeypatch.setattr(module, "PING_EVERY", 0.5)
    ways: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_unix_connection(postgresql.folder / ".s.PGSQL.5432")
        ways.extend([(reader, to), (there, writer)])
        await asyncio.gather(*(pass_on(*way) for way in ways[-2:]))

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (data := await reader.read(65536)) and not silent.is_set():
            writer.write(data)

    silent = asyncio.Event()
    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = with_hosts(postgresql_url, f"127.0.0.1,{postgresql.folder}", f"{port},5432")
    database = await Database.open(address, tmp_path)
    with pytest.raises(Unusable, match="closed in the middle"):
        async with asyncio.timeout(20), database.read() as connection:
            silent.set()
            server.close()
            await connection.execute(text("SELECT 1"))
    await put(database, "a")
    await until(lambda: database.trouble is None)
    await database.close()
    for _, writer in ways:
        writer.close()
        await writer.wait_closed()


async def test_what_is_wrong_with_each_of_several_hosts_is_said(
    postgresql: Server, postgresql_url: str, tmp_path: Path
) -> None:
    name = name_of(postgresql_url)
    postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    address = with_hosts(postgresql_url, f"127.0.0.1,{postgresql.folder}", "1,5432")
    said = await refused(address, tmp_path)
    assert re.search(rf"can't be reached \(127\.0\.0\.1: .*; {postgresql.folder}: it takes no writes", said)
    said = await refused(address.replace("aimux@", "nobody-here@"), tmp_path)
    assert re.search("nobody-here.*check user and password", said), "no other host is better"
    postgresql.execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0")
    try:
        address = with_hosts(postgresql_url, f"{postgresql.folder},{postgresql.folder}", "5432,5432")
        said = await refused(address.replace("aimux@", "crowd@"), tmp_path)
        assert said.count("too many connections") == 2, "where one has no room, the other may have"
    finally:
        postgresql.execute("DROP ROLE crowd")


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@h/x?sslmode=disable", {"h": "postgresql://u:p@h/x?sslmode=disable"}),
        ("postgresql:///x", {"": "postgresql:///x"}),
        (
            "postgresql://u:p%40@h:1,i:2/x",
            {
                "h:1": "postgresql://u:p%40@h:1/x?target_session_attrs=read-write",
                "i:2": "postgresql://u:p%40@i:2/x?target_session_attrs=read-write",
            },
        ),
        (
            "postgresql://u@/x?host=/a,b&port=5&target_session_attrs=any",
            {
                "/a": "postgresql://u@/x?host=%2Fa&port=5&target_session_attrs=any",
                "b": "postgresql://u@/x?host=b&port=5&target_session_attrs=any",
            },
        ),
    ],
)
def test_of_several_hosts_each_has_an_address(url: str, hosts: dict[str, str]) -> None:
    assert dict(postgresql_hosts.hosts_of(url)) == hosts


async def test_while_it_is_away_reads_fail_and_afterwards_all_goes_on(
    postgresql: Server, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.02, 0.1))
    database, told = await Database.open(postgresql_url, tmp_path), []
    other = await Database.open(postgresql_url, tmp_path)
    database.subscribe("topic", lambda: told.append("told"))
    await put(database, "a")
    await asyncio.to_thread(postgresql.stop)
    try:
        await until(lambda: "can't be reached" in str(database.trouble))
        with pytest.raises(StorageError, match="can't be reached"):
            await keys(database)
        with pytest.raises(StorageError, match="can't be reached"):
            await put(database, "b")
        told.clear()
    finally:
        await asyncio.to_thread(postgresql.start)
    await until(lambda: told)  # it looks at what it may have missed
    assert await keys(database) == ["a"]
    assert database.trouble is None
    told.clear()
    await put(other, "c")
    await until(lambda: told, 1)
    await database.close()
    await other.close()


async def test_connections_that_the_server_ends_are_replaced(
    postgresql: Server, postgresql_url: str, tmp_path: Path
) -> None:
    database, told = await Database.open(postgresql_url, tmp_path), asyncio.Event()
    await put(database, "a")
    database.subscribe("topic", told.set)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'aimux%'"
    await asyncio.to_thread(postgresql.execute, ended)
    async with asyncio.timeout(5):
        await told.wait()
    assert await keys(database) == ["a"]
    await put(database, "b")
    await database.close()


async def test_a_connection_that_ends_while_it_is_used_is_replaced(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver has an error of its own for that moment, which is none of its others."""
    ended, writable = asyncpg.InternalClientError("cannot switch to state 11"), module._require_writable
    asked = iter([ended])

    async def asks(connection: asyncpg.Connection[Any]) -> None:
        for error in asked:
            raise error
        await writable(connection)

    monkeypatch.setattr(module, "_require_writable", asks)
    monkeypatch.setattr(module, "PAUSES", (0.02, 0.1))
    monkeypatch.setattr(module, "PING_EVERY", 0.5)
    caplog.set_level("INFO")
    database = await Database.open(postgresql_url, tmp_path)
    await until(lambda: "is there again" in caplog.text)
    with pytest.raises(Unusable, match="can't be reached"):
        async with database.read():
            raise ended
    await put(database, "a")
    assert database.trouble is None
    await database.close()


async def test_a_silent_connection_keeps_locks_from_nobody(
    postgresql: Server, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one to a server that has lost its power, which ends no connection."""
    database = await Database.open(postgresql_url, tmp_path)
    async with database.lock("x"):
        pass
    async with database.read() as connection:
        asked = text("SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_advisory_unlock%'")
        pid = (await connection.execute(asked)).scalar_one()
    monkeypatch.setattr(locks, "ANSWER", 0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unusable, match="no answer in time"):
            async with database.lock("x", patience=10):
                pass
        async with database.lock("x", patience=10):
            pass
    finally:
        os.kill(pid, signal.SIGCONT)
    await database.close()


async def test_one_that_is_a_standby_now_is_left_for_the_primary(
    postgresql: Server,
    postgresql_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As after a failover: connections that were made meanwhile lead to what takes no writes, and would for good."""
    monkeypatch.setattr(module, "PAUSES", (0.02, 0.1))
    monkeypatch.setattr(module, "PING_EVERY", 0.05)
    name = name_of(postgresql_url)
    database, told = await Database.open(postgresql_url, tmp_path), []
    unsubscribe = database.subscribe("topic", lambda: told.append(1))
    await put(database, "a")
    caplog.set_level("INFO")
    postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with pytest.raises(Unusable, match="read-only transaction: if it is a standby"):
        for number in range(5):  # the first may find a connection that was ended
            await put(database, f"b{number}")
    await until(lambda: database.trouble is not None and "it is read-only" in database.trouble.reason)
    assert await keys(database) == ["a"]
    await database.tell("that it is heard or not")
    async with database.write():
        pass
    assert "works again" not in caplog.text
    assert (await status(postgresql_url, tmp_path)).read_only
    postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    await until(lambda: "is there again" in caplog.text)
    told.clear()
    await put(database, "c")
    assert database.trouble is None
    other = await Database.open(postgresql_url, tmp_path)
    await put(other, "d")
    await until(lambda: told)
    assert await keys(database) == ["a", "c", "d"]
    unsubscribe()
    await database.close()
    await other.close()


async def test_the_nodes_that_use_it_are_known(postgresql_url: str, tmp_path: Path) -> None:
    assert (await status(postgresql_url, tmp_path)).nodes == []
    nodes = [await Database.open(postgresql_url, tmp_path) for _ in range(2)]
    assert (await status(postgresql_url, tmp_path)).nodes == [f"{socket.gethostname()[:30]} {__version__}"] * 2
    for node in nodes:
        await node.close()


async def test_what_a_node_tells_the_others_hear_and_it_does_not(postgresql_url: str, tmp_path: Path) -> None:
    nodes = [await Database.open(postgresql_url, tmp_path) for _ in range(3)]
    heard: list[list[tuple[str, str]]] = [[], [], []]

    def listen(node: Database, own: list[tuple[str, str]]) -> None:
        node.hear(lambda name, text: own.append((name, text)))

    for node, own in zip(nodes, heard, strict=True):
        listen(node, own)
    await nodes[0].tell("x" * MOST_TOLD)
    await nodes[1].tell("two words")
    await until(lambda: [len(own) for own in heard] == [1, 1, 2])
    assert heard[0][0][1] == "two words"
    assert heard[1] == heard[2][:1]
    assert heard[1][0][1] == "x" * MOST_TOLD
    for node in nodes:
        await node.close()


async def test_what_is_in_use_at_the_end_is_closed_when_it_comes_back(postgresql_url: str, tmp_path: Path) -> None:
    database = await Database.open(postgresql_url, tmp_path)
    reading, ended = asyncio.Event(), asyncio.Event()

    async def read() -> asyncpg.Connection[Any]:
        async with database.read() as connection:
            raw = await connection.get_raw_connection()  # type: ignore[attr-defined]
            driver: asyncpg.Connection[Any] = raw.driver_connection
            reading.set()
            await ended.wait()
        return driver

    task = asyncio.create_task(read())
    await reading.wait()
    await database.close()
    ended.set()
    assert (await task).is_closed()


async def test_what_others_keep_beside_its_tables_is_left_alone(
    postgresql: Server, tables_url: str, tmp_path: Path
) -> None:
    """Managed services have views of extensions there, of which some can't be read: the status could not be told."""
    await (await Database.open(tables_url, tmp_path)).close()
    postgresql.execute("CREATE VIEW statistics AS SELECT 1 / 0 AS calls; CREATE TABLE others ()", name_of(tables_url))
    found = await status(tables_url, tmp_path)
    assert "users" in found.tables
    assert found.tables.keys() <= METADATA.tables.keys()


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE users ()",
        "CREATE TABLE alembic_version AS SELECT 'a1b2c3d4e5f6' AS version_num",
        "CREATE TABLE alembic_version AS SELECT '0001' AS version_num; CREATE TABLE migrations ()",
    ],
)
async def test_another_programs_database_is_refused(
    postgresql: Server, postgresql_url: str, tmp_path: Path, made: str
) -> None:
    """It was called a newer aimux's, or migrated, or a word was said to be in database.url that is in none."""
    postgresql.execute(made, name_of(postgresql_url))
    words = r"holds another program's tables \(.*\): let database\.url lead to a database of aimux's own"
    with pytest.raises(StorageError, match=words):
        await Database.open(postgresql_url, tmp_path)
    with pytest.raises(StorageError, match=words):
        await status(postgresql_url, tmp_path)


async def test_one_whose_tables_are_another_users_says_what_to_do(
    postgresql: Server, tables_url: str, tmp_path: Path
) -> None:
    """As after a restore by the server's own user: to own the database is not enough."""
    await (await Database.open(tables_url, tmp_path)).close()
    name = name_of(tables_url)
    postgresql.execute(f"CREATE ROLE another LOGIN; ALTER DATABASE {name} OWNER TO another")
    try:
        address = tables_url.replace("aimux@", "another@")
        assert "permission denied" in (said := await refused(address, tmp_path))
        assert "ALTER TABLE NAME OWNER TO USER" in said
        with pytest.raises(StorageError, match="ALTER TABLE NAME OWNER TO USER"):
            await status(address, tmp_path)
    finally:
        postgresql.execute(f"ALTER DATABASE {name} OWNER TO aimux; DROP ROLE another")
