"""The state folder, the address, the certificate."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from aimux.certificates import ServerTLS, TLSFiles
from aimux.cli.doctor import machine
from aimux.cli.doctor.finding import Finding
from aimux.config import load_config

if TYPE_CHECKING:
    from pathlib import Path

from tests.accounts.disks import opening, read_only
from tests.cli.doctor.support import answering, config_of
from tests.control.conftest import PLUGINS
from tests.control.live import running
from tests.running import free_port


def test_the_state_folder(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.status for finding in machine.of_state_dir(state_dir)] == ["ok"]
    assert machine.of_state_dir(state_dir / "new")[0].status == "ok"
    state_dir.chmod(0o755)
    assert machine.of_state_dir(state_dir) == [
        Finding("warning", "state_dir", f"{state_dir} is open to other users", f"chmod 700 {state_dir}")
    ]
    (file := state_dir / "file").touch()
    assert "is not a folder" in machine.of_state_dir(file)[0].message
    assert "can't be reached" in machine.of_state_dir(file / "below")[0].message
    state_dir.chmod(0o700)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 99, 1))
    assert "free some space" in machine.of_state_dir(state_dir)[0].remedy


def test_a_state_folder_of_somebody_else(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = state_dir.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    (finding,) = machine.of_state_dir(state_dir)
    assert (finding.status, finding.remedy) == ("warning", f"run aimux and its doctor as user id {owner}")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert machine.of_state_dir(state_dir)[0].status == "error"


def test_a_state_folder_that_is_a_volume_of_kubernetes_is_in_order(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's, and open to the pod's group: nobody in the pod could follow advice about it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to root")
    os.chown(state_dir, 0, 4242)
    state_dir.chmod(0o2775)
    monkeypatch.setattr(os, "geteuid", lambda: 4241)
    monkeypatch.setattr(os, "getgroups", lambda: [0, 4242])
    assert [finding.status for finding in machine.of_state_dir(state_dir)] == ["ok"]
    monkeypatch.setattr(os, "getgroups", list)
    assert {finding.status for finding in machine.of_state_dir(state_dir)} == {"warning"}


def test_a_state_folder_on_a_disk_that_takes_nothing(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks may be its owner, and permissions may be in order."""
    with monkeypatch.context() as disk:
        disk.setattr(os, "open", read_only())
        (finding,) = machine.of_state_dir(state_dir)
    assert (finding.status, finding.remedy) == ("error", "mount it read-write")
    with monkeypatch.context() as disk:
        disk.setattr(os, "open", opening(errno.EIO, os.O_RDWR))
        (finding,) = machine.of_state_dir(state_dir)
    assert (finding.status, finding.remedy) == ("error", "look at the disk")
    assert list(state_dir.iterdir()) == [], "looking leaves nothing"


async def address(state_dir: Path, listen: str) -> Finding:
    (finding,) = await machine.of_address(config_of(state_dir, listen=listen))
    return finding


async def test_an_address_that_is_taken(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        answer = asyncio.create_task(address(state_dir, listen))
        while not answer.done():  # whatever listens there answers with nonsense
            await asyncio.sleep(0.001)
            taken.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                taken.accept()[0].close()
    finding = answer.result()
    assert finding.status == "error"
    assert "stop the program that listens there" in finding.remedy
    assert (await address(state_dir, listen)).message == "is free"


async def test_an_address_that_aimux_has(state_dir: Path) -> None:
    async def health(request: web.BaseRequest) -> web.Response:
        assert request.path == "/health"
        return web.json_response({"status": "ok"})

    async with answering(health) as origin:
        finding = await address(state_dir, origin.removeprefix("http://"))
    assert (finding.status, finding.message) == ("ok", "aimux runs there")


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_aimux_is_known_over_tls_and_on_a_socket(tmp_path: Path, unix: bool, tls: bool) -> None:
    """Where its certificate is one that nobody else trusts, too."""
    document: dict[str, Any] = {
        "listen": f"unix:{tmp_path}/s" if unix else f"127.0.0.1:{free_port()}",
        "tls": {"enabled": tls, "self_signed": tls},
    }
    with running(tmp_path, **document) as live:
        config = load_config(live.config, environ={}, providers=PLUGINS.providers)
        (finding,) = await machine.of_address(config)
        assert (finding.status, finding.message) == ("ok", "aimux runs there")


async def test_another_certificate_than_the_configurations_is_somebody_elses(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        ServerTLS(TLSFiles.self_signed(tmp_path / name, ""))
    context = ServerTLS(TLSFiles.self_signed(tmp_path / "theirs", "")).context
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        listen = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        tls = {"enabled": True, "self_signed": True}
        (finding,) = await machine.of_address(config_of(tmp_path / "ours", listen=listen, tls=tls))
    assert finding.status == "error"


async def test_an_address_of_another_machine(state_dir: Path) -> None:
    finding = await address(state_dir, "192.0.2.1:8080")
    assert finding.status == "error"
    assert "an address of this machine" in finding.remedy


async def test_unix_sockets(state_dir: Path) -> None:
    path = state_dir / "s"
    listen = f"unix:{path}"
    assert (await address(state_dir, listen)).message == "is free"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as taken:
        taken.bind(str(path))
        taken.listen()
        finding = await address(state_dir, listen)
        assert "perhaps another aimux" in finding.remedy
    assert (await address(state_dir, listen)).message == "is free"  # left over, and replaced at a start
    path.unlink()
    path.touch()
    assert "another kind" in (await address(state_dir, listen)).message
    assert "there is no folder" in (await address(state_dir, f"unix:{state_dir}/none/s")).message


def test_the_certificate(state_dir: Path) -> None:
    assert machine.of_certificate(config_of(state_dir)) == []
    config = config_of(state_dir, tls={"enabled": True, "self_signed": True})
    assert "at its first start" in machine.of_certificate(config)[0].message
    fingerprint = ServerTLS(TLSFiles.self_signed(state_dir, "")).fingerprint
    (finding,) = machine.of_certificate(config)
    assert finding.status == "ok"
    assert fingerprint in finding.message
    (state_dir / "tls" / "key.pem").write_text("nothing")
    (finding,) = machine.of_certificate(config)
    assert finding.status == "error"
    assert "BEGIN PRIVATE KEY" in finding.remedy
