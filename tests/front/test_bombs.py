"""Compressed bombs, as large as their coding can make them: the bound holds while they are decoded, not after."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache

import brotli
import pytest
import zstandard

from aimux.plugin.codings import MAX_DECODED
from tests.gateway.conftest import Start, Upstream, request

from .conftest import Aimux

MEBIBYTE = bytes(1 << 20)


def _deflated(wbits: int) -> bytes:
    """A block that depends on none before it is the same each time: one is packed, and not 200. The checksum is of what
    was packed; nobody gets that far."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    first, block = (packer.compress(MEBIBYTE) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + block * 199 + packer.flush()


@cache
def _brotli() -> bytes:
    """A gigabyte. Each piece but the first says that the one before goes on."""
    packer = brotli.Compressor(quality=9, lgwin=24)
    first, piece = (packer.process(MEBIBYTE * 16) + packer.flush() for _ in range(2))
    return b"".join([first, *[piece] * 63, packer.finish()])


def _zstd() -> bytes:
    """By hand: four bytes a block of 128 KiB, 2.5 GiB in all."""
    block, last = (((1 << 17) << 3 | 1 << 1 | end).to_bytes(3, "little") + b"\0" for end in (0, 1))
    window = bytes([0x00, 13 << 3])  # 8 MiB, no checksum, no content size
    return bytes.fromhex("28b52ffd") + window + block * 20_000 + last


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: _deflated(31)),
    "gzip in members": ("gzip", lambda: zlib.compress(MEBIBYTE, wbits=31) * 200),
    "deflate": ("deflate", lambda: _deflated(15)),
    "raw deflate": ("deflate", lambda: _deflated(-15)),
    "brotli": ("br", _brotli),
    "zstd": ("zstd", _zstd),
    "one within the other": ("br, zstd", lambda: zstandard.compress(_brotli())),
}


@cache
def bomb(name: str) -> bytes:
    made = BOMBS[name][1]()
    assert len(made) < MAX_DECODED // 100
    return made


# An address space of its own says more than a look at what was used: 160 MiB are what the imports take, and some room.
CHILD = """
import resource, sys
import brotli, zstandard, zlib
from aimux.plugin.codings import MAX_DECODED, DecodeError, decode
data, coding = sys.stdin.buffer.read(), sys.argv[1]
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 3 * MAX_DECODED, -1))
try:
    decode(data, coding)
except DecodeError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is not held everywhere")
@pytest.mark.parametrize("name", BOMBS)
def test_decoding_stays_within_its_bound(name: str) -> None:
    """Gigabytes, in an address space that has room for thrice the bound."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, BOMBS[name][0]], input=bomb(name), capture_output=True, check=False, timeout=60
    )
    assert done.stderr == b""
    assert done.stdout.decode() == f"decodes to more than {MAX_DECODED} bytes, or 64 times its size\n"


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_for_the_upstream_passes_unopened(start: Start, upstream: Upstream, name: str) -> None:
    """What it holds is read for its model, in vain; each byte of it is the upstream's to deal with."""
    aimux: Aimux = await start(accounts=("default", "second"))
    coding, body = BOMBS[name][0], bomb(name)
    answer = await aimux.send(request(body=body, headers=f"Content-Encoding: {coding}\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert upstream.requests[0].endswith(b"\r\n\r\n" + body)
    assert "model=- " in aimux.log


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_for_the_client_passes_unopened(
    start: Start, upstream: Upstream, name: str, kind: str, status: int
) -> None:
    """The meter gives up, and so does whoever judges an error; the client gets what the upstream sent."""
    coding, body = BOMBS[name][0], bomb(name)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await upstream.read(reader):
            writer.write(
                f"HTTP/1.1 {status} Here\r\ncontent-type: {kind}\r\ncontent-encoding: {coding}\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )

    upstream.script = script
    aimux: Aimux = await start()
    answer = await aimux.send(request())
    assert answer.startswith(f"HTTP/1.1 {status} Here\r\n".encode())
    assert answer.endswith(b"\r\n\r\n" + body)
