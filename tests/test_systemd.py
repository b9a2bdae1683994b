"""systemd's protocols, against real sockets in its place."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aimux import systemd
from aimux.systemd import Notifier, listen_sockets
from tests.tools import child_environ

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The address as NOTIFY_SOCKET has it, and the socket that listens there."""
    name = f"@aimux-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        yield name, sock


def test_the_life_of_a_service(manager: tuple[str, socket.socket]) -> None:
    name, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("serving on 127.0.0.1:8080\nforged=1")
    assert sock.recv(4096) == b"READY=1\nSTATUS=serving on 127.0.0.1:8080 forged=1"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    reloading, stamp = sock.recv(4096).split(b"\n")
    assert reloading == b"RELOADING=1"
    assert before <= int(stamp.removeprefix(b"MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready()
    assert sock.recv(4096) == b"READY=1"
    notifier.status("3 streams open")
    assert sock.recv(4096) == b"STATUS=3 streams open"
    notifier.extend(1.5)
    assert sock.recv(4096) == b"EXTEND_TIMEOUT_USEC=1500000"
    notifier.stopping("draining")
    assert sock.recv(4096) == b"STOPPING=1\nSTATUS=draining"


async def test_signs_of_life(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "4000"})
        assert notifier.watchdog_interval == 0.002
        task = asyncio.create_task(notifier.watch())
        async with asyncio.timeout(5):
            for _ in range(3):
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"WATCHDOG=1"
        task.cancel()


async def test_work_that_takes_long_asks_for_more_time(
    manager: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, sock = manager
    sock.setblocking(False)
    monkeypatch.setattr(systemd, "PATIENCE", 0.02)
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def seen(*args: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*args))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", seen)
    async with asyncio.timeout(5), Notifier({"NOTIFY_SOCKET": name}).patience():
        for _ in range(3):
            assert await loop.sock_recv(sock, 100) == b"EXTEND_TIMEOUT_USEC=20000"
    assert timers[-1].cancelled()  # otherwise a service that hangs later is never ended


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
    ],
)
def test_the_watchdog_is_for_this_process_only(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier(environ).watchdog_interval == interval


async def test_without_a_watchdog_there_is_nothing_to_do() -> None:
    await asyncio.wait_for(Notifier({}).watch(), 5)


def test_outside_of_a_service_nothing_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({}).ready()
    assert not caplog.records


def test_a_manager_that_is_gone_or_busy_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    assert "can't notify the service manager" in caplog.text
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        caplog.clear()
        while not caplog.records:  # until the queue is full: would block here for ever
            notifier.status("busy")


LAUNCHER = """
import os, sys
pid, names, *fds = sys.argv[1:]
high = [os.dup2(int(fd), 100 + position) for position, fd in enumerate(fds)]
for position, fd in enumerate(high):
    os.dup2(fd, 3 + position, inheritable=True)
os.environ.update(LISTEN_PID=pid or str(os.getpid()), LISTEN_FDS=str(len(fds)))
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(sys.executable, [sys.executable, "-c", os.environ["CHILD"]])
"""

CHILD = """
import os, sys
from aimux import systemd
from aimux.systemd import listen_sockets
try:
    sockets = listen_sockets(os.environ)
except OSError as error:
    sys.exit(str(error))
assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & set(os.environ)
print([name for name, _ in sockets], flush=True)
for _, sock in sockets:
    assert not sock.getblocking() and not sock.get_inheritable()
    sock.setblocking(True)
    connection, _ = sock.accept()
    connection.sendall(b"hello")
    connection.close()
"""


def activated(*fds: int, pid: str = "", names: str = "") -> subprocess.Popen[str]:
    """A process started as systemd does it: its sockets are descriptors 3, 4, …"""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, pid, names, *map(str, fds)],
        env=child_environ(CHILD=CHILD),
        pass_fds=fds,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def test_sockets_that_were_opened_beforehand(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
    ):
        unix.bind(str(tmp_path / "aimux.sock"))
        unix.listen()
        with activated(tcp.fileno(), unix.fileno(), names="http:local") as process:
            for family, address in ((socket.AF_INET, tcp.getsockname()), (socket.AF_UNIX, unix.getsockname())):
                with socket.socket(family, socket.SOCK_STREAM) as client:
                    client.settimeout(10)
                    client.connect(address)
                    assert client.recv(100) == b"hello"
            output, errors = process.communicate(timeout=10)
    assert (output, errors, process.returncode) == ("['http', 'local']\n", "", 0)


def test_sockets_for_another_process_are_not_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, activated(tcp.fileno(), pid="1") as process:
        assert process.communicate(timeout=10) == ("[]\n", "")


def test_a_descriptor_that_does_not_listen_is_named() -> None:
    with socket.socket() as idle, activated(idle.fileno(), names="http") as process:
        assert "descriptor 3 (http) is not a listening stream socket" in process.communicate(timeout=10)[1]
    with open(os.devnull) as file, activated(file.fileno()) as process:  # noqa: PTH123 - a descriptor is wanted
        assert "descriptor 3 (unnamed) is not a socket" in process.communicate(timeout=10)[1]


def test_no_activation() -> None:
    assert listen_sockets({}) == []
    assert listen_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}) == []
