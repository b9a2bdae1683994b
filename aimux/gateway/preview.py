"""The start of an answer that may be compressed, decoded so that it can be judged."""

from __future__ import annotations

from aimux.plugin.codings import DecodeError, Decoder, decoder_of

SLICE = 1024
"""Compressed bytes at a time: a bomb is noticed after a few of them."""


class Preview:
    """Reads the start of one answer again and again while it grows; nothing of it is decoded twice."""

    def __init__(self, coding: str, most: int) -> None:
        """`coding` is the answer's content-encoding, `most` the bytes to decode at most."""
        self.full = False
        """Nothing more will be read: there is enough, or the rest can't be decoded."""
        self._most = most
        self._seen = 0
        self._text = b""
        self._decoder: Decoder | None = None
        try:
            self._decoder = decoder_of(coding)
        except DecodeError:
            self.full = True

    def read(self, payload: bytes) -> bytes:
        """The readable part of `payload`, which begins with what was given before."""
        if self._decoder is None:
            return b"" if self.full else payload
        while not self.full and self._seen < len(payload):
            piece = payload[self._seen : self._seen + SLICE]
            self._seen += len(piece)
            try:
                self._text += self._decoder.decode(piece)
            except DecodeError:
                self.full = True
                break
            if len(self._text) >= self._most:
                self.full = True
                self._text = self._text[: self._most]
        return self._text
