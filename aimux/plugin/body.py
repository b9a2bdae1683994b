"""A request's body: part of the plugin API (`aimux.plugin`), compiled where aimux is."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from aimux.compiling import mypyc_attr

MAX_MODEL: Final = 256
"""Longer values are not a model's name: a client could fill the memory and the log with them."""
_LEADING_MODEL: Final = re.compile(rb'\s*\{\s*"model"\s*:\s*"([^"\\]{1,%d})"' % MAX_MODEL)


@mypyc_attr(allow_interpreted_subclasses=True)
class Body:
    """A request's body, kept for replay, and what can be read from it. Unreadable or non-JSON bodies are read as `{}`.

    `raw` is what the client sent, to the byte; `encoding` its `content-encoding`.
    """

    __slots__ = ("_json", "encoding", "raw")

    def __init__(self, raw: bytes, encoding: str = "") -> None:
        self.raw = raw
        self.encoding = encoding
        self._json: dict[str, Any] | None = None

    @property
    def start(self) -> tuple[bytes, str]:
        """The bytes up to the end of the `model` that the body begins with, and that model; empty if it doesn't, or if
        that can't be seen."""
        match = None if self.encoding else _LEADING_MODEL.match(self.raw)
        return (match[0], match[1].decode("utf-8", "replace")) if match else (b"", "")

    @property
    def leading_model(self) -> str:
        """The `model` that the body begins with; "" if it doesn't, or if that can't be seen."""
        return self.start[1]

    @property
    def model(self) -> str:
        """The body's `model`; "" if it has none, or one beyond MAX_MODEL.

        Both vendors' CLIs put it first: one regular expression then spares parsing 60 kB (about 150 µs). JSON may
        repeat a key, and then the last one counts at most upstreams; what decides by the model asks `routed_model`.
        """
        return self.leading_model or self._parsed_model()

    @property
    def routed_model(self) -> str:
        """The model as most upstreams read it, for decisions that depend on it: a repeated key's last value.

        It is the leading one, unless the name occurs again or could be written with escapes (searching 60 kB takes 30
        µs, parsing them 150).
        """
        plain = not self.encoding and self.raw.count(b'"model"') == 1 and b"\\u006" not in self.raw
        return (self.leading_model if plain else "") or self._parsed_model()

    def _parsed_model(self) -> str:
        model = self.json().get("model")
        return model if isinstance(model, str) and len(model) <= MAX_MODEL else ""

    def json(self) -> dict[str, Any]:
        """The body as a JSON object, parsed once; `{}` if it isn't one or is compressed in an unknown way."""
        if self._json is None:
            text = self.text()
            try:
                data = json.loads(text) if text is not None else None
            except (ValueError, RecursionError):
                data = None
            self._json = data if isinstance(data, dict) else {}
        return self._json

    def text(self) -> str | None:
        """The body decompressed and decoded; None if it is not text or compressed in an unknown way."""
        raw = self.decoded()
        try:
            return raw.decode("utf-8") if raw is not None else None
        except UnicodeDecodeError:
            return None

    def decoded(self) -> bytes | None:
        """The body decompressed; None if it is compressed in an unknown way."""
        from aimux.plugin.codings import DecodeError, decode

        try:
            return decode(self.raw, self.encoding) if self.encoding else self.raw
        except DecodeError:
            return None
