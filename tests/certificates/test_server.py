"""A live server whose certificate changes under it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import ssl
import subprocess
import time
from typing import TYPE_CHECKING, cast

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from aimux.certificates import ServerTLS, TLSError, TLSFiles
from tests.certificates.certificates import DAY, NOW, Files, Issued
from tests.tools import child_environ
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@contextlib.asynccontextmanager
async def serving(tls: ServerTLS) -> AsyncIterator[int]:
    """A TLS echo server; yields its port."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=tls.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def handshake(port: int, *, name: str = "localhost", version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> str:
    """The fingerprint that a new connection is shown."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(version), server_hostname=name)
    connection = writer.get_extra_info("ssl_object")
    assert connection.selected_alpn_protocol() == "http/1.1"
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    writer.close()
    der = connection.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der).fingerprint(SHA256()).hex(":").upper()


@contextlib.asynccontextmanager
async def watched(tls: ServerTLS) -> AsyncIterator[None]:
    task = asyncio.create_task(tls.watch(0.002))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[object, object, None]], None]:
    def run(main: Coroutine[object, object, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)

    return run


def test_a_new_pair_is_served_and_open_connections_live_on(
    files: Files, run: Callable[[Awaitable[None]], None]
) -> None:
    old = files.issue(Issued("old"))
    tls = ServerTLS(TLSFiles(files.cert, files.key))

    async def main() -> None:
        async with serving(tls) as port, watched(tls):
            assert await handshake(port) == old.fingerprint
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_context(), server_hostname="localhost"
            )
            new = files.issue(Issued("new"))
            await until(lambda: tls.fingerprint == new.fingerprint)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                for name in ("localhost", "127.0.0.1", ""):  # an address or nothing: no SNI
                    assert await handshake(port, name=name, version=version) == new.fingerprint
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            writer.close()
            assert tls.not_after == new.certificate.not_valid_after_utc.timestamp()

    run(main())


def test_old_protocol_versions_are_refused(files: Files, run: Callable[[Awaitable[None]], None]) -> None:
    files.issue(Issued())

    async def main() -> None:
        async with serving(ServerTLS(TLSFiles(files.cert, files.key))) as port:
            context = client_context()
            with pytest.warns(DeprecationWarning):
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")

    run(main())


async def test_a_bad_pair_is_reported_once_and_the_old_one_stays(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    old = files.issue(Issued("old"))
    tls = ServerTLS(TLSFiles(files.cert, files.key))

    def errors() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]

    async with serving(tls) as port, watched(tls):
        files.cert.write_bytes(Issued("other").pem)
        await until(lambda: len(errors()) == 1)
        assert "does not belong to the certificate" in errors()[0]
        assert await handshake(port) == old.fingerprint
        files.cert.unlink()
        await until(lambda: len(errors()) == 2)
        assert "there is no file" in errors()[1]
        new = files.issue(Issued("new"))
        await until(lambda: tls.fingerprint == new.fingerprint)
        assert await handshake(port) == new.fingerprint
    assert len(errors()) == 2


async def test_a_pair_is_taken_as_soon_as_the_clock_allows_it(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files.issue(Issued("old"))
    tls = ServerTLS(TLSFiles(files.cert, files.key))
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() - 400 * DAY.total_seconds())
        async with watched(tls):
            new = files.issue(Issued("new"))
            await until(lambda: "is valid from" in caplog.text)
            patch.undo()
            await until(lambda: tls.fingerprint == new.fingerprint)
    assert caplog.text.count("is valid from") == 1


async def test_links_that_are_swapped_as_kubernetes_does(tmp_path: Path) -> None:
    issued = [Issued("first"), Issued("second")]
    for number, one in enumerate(issued):
        (folder := tmp_path / f"..{number}").mkdir()
        Files(folder / "tls.crt", folder / "tls.key").issue(one)
    (tmp_path / "..data").symlink_to("..0")
    tls = ServerTLS(TLSFiles(tmp_path / "..data" / "tls.crt", tmp_path / "..data" / "tls.key"))
    async with watched(tls):
        (tmp_path / "new").symlink_to("..1")
        (tmp_path / "new").rename(tmp_path / "..data")
        await until(lambda: tls.fingerprint == issued[1].fingerprint)


def test_reload_on_demand_and_from_other_files(files: Files, tmp_path: Path) -> None:
    files.issue(Issued("old"))
    tls = ServerTLS(TLSFiles(files.cert, files.key))
    other = Files(tmp_path / "other.crt", tmp_path / "other.key")
    old = tls.fingerprint
    assert not tls.reload(TLSFiles(other.cert, other.key))
    assert tls.fingerprint == old
    new = other.issue(Issued("new"))
    assert tls.reload(TLSFiles(other.cert, other.key))
    assert tls.fingerprint == new.fingerprint
    newest = other.issue(Issued("newest"))
    assert tls.reload()
    assert tls.fingerprint == newest.fingerprint


def test_a_bad_pair_at_start_is_an_error(files: Files) -> None:
    with pytest.raises(TLSError):
        ServerTLS(TLSFiles(files.cert, files.key))


def test_the_end_is_near(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.issue(Issued(not_before=NOW - 80 * DAY, not_after=NOW + 5 * DAY))
    tls = ServerTLS(TLSFiles(files.cert, files.key))
    tls.reload()
    assert ["expires at" in record.getMessage() for record in caplog.records] == [
        True
    ]  # once a day, not at each reload


class TestSelfSigned:
    def test_made_kept_and_private(self, tmp_path: Path) -> None:
        files = TLSFiles.self_signed(tmp_path / "state", "aimux.example")
        fingerprint = ServerTLS(files).fingerprint
        assert files.key_path.stat().st_mode & 0o777 == 0o600
        files.key_path.chmod(0o644)
        again = ServerTLS(files)
        assert again.fingerprint == fingerprint
        assert files.key_path.stat().st_mode & 0o777 == 0o600
        assert again.pair.names >= {"localhost", "127.0.0.1", "::1", "aimux.example"}
        assert again.not_after - NOW.timestamp() > 390 * 86400

    @pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
    def test_no_host_in_particular(self, tmp_path: Path, host: str) -> None:
        names = ServerTLS(TLSFiles.self_signed(tmp_path, host)).pair.names
        assert {"0.0.0.0", "::", ""} & names == set()

    def test_another_host_or_a_broken_file_makes_a_new_one(self, tmp_path: Path) -> None:
        first = ServerTLS(TLSFiles.self_signed(tmp_path, "a.example"))
        second = ServerTLS(TLSFiles.self_signed(tmp_path, "b.example"))
        assert second.fingerprint != first.fingerprint
        (tmp_path / "tls" / "key.pem").write_bytes(b"")
        assert ServerTLS(TLSFiles.self_signed(tmp_path, "b.example")).fingerprint != second.fingerprint

    def test_further_names_are_in_it_and_a_new_one_makes_a_new_one(self, tmp_path: Path) -> None:
        first = ServerTLS(TLSFiles.self_signed(tmp_path, "", "gateway.lan", "10.0.0.5"))
        assert first.pair.names >= {"localhost", "gateway.lan", "10.0.0.5"}
        assert ServerTLS(TLSFiles.self_signed(tmp_path, "", "10.0.0.5")).fingerprint == first.fingerprint
        assert ServerTLS(TLSFiles.self_signed(tmp_path, "", "10.0.0.6")).fingerprint != first.fingerprint

    @pytest.mark.parametrize("host", ["2001:DB8:0::5", "fe80::5%eth0"])
    def test_an_address_in_another_form_makes_none_anew(self, tmp_path: Path, host: str) -> None:
        first = ServerTLS(TLSFiles.self_signed(tmp_path, host))
        assert ServerTLS(TLSFiles.self_signed(tmp_path, host)).fingerprint == first.fingerprint

    def test_others_read_the_certificate_and_nothing_else(self, tmp_path: Path) -> None:
        state = tmp_path / "state"
        files = TLSFiles.self_signed(state, "")
        for _ in range(2):  # also where systemd has closed the folder again
            ServerTLS(files)
            modes = [path.stat().st_mode & 0o777 for path in (state, state / "tls", files.cert_path, files.key_path)]
            assert modes == [0o711, 0o711, 0o644, 0o600]
            state.chmod(0o700)

    def test_a_key_whose_mode_can_not_be_changed_is_warned_of(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        files = TLSFiles.self_signed(tmp_path, "")
        first = ServerTLS(files)
        files.key_path.chmod(0o644)

        def refuse(_path: Path, _mode: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(type(tmp_path), "chmod", refuse)
        assert ServerTLS(files).fingerprint == first.fingerprint
        assert "every user of this machine can read the TLS key" in caplog.text

    def test_another_machine_name_keeps_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = ServerTLS(TLSFiles.self_signed(tmp_path, ""))
        monkeypatch.setattr("socket.gethostname", lambda: "f00dcafe")
        assert ServerTLS(TLSFiles.self_signed(tmp_path, "")).fingerprint == first.fingerprint

    @pytest.mark.parametrize("name", ["bad..name", "über", "x" * 70])
    def test_machine_names_of_all_sorts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: name)
        assert ServerTLS(TLSFiles.self_signed(tmp_path, "")).pair.names >= {"localhost"}

    async def test_renewed_before_its_end_while_it_serves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tls = ServerTLS(TLSFiles.self_signed(tmp_path, ""))
        first = tls.fingerprint
        real, later = time.time, 370 * 86400
        monkeypatch.setattr("time.time", lambda: real() + later)
        async with watched(tls):
            await until(lambda: tls.fingerprint != first)
        assert tls.not_after > real() + later + 390 * 86400

    def test_a_state_folder_that_can_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("a file")
        with pytest.raises(TLSError, match="state_dir"):
            ServerTLS(TLSFiles.self_signed(tmp_path / "state", ""))

    async def test_strict_clients_take_it_as_their_trust_anchor(self, tmp_path: Path) -> None:
        files = TLSFiles.self_signed(tmp_path, "")
        tls = ServerTLS(files)
        context = ssl.create_default_context(cafile=files.cert_path)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        async with serving(tls) as port:
            for name in ("localhost", "127.0.0.1"):
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
                writer.close()

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
    def test_openssl_calls_it_good_for_a_server(self, tmp_path: Path) -> None:
        files = TLSFiles.self_signed(tmp_path, "")
        ServerTLS(files)
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", files.cert_path, files.cert_path],
            check=True,
            capture_output=True,
            env=child_environ(),
        )
