"""Thousands of half-open connections to a real process, and file descriptors that run out: honest clients go on."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.certificates.certificates import Files, Issued
from tests.e2e import process
from tests.e2e.process import TOKEN, Aimux, config_of, put_account, serving
from tests.waiting import until

HEADERS = {"x-api-key": TOKEN, "anthropic-version": "2023-06-01"}
THOUSANDS = 5000
PROMPT = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello!"}]}


@asynccontextmanager
async def gateway(folder: Path, **settings: Any) -> AsyncIterator[Aimux]:
    async with Simulator() as sim:
        put_account(folder / "state", sim.accounts["claude-key"])
        async with serving(folder, config_of(sim, folder, **settings), command=process.COMMAND) as aimux:
            yield aimux


async def ask(aimux: Aimux, trust: ssl.SSLContext | bool = True) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{aimux.claude}/v1/messages", json=PROMPT, headers=HEADERS, ssl=trust) as answer,
    ):
        await answer.read()
        return answer.status


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many for the crowd as it needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * THOUSANDS
    if hard not in {-1, resource.RLIM_INFINITY} and hard < wanted:
        pytest.skip(f"{wanted} file descriptors are needed, and {hard} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


HALVES = (
    b"",
    b"POST /claude",
    b"POST /claude/v1/messages HTTP/1.1\r\nHost: x\r\n",
    f"POST /claude/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {TOKEN}\r\nContent-Length: 90\r\n\r\n{{".encode(),
)


@contextmanager
def crowd(aimux: Aimux, size: int, *halves: bytes) -> Iterator[None]:
    """So many connections with half a request on each; some of them may be refused."""
    address = ("127.0.0.1", int(aimux.address.rpartition(":")[2]))
    with ExitStack() as clients:
        for number in range(size):
            client = clients.enter_context(socket.create_connection(address))
            with suppress(ConnectionError):
                client.send(halves[number % len(halves)])
        yield


def held(aimux: Aimux) -> int:
    """File descriptors of the process."""
    return len([*Path(f"/proc/{aimux.process.pid}/fd").iterdir()])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.usefixtures("descriptors")
async def test_thousands_of_half_open_connections_are_held_and_cheap(tmp_path: Path) -> None:
    async with gateway(tmp_path) as aimux:
        assert await ask(aimux) == 200
        memory = aimux.memory
        with crowd(aimux, THOUSANDS, *HALVES):
            assert [await ask(aimux) for _ in range(5)] == [200] * 5
            assert held(aimux) > THOUSANDS, "there is room for all of them"
            assert aimux.memory - memory < THOUSANDS * 10_000
        await until(lambda: held(aimux) <= 100, 20)
        assert await ask(aimux) == 200
        assert "client connections are open" not in aimux.output


@pytest.mark.usefixtures("descriptors")
async def test_thousands_more_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A low limit is a low cap, and that is said once."""
    monkeypatch.setattr(process, "COMMAND", ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *process.COMMAND))
    async with gateway(tmp_path) as aimux:
        with ExitStack() as crowds:
            for _ in range(10):
                crowds.enter_context(crowd(aimux, THOUSANDS // 10, *HALVES[:-1]))
                assert await ask(aimux) == 200
        assert aimux.output.count("client connections are open") == 1
        assert "Too many open files" not in aimux.output


@pytest.mark.usefixtures("descriptors")
async def test_half_a_tls_handshake_makes_room_like_half_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *process.COMMAND))
    files = Files(tmp_path / "cert.pem", tmp_path / "key.pem")
    issued = files.issue(Issued())
    trust = ssl.create_default_context(cadata=issued.pem.decode())
    tls = {"enabled": True, "cert_path": str(files.cert), "key_path": str(files.key)}
    async with gateway(tmp_path, tls=tls) as aimux:
        aimux.address = aimux.address.replace("127.0.0.1", "localhost")
        with ExitStack() as crowds:
            for _ in range(4):
                crowds.enter_context(crowd(aimux, 300, b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
                assert await ask(aimux, trust) == 200
        assert aimux.output.count("client connections are open") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit(2) is Linux's")
async def test_none_left_at_all(tmp_path: Path) -> None:
    """Somebody else took them, or the limit was lowered under the running process."""
    async with gateway(tmp_path) as aimux:
        assert await ask(aimux) == 200
        pid = aimux.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        opened = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 2, before[1]))
        with crowd(aimux, 100, HALVES[2]):
            pass
        lines = len(aimux.stderr)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        async with asyncio.timeout(20):
            while await ask(aimux) != 200:
                await asyncio.sleep(0.05)
        assert lines < 20, "a hundred refusals are not a hundred lines"
        assert "Traceback" not in aimux.output
