"""Content codings, decoded with a bound: what a meter or a body reader sees of compressed bytes."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DECODED = 64 * 1024 * 1024
MAX_CODINGS = 4


class DecodeError(ValueError):
    """The bytes are not of that coding, the coding is unknown, or they grow past the bound."""


class Decoder(Protocol):
    """Incremental: each call returns what can be decoded so far. Raises DecodeError."""

    def decode(self, data: bytes) -> bytes: ...


class _Zlib:
    """gzip (also several members in a row) and deflate (with or without the zlib header)."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding == "gzip"
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | (16 if self._gzip else 0))
        self._start: bytes | None = None if self._gzip else b""
        self._room = MAX_DECODED

    def decode(self, data: bytes) -> bytes:
        if self._start is not None:
            data = self._start = self._start + data
            if len(data) < 2:
                return b""
            if data[0] & 15 != 8 or int.from_bytes(data[:2], "big") % 31:  # no zlib header (RFC 1950)
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
            self._start = None
        parts = []
        while data:
            try:
                out = self._decoder.decompress(data, self._room)
            except zlib.error as error:
                raise DecodeError(str(error)) from error
            parts.append(out)
            self._room -= len(out)
            if self._room <= 0:
                raise DecodeError(f"decodes to more than {MAX_DECODED} bytes")
            data = b""
            if self._gzip and self._decoder.eof:
                data = self._decoder.unused_data
                self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Sliced:
    """A decoder that can't bound its output gets its input in slices too small to hold a bomb.

    1.6 kB of brotli can be a gigabyte, and 32 kB of zstd.
    """

    def __init__(self, process: Callable[[bytes], bytes], error: type[Exception], size: int) -> None:
        """`size`: bytes a slice, so that one can't become more than about 50 MB."""
        self._process = process
        self._error = error
        self._size = size
        self._room = MAX_DECODED

    def decode(self, data: bytes) -> bytes:
        parts = []
        for start in range(0, len(data), self._size):
            try:
                part = self._process(data[start : start + self._size])
            except self._error as error:
                raise DecodeError(str(error)) from error
            self._room -= len(part)
            if self._room <= 0:
                raise DecodeError(f"decodes to more than {MAX_DECODED} bytes")
            parts.append(part)
        return b"".join(parts)


def _brotli() -> Decoder:
    import brotli

    return _Sliced(brotli.Decompressor().process, brotli.error, 32)


def _zstd() -> Decoder:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024)
    return _Sliced(decompressor.decompressobj(read_across_frames=True).decompress, zstandard.ZstdError, 1024)


def decoder(coding: str) -> Decoder:
    """A decoder for one `content-encoding` value."""
    match coding.strip().lower():
        case "gzip" | "x-gzip":
            return _Zlib("gzip")
        case "deflate":
            return _Zlib("deflate")
        case "br":
            return _brotli()
        case "zstd":
            return _zstd()
        case other:
            raise DecodeError(f"unknown content-encoding {other!r}")


def decode(data: bytes, coding: str) -> bytes:
    """All of `data`, decoded at once; a list of codings is undone from its end."""
    codings = [one.strip().lower() for one in coding.split(",")]
    if len(codings) > MAX_CODINGS:
        raise DecodeError(f"names more than {MAX_CODINGS} codings")
    for one in reversed(codings):
        if one not in {"", "identity"}:
            data = decoder(one).decode(data)
    return data
