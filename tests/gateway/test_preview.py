"""The start of a compressed answer, read while it grows."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from aimux.gateway.preview import Preview

CODINGS = {
    "": lambda data: data,
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "Gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("coding", CODINGS)
@given(data=st.binary(max_size=5000), cuts=st.lists(st.integers(0, 5000), max_size=5))
def test_the_whole_is_read_however_it_grows(coding: str, data: bytes, cuts: list[int]) -> None:
    packed = CODINGS[coding](data)
    preview = Preview(coding, 10_000)
    read = b""
    for cut in [*sorted(cuts), len(packed)]:
        grown = preview.read(packed[:cut])
        assert grown.startswith(read)
        read = grown
    assert read == data
    assert not preview.full


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "Gzip, br"])
def test_enough_is_enough(coding: str) -> None:
    preview = Preview(coding, 1000)
    packed = CODINGS[coding](b"a" * 2000)
    assert preview.read(packed) == b"a" * 1000
    assert preview.full
    assert preview.read(packed + b"more") == b"a" * 1000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_what_does_not_decode_is_read_no_further(coding: str) -> None:
    preview = Preview(coding, 1000)
    assert preview.read(b"\x17nonsense" * 200) == b""
    assert preview.full


@pytest.mark.parametrize("coding", ["compress", "gzip;q=1", "x"])
def test_a_coding_that_nobody_knows_reads_as_nothing(coding: str) -> None:
    preview = Preview(coding, 1000)
    assert preview.read(b"abc") == b""
    assert preview.full
