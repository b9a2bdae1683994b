from __future__ import annotations

import functools
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from aimux.plugin.codings import ANYTHING, MAX_DECODED, PIECE, DecodeError, TooLarge, decode, decoder, unpacked


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip in members": ("gzip", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "brotli": ("br", functools.partial(brotli.compress, quality=5)),
    "zstd": ("zstd", zstandard.compress),
    "zstd in frames": ("zstd", lambda data: zstandard.compress(data[:3]) + zstandard.compress(data[3:])),
}


@pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)
def test_bytes_come_out_as_they_went_in_wherever_they_are_cut(coding: str, encode: Callable[[bytes], bytes]) -> None:
    data = 'data: {"text": "ünïcode"}\n\n'.encode() * 40
    packed = encode(data)
    assert decode(packed, coding) == data
    for cut in range(len(packed) + 1):
        incremental = decoder(coding)
        assert incremental.decode(packed[:cut]) + incremental.decode(packed[cut:]) == data


@pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)
@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
def test_it_can_be_unpacked_in_pieces(coding: str, encode: Callable[[bytes], bytes], size: int) -> None:
    data = bytes(random.Random(1).choices(b"abc", k=size))
    packed = encode(data)
    pieces = [*unpacked(packed, coding)]
    assert b"".join(pieces) == data
    assert all(len(piece) <= PIECE for piece in pieces)
    twice = [*unpacked(zstandard.compress(packed), f"{coding}, zstd")]
    assert b"".join(twice) == data


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_unpacking_stops_at_the_bound(coding: str) -> None:
    """However much a bomb holds, no more of it is made than was asked for."""
    packed = bomb(coding)
    tracemalloc.start()
    try:
        made = 0
        with pytest.raises(DecodeError, match="more than 1000000 bytes"):
            for piece in unpacked(packed, coding, 1_000_000):
                made += len(piece)
        assert made <= 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@given(parts=st.lists(st.binary(max_size=40), max_size=5))
def test_anything_else_is_a_decode_error(coding: str, parts: list[bytes]) -> None:
    incremental = decoder(coding)
    try:
        for part in parts:
            incremental.decode(part)
    except DecodeError as error:
        assert str(error)


@functools.cache
def bomb(coding: str) -> bytes:
    """More than the bound, from a few kilobytes."""
    packers: dict[str, Callable[[], Any]] = {
        "gzip": lambda: zlib.compressobj(9, zlib.DEFLATED, 31),
        "zstd": lambda: zstandard.ZstdCompressor().compressobj(),
    }
    packer = packers.get(coding)
    pieces, zeros = range(MAX_DECODED // 2**20 + 1), bytes(2**20)
    if packer is None:
        compressor = brotli.Compressor(quality=5)
        return b"".join([*(compressor.process(zeros) for _ in pieces), compressor.finish()])
    made = packer()
    return b"".join([*(made.compress(zeros) for _ in pieces), made.flush()])


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_bomb_does_not_go_off(coding: str) -> None:
    with pytest.raises(DecodeError, match="more than"):
        decode(bomb(coding), coding)


@pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)
def test_what_decodes_to_much_more_than_it_is_is_given_up_soon(coding: str, encode: Callable[[bytes], bytes]) -> None:
    """Everybody else waits for it: a bomb of the whole bound would take brotli 0.7 s."""
    assert len(decode(encode(bytes(ANYTHING)), coding)) == ANYTHING
    with pytest.raises(TooLarge, match="64 times its size"):
        decode(encode(bytes(2 * ANYTHING)), coding)
    with pytest.raises(TooLarge, match="64 times its size"):
        decode(gzip.compress(encode(bytes(2 * ANYTHING))), f"{coding}, gzip")


@pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)
def test_what_is_large_may_decode_to_as_much_more(coding: str, encode: Callable[[bytes], bytes]) -> None:
    data = random.Random(1).randbytes(200_000) + bytes(2 * ANYTHING)
    packed = encode(data)
    incremental = decoder(coding)
    assert b"".join(incremental.decode(packed[at : at + 10_000]) for at in range(0, len(packed), 10_000)) == data


def test_ten_thousand_empty_members_are_no_deep_recursion() -> None:
    assert decode(gzip.compress(b"") * 10_000 + gzip.compress(b"x"), "gzip") == b"x"


def test_a_list_of_codings_is_undone_from_its_end() -> None:
    assert decode(gzip.compress(brotli.compress(b"x")), "br, gzip") == b"x"
    assert decode(b"x", "identity") == b"x"


@pytest.mark.parametrize("coding", ["", "compress", "gzip;q=1"])
def test_an_unknown_coding_is_named(coding: str) -> None:
    with pytest.raises(DecodeError, match="unknown"):
        decoder(coding)


def test_a_list_without_end_is_refused() -> None:
    with pytest.raises(DecodeError, match="more than 4"):
        decode(b"", ",".join(["gzip"] * 5))
