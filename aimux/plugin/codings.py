"""Content codings, decoded with a bound: what a meter or a body reader sees of compressed bytes."""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DECODED = 64 * 1024 * 1024
MAX_CODINGS = 4
PIECE = 64 * 1024
_ZSTD_WINDOW = 8 * 1024 * 1024


class DecodeError(ValueError):
    """The bytes are not of that coding, the coding is unknown, or they grow past the bound."""


class TooLarge(DecodeError):
    """The bytes grow past the bound."""


class Decoder(Protocol):
    """Incremental: each call returns what can be decoded so far. Raises DecodeError."""

    def decode(self, data: bytes) -> bytes: ...


class _Zlib:
    """gzip (also several members in a row) and deflate (with or without the zlib header)."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding != "deflate"
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | (16 if self._gzip else 0))
        self._start: bytes | None = None if self._gzip else b""
        self._room = MAX_DECODED

    def decode(self, data: bytes) -> bytes:
        parts = []
        for part in self.pieces(data):
            self._room -= len(part)
            if self._room <= 0:
                raise TooLarge(f"decodes to more than {MAX_DECODED} bytes")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What can be decoded so far, a piece at a time."""
        if self._start is not None:
            data = self._start = self._start + data
            if len(data) < 2:
                return
            if data[0] & 15 != 8 or int.from_bytes(data[:2], "big") % 31:  # no zlib header (RFC 1950)
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
            self._start = None
        more = bool(data)
        while more:
            try:
                piece = self._decoder.decompress(data, PIECE)
            except zlib.error as error:
                raise DecodeError(str(error)) from error
            data = self._decoder.unconsumed_tail
            if self._decoder.eof:
                data = self._decoder.unused_data if self._gzip else b""
                if data:
                    self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
            more = bool(data) or (len(piece) == PIECE and not self._decoder.eof)
            if piece:
                yield piece


class _Sliced:
    """A decoder that can't bound its output gets its input in slices too small to hold a bomb.

    1.6 kB of brotli can be a gigabyte, and 32 kB of zstd.
    """

    def __init__(self, process: Callable[[bytes], bytes], error: type[Exception], size: int) -> None:
        """`size`: bytes of a slice, so that one can't become more than about 50 MB."""
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
                raise TooLarge(f"decodes to more than {MAX_DECODED} bytes")
            parts.append(part)
        return b"".join(parts)


def _inflated(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    decoder = _Zlib(coding)
    for piece in pieces:
        yield from decoder.pieces(piece)


def _unbrotlied(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import brotli

    if not hasattr(brotli.Decompressor, "can_accept_more_data"):  # before brotli 1.2 a slice is decoded as a whole
        decoder = _brotli()
        for piece in pieces:
            for begin in range(0, len(piece), 32):
                yield decoder.decode(piece[begin : begin + 32])
        return
    decompressor = brotli.Decompressor()
    try:
        for piece in pieces:
            made = decompressor.process(piece, output_buffer_limit=PIECE)
            while made:
                yield made
                made = decompressor.process(b"", output_buffer_limit=PIECE)
    except brotli.error as error:
        raise DecodeError(str(error)) from error


class _Source:
    """Pieces as a file, for a library that reads what it needs."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next((piece for piece in self._pieces if piece), b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    reader = decompressor.stream_reader(cast("IO[bytes]", _Source(pieces)), read_across_frames=True)
    try:
        while piece := reader.read(PIECE):
            yield piece
    except zstandard.ZstdError as error:
        raise DecodeError(str(error)) from error


def _brotli() -> Decoder:
    import brotli

    return _Sliced(brotli.Decompressor().process, brotli.error, 32)


def _zstd() -> Decoder:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
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


class _Several:
    """Several codings, undone one after the other."""

    def __init__(self, codings: list[str]) -> None:
        self._decoders = [decoder(one) for one in codings]

    def decode(self, data: bytes) -> bytes:
        for each in self._decoders:
            data = each.decode(data)
        return data


def decoder_of(coding: str) -> Decoder | None:
    """A decoder for a whole `content-encoding`, which may name several; None: nothing is encoded. Raises
    DecodeError."""
    codings = _undone(coding)
    if not codings:
        return None
    return decoder(codings[0]) if len(codings) == 1 else _Several(codings)


def _undone(coding: str) -> list[str]:
    """The codings of a list, in the order in which to undo them."""
    codings = [one.strip().lower() for one in coding.split(",")]
    if len(codings) > MAX_CODINGS:
        raise DecodeError(f"names more than {MAX_CODINGS} codings")
    return [one for one in reversed(codings) if one not in {"", "identity"}]


def decode(data: bytes, coding: str) -> bytes:
    """All of `data`, decoded at once; a list of codings is undone from its end."""
    for one in _undone(coding):
        data = decoder(one).decode(data)
    return data


def unpacked(data: bytes, coding: str, most: int = MAX_DECODED) -> Iterator[bytes]:
    """The same in pieces of at most PIECE bytes, each made only when it is asked for.

    Raises DecodeError after `most` bytes.
    """
    pieces = iter([data])
    for one in _undone(coding):
        match one:
            case "gzip" | "x-gzip" | "deflate":
                pieces = _inflated(pieces, "deflate" if one == "deflate" else "gzip")
            case "zstd":
                pieces = _unzstd(pieces)
            case "br":
                pieces = _unbrotlied(pieces)
            case other:
                raise DecodeError(f"unknown content-encoding {other!r}")
    room = most
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise TooLarge(f"decodes to more than {most} bytes")
        for begin in range(0, len(piece), PIECE):
            yield piece[begin : begin + PIECE]
