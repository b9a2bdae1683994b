"""TLS in front of it all: what a client without it gets, and that a refusal arrives while the request still comes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.certificates.certificates import Issued
from tests.front.conftest import Aimux, Start, head


@pytest.fixture
def issued() -> Issued:
    return Issued()


@pytest.fixture
def tls(issued: Issued, tmp_path: Path) -> dict[str, Any]:
    """The `tls` of a configuration."""
    for name, content in {"cert.pem": issued.pem, "key.pem": issued.key_pem()}.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    return {"enabled": True, "cert_path": str(tmp_path / "cert.pem"), "key_path": str(tmp_path / "key.pem")}


async def connected(aimux: Aimux, issued: Issued) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cadata=issued.pem.decode())
    return await asyncio.open_connection("127.0.0.1", aimux.port, ssl=context, server_hostname="localhost")


async def test_a_refusal_is_read_although_the_body_still_comes(
    start: Start, tls: dict[str, Any], issued: Issued
) -> None:
    aimux = await start(tls=tls, max_body_size="64KiB")
    reader, writer = await connected(aimux, issued)
    writer.write(head("POST /plain/v1/messages HTTP/1.1", "Content-Length: 9000000", close=True))
    async with asyncio.timeout(10):
        for _ in range(100):
            writer.write(bytes(50_000))
            await asyncio.sleep(0)
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"}")
    writer.transport.abort()


@pytest.mark.parametrize("cookie", [10, 9_000])
async def test_plain_http_is_told_so_and_others_are_served(
    start: Start, tls: dict[str, Any], issued: Issued, cookie: int
) -> None:
    aimux = await start(tls=tls)
    reader, writer = await aimux.connect()
    writer.write(head("GET /plain/v1/messages HTTP/1.1", f"Cookie: a={'x' * cookie}"))
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b'"message": "This port speaks HTTPS: begin the address with https://."}}')
    assert aimux.log.count("a request from 127.0.0.1 is refused: it speaks plain HTTP, and this port HTTPS") == 1
    assert "handshake" not in aimux.log
    reader, writer = await connected(aimux, issued)
    writer.write(head("GET /plain/v1/honest HTTP/1.1", close=True))
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()


async def test_a_handshake_that_fails_is_told_once_in_a_while(
    start: Start, tls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    aimux = await start(tls=tls)

    def distrust() -> None:
        with (
            socket.create_connection(("127.0.0.1", aimux.port)) as sock,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")

    async def told(times: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(lines := [line for line in aimux.log.splitlines() if "TLS handshake with" in line]) < times:
                await asyncio.sleep(0.01)
        return lines

    for _ in range(3):
        await asyncio.to_thread(distrust)
    (line,) = await told(1)
    assert "the TLS handshake with 127.0.0.1 failed: it does not trust the certificate" in line
    monkeypatch.setattr("aimux.front.handshakes.EVERY_SECONDS", 0.0)
    await asyncio.to_thread(distrust)
    assert (await told(2))[1].endswith("(2 more since the last such line)")
    _, writer = await aimux.connect()
    writer.write(b"\x16\x03\x01\x02\x00\x01")
    writer.close()
    assert "hung up in the middle" in (await told(3))[2]
