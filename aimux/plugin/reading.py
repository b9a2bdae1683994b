"""Reads what upstreams answer: JSON, events, counts and words from foreign bytes."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_TOKENS: Final = 10**11
"""More than a batch of a hundred thousand requests takes; sums of thousands of such, and their cost, fit a column."""
MOST_VALUES: Final = 100_000
"""Values of a JSON text that is parsed at once, in 50 ms: 30 MB of empty lists would take ten seconds."""
LONGEST_WORD: Final = 32
MODEL: Final = re.compile(rb'"model"\s*:\s*"([A-Za-z0-9._:/-]{1,128})"')
_MOST_TRIED = 8
_PIECE = 1024 * 1024
_WORD = re.compile(r"[a-z0-9_-]+")


@lru_cache(maxsize=256)
def media_type(content_type: str) -> str:
    """What a `Content-Type` says that a body is, in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


def plain_path(path: str) -> str:
    """A path as a lenient server reads it: decoded, without parameters behind semicolons, empty segments and
    spaces around one. A request whose path is spelled oddly must not go uncounted."""
    parts = [part.partition(";")[0].strip() for part in unquote(path).split("/")]
    return "/" + "/".join([part for part in parts if part])


def named_model(path: str) -> str:
    """The model that is asked for by itself, in a path below `/models/`; "": none is."""
    above, _, name = path.partition("/models/")
    return unquote(name) if not above.replace("/v1", "").strip("/") else ""


def texts(delta: object) -> int:
    """The length in bytes of the texts in a piece of an answer, without those that name its kind."""
    if isinstance(delta, str):
        return len(delta.encode())
    if isinstance(delta, dict):
        return sum(texts(value) for key, value in delta.items() if key not in {"type", "role", "id", "name"})
    return sum(map(texts, delta)) if isinstance(delta, list) else 0


def object_behind(key: bytes, text: bytes) -> dict[str, Any] | None:
    """The last JSON object that is the value of `key` in a part of a JSON text, for `read_overlong` of a meter."""
    found = [*re.finditer(rb'"%b"\s*:\s*(?=\{)' % re.escape(key), text)]
    for match in reversed(found[-_MOST_TRIED:]):
        try:
            value, _ = json.JSONDecoder().raw_decode(text[match.end() :].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


def sse_events(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Name ("" if it has none) and data of each whole event at the start of a stream, for `Provider.opening`."""
    if b"\r" in payload:
        payload = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for event in payload.split(b"\n\n")[:-1]:
        name, data = "", []
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                data.append(line[5:].strip())
            elif line.startswith(b"event:"):
                name = line[6:].strip().decode("ascii", "replace")
        if name or data:
            yield name, b"\n".join(data)


def count(value: object) -> int:
    """A token count from foreign JSON: 0 for anything else (or what would not fit a ledger's column)."""
    if type(value) is int:  # nor a bool, which is also an int
        return value if 0 < value < MOST_TOKENS else 0
    # Languages without integers write them as fractions.
    return int(value) if isinstance(value, float) and value.is_integer() and 0 < value < MOST_TOKENS else 0


def number(value: object) -> float | None:
    """A finite number from foreign JSON or a header, where it may be written as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def word(value: object) -> str:
    """A word from foreign JSON that is fit for a name; "" for anything else."""
    return _word(value) if isinstance(value, str) and len(value) <= LONGEST_WORD else ""


@lru_cache(maxsize=256)
def _word(text: str) -> str:
    """The same object for all that are alike: thousands of answers are remembered."""
    return text if _WORD.fullmatch(text) else ""


def is_dense(data: bytes) -> bool:
    """Whether a JSON text may hold more than MOST_VALUES."""
    if len(data) <= 2 * MOST_VALUES:
        return False
    left = MOST_VALUES
    for at in range(0, len(data), _PIECE):
        for sign in (b",", b"[", b"{"):
            left -= data.count(sign, at, at + _PIECE)
        if left < 0:
            return True
    return False


def json_object(data: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else, and for one that is dense."""
    if is_dense(data):
        return None
    try:
        value = orjson.loads(data)
    except ValueError:
        value = _not_strict(data)
    return value if isinstance(value, dict) else None


def _not_strict(data: bytes) -> object:
    """What orjson does not accept as JSON: NaN, which Python servers write, and half a character, if a text was cut."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
