"""Content codings, decoded with a bound: what a meter or a body reader sees of compressed bytes."""

from __future__ import annotations

import zlib
from typing import Protocol

MAX_DECODED = 64 * 1024 * 1024


class DecodeError(ValueError):
    """The bytes are not of that coding, the coding is unknown, or they grow past the bound."""


class Decoder(Protocol):
    """Incremental: each call returns what can be decoded so far. Raises DecodeError."""

    def decode(self, data: bytes) -> bytes: ...


class _Zlib:
    """gzip and deflate (with or without the zlib header)."""

    def __init__(self, coding: str) -> None:
        self._raw_allowed = coding == "deflate"
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | (16 if coding == "gzip" else 0))
        self._gzip = coding == "gzip"
        self._room = MAX_DECODED

    def decode(self, data: bytes) -> bytes:
        try:
            out = self._decoder.decompress(data, self._room)
        except zlib.error as error:
            if not self._raw_allowed:
                raise DecodeError(str(error)) from error
            self._raw_allowed = False
            self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
            return self.decode(data)
        self._raw_allowed = False
        self._room -= len(out)
        if self._room <= 0:
            raise DecodeError(f"decodes to more than {MAX_DECODED} bytes")
        if self._gzip and self._decoder.eof and self._decoder.unused_data:
            rest = self._decoder.unused_data
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
            out += self.decode(rest)
        return out


class _Brotli:
    def __init__(self) -> None:
        import brotli

        self._error = brotli.error
        self._decoder = brotli.Decompressor()
        self._room = MAX_DECODED

    def decode(self, data: bytes) -> bytes:
        try:
            out: bytes = self._decoder.process(data)
        except self._error as error:
            raise DecodeError(str(error)) from error
        self._room -= len(out)
        if self._room <= 0:
            raise DecodeError(f"decodes to more than {MAX_DECODED} bytes")
        return out


class _Zstd:
    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._decoder = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).decompressobj()
        self._room = MAX_DECODED

    def decode(self, data: bytes) -> bytes:
        try:
            out = self._decoder.decompress(data)
        except self._error as error:
            raise DecodeError(str(error)) from error
        self._room -= len(out)
        if self._room <= 0:
            raise DecodeError(f"decodes to more than {MAX_DECODED} bytes")
        return out


def decoder(coding: str) -> Decoder:
    """A decoder for one `content-encoding` value."""
    match coding.strip().lower():
        case "gzip" | "x-gzip":
            return _Zlib("gzip")
        case "deflate":
            return _Zlib("deflate")
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstd()
        case other:
            raise DecodeError(f"unknown content-encoding {other!r}")


def decode(data: bytes, coding: str) -> bytes:
    """All of `data`, decoded at once; a list of codings is undone from its end."""
    for one in reversed([c.strip().lower() for c in coding.split(",")]):
        if one not in {"", "identity"}:
            data = decoder(one).decode(data)
    return data
