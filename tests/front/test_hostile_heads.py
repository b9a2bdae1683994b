"""Heads from an upstream that means harm: one well-formed answer for the client that asked, or none of it."""

from __future__ import annotations

import asyncio

import pytest

from aimux.http.framing import chunk
from aimux.relay.pool import Pool
from tests.gateway.conftest import Upstream

from .conftest import SECRET, Aimux
from .hostile import EVIL, OK, evil, honest, read_strictly, says

BAD_HEADS = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "nothing": b"",
    "an empty line": b"\r\n\r\n",
    "HTML": b"<html><body>200 OK</body></html>\r\n\r\n",
    "HTTP/0.9": b"hello",
    "HTTP/2": b"HTTP/2 200 OK\r\ncontent-length: 0\r\n\r\n",
    "another version": b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a long version": b"HTTP/1.10 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
    "a negative status": b"HTTP/1.1 -20 OK\r\ncontent-length: 0\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n",
    "line feeds alone": b"HTTP/1.1 200 OK\ncontent-length: 4\n\nevil",
    "a line feed in the reason": b"HTTP/1.1 200 OK\nset-cookie: evil=1\r\ncontent-length: 0\r\n\r\n",
    "a carriage return in the reason": b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\ncontent-length: 0\r\n\r\n",
    **{
        f"the line {line!r}": OK + line + b"\r\ncontent-length: 0\r\n\r\n"
        for line in (
            b"x: a\nset-cookie: evil=1",
            b"x: a\rset-cookie: evil=1",
            b"x: a\r\n folded",
            b"x: a\r\n\tset-cookie: evil=1",
            b" x: a",
            b"x : a",
            b"x\t: a",
            b"x",
            b": a",
            b"x y: a",
            b"x\0: a",
            b"x: a\0",
            b"x: a\x01",
            b"x: a\x7f",
            b"x\xe9: a",
            b"x(y): a",
        )
    },
    **{
        f"the framing {line!r}": OK + line + b"\r\n\r\nevil"
        for line in (
            b"content-length: 4\r\ncontent-length: 5",
            b"content-length: 4, 5",
            b"content-length: +4",
            b"content-length: -4",
            b"content-length: 0x4",
            b"content-length: 4 4",
            b"content-length: 4a",
            b"content-length:",
            b"content-length: " + b"9" * 30,
            b"content-length: 4\r\ntransfer-encoding: chunked",
            b"transfer-encoding: chunked\r\ncontent-length: 4",
            b"transfer-encoding: identity",
            b"transfer-encoding: gzip, chunked",
            b"transfer-encoding: chunked, chunked",
            b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            b"transfer-encoding: xchunked",
            b"transfer-encoding: \x0bchunked",
            b"transfer-encoding:",
        )
    },
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"evil") + b"0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + EVIL,
    "17 interim answers": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 17 + EVIL,
    "an endless reason": b"HTTP/1.1 200 " + b"a" * 100_000,
    "an endless header": OK + b"x: " + b"a" * 100_000,
    "endless headers": OK + b"x: a\r\n" * 20_000,
    "headers that are too many for one head": OK + b"x: a\r\n" * 15_000 + b"content-length: 0\r\n\r\n",
    "endless interim headers": b"HTTP/1.1 100 Continue\r\n" + b"x: a\r\n" * 20_000,
}


@pytest.mark.parametrize("answer", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_bad_head_is_a_502_without_a_byte_of_it(aimux: Aimux, upstream: Upstream, answer: bytes) -> None:
    says(upstream, answer)
    status, headers, body = read_strictly(await evil(aimux))
    assert status == 502
    assert b"evil" not in body
    assert b"set-cookie" not in headers
    assert SECRET.encode() not in body
    await honest(aimux)


async def test_endless_interim_answers_end(aimux: Aimux, upstream: Upstream) -> None:
    says(upstream, *[b"HTTP/1.1 100 Continue\r\n\r\n"] * 200)
    assert read_strictly(await evil(aimux))[0] == 502
    await honest(aimux)


async def test_a_few_interim_answers_are_no_storm(aimux: Aimux, upstream: Upstream) -> None:
    says(upstream, b"HTTP/1.1 102 Processing\r\n\r\n" * 15 + b"HTTP/1.1 100 Continue\r\n\r\n", EVIL, hang_up=False)
    status, headers, body = read_strictly(await evil(aimux))
    assert (status, body) == (200, b"evil")
    assert b"set-cookie" not in headers


async def test_headers_that_end_here_end_here_however_they_are_written(aimux: Aimux, upstream: Upstream) -> None:
    says(
        upstream,
        OK + b"Connection: keep-alive, X-Hop\r\ncOnNeCtIoN: x-other\r\nX-HOP: 1\r\nx-other: 2\r\nSET-cookie: evil=1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: x\r\nUpgrade: h2c\r\nTE: x\r\n"
        b"X-Account: acc\r\nAlt-Svc: h3\r\nStrict-Transport-Security: max-age=1\r\ncontent-length: 2\r\n\r\nok",
    )
    _, headers, body = read_strictly(await evil(aimux))
    assert body == b"ok"
    assert headers.keys() == {b"content-length", b"connection", b"x-request-id"}
    assert headers[b"connection"] == b"close"


@pytest.mark.parametrize("answer", [b"", EVIL, b"garbage"], ids=["a farewell", "an answer", "garbage"])
async def test_an_upstream_that_hangs_up_before_it_is_asked_is_a_502_at_once(
    aimux: Aimux, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """The connection is over when the request would begin: nobody may wait for its answer."""
    connect = Pool._open

    async def slowly(pool: Pool, *to: object) -> object:
        connection = await connect(pool, *to)  # type: ignore[arg-type]
        while not connection.closed:
            await asyncio.sleep(0)
        return connection

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    upstream.script = script
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_open", slowly)
        status, headers, body = read_strictly(await evil(aimux))
    assert status == 502
    assert b"evil" not in body
    assert b"set-cookie" not in headers
    pool = aimux.app.gateway.pool
    assert (pool.open_connections, pool.active_exchanges) == (0, 0)
    assert "Traceback" not in aimux.log
    says(upstream)
    await honest(aimux)
