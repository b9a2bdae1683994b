"""Content codings, decoded with a bound: what a meter or a body reader sees of compressed bytes."""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DECODED = 64 * 1024 * 1024
MAX_CODINGS = 4
PIECE = 64 * 1024
RATIO = 64
"""What becomes more than so many times its size was made for that, as in aimux.http.unpacking."""
ANYTHING = 4 * 1024 * 1024
"""An answer may decode to this many bytes however small it is: events that are alike pack to a hundredth. It takes 15
ms, of brotli 0.1 s."""
_ZSTD_WINDOW = 8 * 1024 * 1024


class DecodeError(ValueError):
    """The bytes are not of that coding, the coding is unknown, or they grow past the bound."""


class TooLarge(DecodeError):
    """The bytes grow past the bound."""


class Decoder(Protocol):
    """Incremental: each call returns what can be decoded so far. Raises DecodeError."""

    def decode(self, data: bytes) -> bytes: ...


class _Pieces(Protocol):
    """A decoder that makes a piece at a time."""

    def pieces(self, data: bytes) -> Iterator[bytes]: ...


class _Zlib:
    """gzip (also several members in a row) and deflate (with or without the zlib header)."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding != "deflate"
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | (16 if self._gzip else 0))
        self._start: bytes | None = None if self._gzip else b""

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
        """`size`: bytes of a slice."""
        self._process = process
        self._error = error
        self._size = size

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), self._size):
            try:
                yield self._process(data[start : start + self._size])
            except self._error as error:
                raise DecodeError(str(error)) from error


class _Brotli:
    """Brotli where its library bounds what it makes at once."""

    def __init__(self) -> None:
        import brotli

        self._decompressor = brotli.Decompressor()
        self._error = brotli.error

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            while made := self._decompressor.process(data, output_buffer_limit=PIECE):
                data = b""
                yield made
        except self._error as error:
            raise DecodeError(str(error)) from error


def _through(decoder: _Pieces, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from decoder.pieces(piece)


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


def _brotli() -> _Pieces:
    import brotli

    if hasattr(brotli.Decompressor, "can_accept_more_data"):
        return _Brotli()
    return _Sliced(brotli.Decompressor().process, brotli.error, 32)  # before brotli 1.2: up to 50 MB a slice


def _zstd() -> _Pieces:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    # 4 MB a slice at most.
    return _Sliced(decompressor.decompressobj(read_across_frames=True).decompress, zstandard.ZstdError, 128)


def _pieces(coding: str) -> _Pieces:
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


class _Decoder:
    """Several codings, undone one after the other, to no more than so much of what came may hold: whoever decodes at
    once makes everybody else wait meanwhile."""

    def __init__(self, codings: list[str]) -> None:
        self._steps = [_pieces(one) for one in codings]
        self._fed = 0
        self._made = [0] * len(codings)

    def decode(self, data: bytes) -> bytes:
        self._fed += len(data)
        most = min(MAX_DECODED, max(ANYTHING, RATIO * self._fed))
        for at, step in enumerate(self._steps):
            parts = []
            for part in step.pieces(data):
                self._made[at] += len(part)
                if self._made[at] > most:
                    raise TooLarge(f"decodes to more than {MAX_DECODED} bytes, or {RATIO} times its size")
                parts.append(part)
            data = b"".join(parts)
        return data


def decoder(coding: str) -> Decoder:
    """A decoder for one `content-encoding` value."""
    return _Decoder([coding])


def decoder_of(coding: str) -> Decoder | None:
    """A decoder for a whole `content-encoding`, which may name several; None: nothing is encoded. Raises
    DecodeError."""
    codings = _undone(coding)
    return _Decoder(codings) if codings else None


def _undone(coding: str) -> list[str]:
    """The codings of a list, in the order in which to undo them."""
    codings = [one.strip().lower() for one in coding.split(",")]
    if len(codings) > MAX_CODINGS:
        raise DecodeError(f"names more than {MAX_CODINGS} codings")
    return [one for one in reversed(codings) if one not in {"", "identity"}]


def decode(data: bytes, coding: str) -> bytes:
    """All of `data`, decoded at once; a list of codings is undone from its end."""
    found = decoder_of(coding)
    return found.decode(data) if found is not None else data


def unpacked(data: bytes, coding: str, most: int = MAX_DECODED) -> Iterator[bytes]:
    """The same in pieces of at most PIECE bytes, each made only when it is asked for.

    Raises DecodeError after `most` bytes.
    """
    pieces = iter([data])
    for one in _undone(coding):
        pieces = _unzstd(pieces) if one == "zstd" else _through(_pieces(one), pieces)
    room = most
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise TooLarge(f"decodes to more than {most} bytes")
        for begin in range(0, len(piece), PIECE):
            yield piece[begin : begin + PIECE]
