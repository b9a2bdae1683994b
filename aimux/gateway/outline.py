"""What a large JSON body says at its top, found without building objects for the rest.

Parsing a body of 60 MB takes ten seconds and a gigabyte. Here its bytes are read in slices: long strings and nested
values are skipped by one regular expression, and only the top-level members that are short are parsed, and the first
items of longer lists.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aimux.gateway.named_models import NamedModels

SLICE = 4 * 1024
"""Bytes at a time: they take 2 ms if each is a bracket, else 0.05 ms."""
KEPT = 64 * 1024
"""Bytes of values that are kept for parsing, as many of …"""
TALKS = frozenset({"messages", "input"})
"""… the lists whose beginning a conversation is known by, and …"""
SHORT = 1024
"""… this many of each value in any case, …"""
MEMBERS = 1_000
"""… of this many values: an object with more members at its top is made to be hard to read, …"""
MAX_STEPS = 1_000_000
"""… and so is one with more tokens that the regular expressions don't skip."""
ITEMS = 8

_IN_TEXT = rb'(?>(?:[^"\\]++|\\.)*)'
_STRING = rb'"%b"' % _IN_TEXT
_FLAT = rb'[\[{](?>(?:[^"\[\]{}]++|%b)*)[\]}]' % _STRING
_NESTED = re.compile(rb'(?>(?:[^"\[\]{}]++|%b|%b)*)' % (_STRING, _FLAT), re.DOTALL)
_IN_STRING = re.compile(_IN_TEXT, re.DOTALL)
_KEY = re.compile(rb'[\s,]*+("(?>(?:[^"\\]++|\\.){0,256})")\s*+:\s*+(?=\S)', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\]}"\[{]*+')
_SPACE = re.compile(rb"[\s,]*+")
_OPENING, _QUOTE = frozenset(b"[{"), ord('"')
_TOKEN = re.compile(r'("(?>(?:[^"\\]++|\\[^u]|\\u[0-9a-fA-F]{4})*))("?)|([\[\]{}])', re.DOTALL)
_CLOSING = {"[": "]", "{": "}"}
_MARK = b"\xef\xbb\xbf"
"""Of UTF-8's byte order: some servers read past it."""
_LONGEST_KEY = 2048
_decoder = json.JSONDecoder()


class Outline:
    """`feed` slices in their order, then look at `members`."""

    def __init__(self, most: int = MAX_STEPS, names: NamedModels | None = None) -> None:
        """`most`: steps after which it is hard to read. `names`: is shown the values of members at the top."""
        self._most = most
        self._names = names
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        if self._names is not None:
            self._names.restart()
        self.members: dict[str, Any] = {}
        """Top-level members; for a repeated key the last one, as most parsers read it."""
        self.spans: list[tuple[int, int]] = []
        """Where the values of all members called `model` begin and end."""
        self.models: dict[str, None] = {}
        """What all members called `model` say, in capitals, too."""
        self.done = False
        """The object is over. False at the end: the body is not an object."""
        self.broken = False
        """It can't become an object any more."""
        self.hard = False
        """It is made to be hard to read, so reading was given up."""
        self._depth = 0
        self._in_string = False
        self._key: str | None = None
        """Of the member whose value is under way."""
        self._begin = 0
        self._value = bytearray()
        self._kept = 0
        self._carry = b""
        """The end of the last slice, which can't be read without what follows."""
        self._offset = 0
        self._steps = 0

    @property
    def begins(self) -> bool:
        """Nothing was read yet."""
        return not (self._offset or self._carry)

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        if self.done or self.broken or self.hard:
            return
        if self._carry:
            data = self._carry + data
        position, mark = self._read(data)
        if self._key is not None:
            self._keep(self._key, data[mark:position])
        self._carry = data[position:]
        self._offset += position

    def _read(self, data: bytes) -> tuple[int, int]:
        """How far it could be read, and where the part begins that belongs to the current value."""
        position, mark, size = 0, 0, len(data)
        while position < size and not (self.done or self.broken or self.hard):
            self._steps += 1
            if self._steps > self._most:
                self.hard = True
            elif self._in_string:
                position = _end(_IN_STRING, data, position)
                if position == size or data[position] != _QUOTE:
                    break  # the string goes on, or a backslash is the last byte
                position += 1
                self._in_string = False
                if self._depth == 1:
                    self._over(data[mark:position], position)
            elif self._depth > 1:
                position = _end(_NESTED, data, position)
                if position < size:
                    self._bracket(data[position])
                    position += 1
                    if self._depth == 1:
                        self._over(data[mark:position], position)
            elif self._key is not None:  # a number or a word
                position = _end(_SCALAR, data, position)
                if position == size:
                    break
                self._over(data[mark:position], position)
            else:
                found = _KEY.match(data, position) if self._depth else None
                if found is not None:
                    position = mark = found.end()
                    self._key = _text(found[1])
                    self._begin = self._offset + position
                    self._value.clear()
                    if data[position] in _OPENING or data[position] == _QUOTE:
                        self._bracket(data[position])
                        position += 1
                    continue
                position = _end(_SPACE, data, position)
                if position == size or self._outside(data, position):
                    break
                position += 1
        return position, mark

    def _bracket(self, byte: int) -> None:
        if byte == _QUOTE:
            self._in_string = True
        else:
            self._depth += 1 if byte in _OPENING else -1

    def _outside(self, data: bytes, position: int) -> bool:
        """Between two members, or before or after the object. True: more bytes are needed to decide."""
        byte = data[position]
        if self._offset + position < len(_MARK) and byte in _MARK:
            return False
        if self._depth == 0 and byte == ord("{"):
            self._depth = 1
        elif self._depth == 1 and byte == ord("}"):
            self.done = True
        elif self._depth == 1 and byte == _QUOTE:
            self.hard = len(data) - position >= _LONGEST_KEY
            return True
        else:
            self.broken = True
        return False

    def _keep(self, key: str, piece: bytes, *, over: bool = False) -> None:
        if self._names is not None:
            self._names.feed(key, piece, over=over)
        room = (KEPT if key in TALKS else max(SHORT, KEPT - self._kept)) - len(self._value)
        if room > 0:
            self._value += piece[:room]

    def _over(self, piece: bytes, position: int) -> None:
        """The value under way ends with `piece`, at `position`."""
        key, self._key = self._key, None
        assert key is not None
        self._keep(key, piece, over=True)
        size = self._offset + position - self._begin
        if key == "model":
            self.spans.append((self._begin, self._begin + size))
        value = _value(self._value, size)
        if value is None:
            self.members.pop(key, None)
        else:
            self.members[key] = value
            self._kept += len(self._value)
            if isinstance(value, str) and key.lower() == "model":
                self.models[value] = None
            self.hard = len(self.members) > MEMBERS or len(self.models) > ITEMS


def _end(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    found = pattern.match(data, position)
    assert found is not None
    return found.end()


def _text(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""


def _value(kept: bytearray, size: int) -> Any:
    """A member's value, parsed; None if that is impossible. `kept` is the beginning of its `size` bytes."""
    text = kept.decode("utf-8", "replace")
    if len(kept) < size:
        if text.startswith("["):
            return _first_items(text)
        return text[1:] if text.startswith('"') else None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _first_items(text: str) -> list[Any]:
    items: list[Any] = []
    position = 1
    try:
        while len(items) < ITEMS:
            position += len(text[position:]) - len(text[position:].lstrip(" \t\r\n,"))
            item, position = _decoder.raw_decode(text, position)
            items.append(item)
    except (ValueError, RecursionError):  # the next item does not end in what was kept
        items += _cut(text[position:])
    return items


def _cut(text: str) -> list[Any]:
    """An item that goes on behind `text`, if that ends within a long string: a document in a message, say. What is
    short may be an id, of which a part would be another one."""
    closing = ""
    for found in _TOKEN.finditer(text):
        string, ended, bracket = found.groups()
        if bracket is not None:
            closing = _CLOSING[bracket] + closing if bracket in _CLOSING else closing[1:]
        elif not ended:
            try:
                return [json.loads(f'{text[: found.end()]}"{closing}')] if len(string) > SHORT else []
            except (ValueError, RecursionError):
                return []
    return []
