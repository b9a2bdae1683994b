"""YAML (and with it JSON) as plain data that knows the line of everything in it.

Built from PyYAML's events and not by its loaders: libyaml's composer overflows the C stack on deep nesting, SafeLoader
accepts duplicate keys, and YAML 1.1 does not take `no`, `12:30` and dates for text. Scalars follow YAML
1.2's core schema instead. PyYAML's messages don't pass as they are: they can quote a line, which can hold a token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml: 15 times slower, and the same otherwise
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aimux.config.problems import Where

MAX_DEPTH = 32
MAX_ALIASED = 10_000
"""How many values aliases may stand for in total: anchors save typing, an alias bomb doubles itself."""

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_TAG = "tag:yaml.org,2002:"
_TYPES: list[tuple[str, re.Pattern[str], Callable[[str], Any]]] = [
    ("null", _NULL, lambda _: None),
    ("bool", _BOOL, lambda text: text.lower() == "true"),
    ("int", _INT, lambda text: int(text, 0) if text[:2] in {"0o", "0x"} else int(text)),
    ("float", _FLOAT, float),
    ("str", re.compile(r".*", re.DOTALL), str),
]


@dataclass(slots=True)
class Fault:
    """Something wrong with the text itself."""

    path: Where
    line: int | None
    message: str
    remedy: str = ""


@dataclass(slots=True)
class Document:
    """`data` as read, `lines` the line of each path in it (counted from 1), `faults` in the text's order."""

    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Where, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


class _Unreadable(Exception):
    """Reading can't go on behind this point."""

    def __init__(self, line: int | None, message: str, remedy: str = "") -> None:
        self.fault = Fault((), line, message, remedy)


def read_document(text: str) -> Document:
    """Read a whole file's text. Never raises: what is wrong with it is in `faults`."""
    document = Document()
    try:
        data = _Reader(text, document).read()
    except _Unreadable as unreadable:
        document.faults.append(unreadable.fault)
    except yaml.MarkedYAMLError as error:
        document.faults.append(_syntax_fault(error, text))
    except yaml.reader.ReaderError:
        document.faults.append(Fault((), None, "holds a character that YAML does not allow", "save it as plain UTF-8"))
    else:
        if isinstance(data, dict):
            document.data = data
        elif data is not None:
            document.faults.append(Fault((), 1, "is not a mapping of names to values", "begin with: listen: …"))
    return document


def _syntax_fault(error: yaml.MarkedYAMLError, text: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    lines = text.splitlines()
    if line < len(lines) and lines[line].startswith("\t"):
        return Fault((), line + 1, "is indented with a tab", "YAML is indented with spaces only")
    # libyaml and PyYAML word the same problem with and without a quote from the text: without, then.
    problem = re.sub(r", but (got|found) '[^']*'$", "", error.problem or "can't be read")
    if error.context:
        problem = f"{problem} {error.context}"
    return Fault((), line + 1, f"is not valid YAML: {problem}", "a value with special characters goes in quotes")


class _Reader:
    """Recursive descent over the events, as deep as MAX_DEPTH. `_anchors`: what each stands for, and how many
    values that is."""

    def __init__(self, text: str, document: Document) -> None:
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=_Loader))
        self._document = document
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0
        self._aliased = 0

    def read(self) -> Any:
        data: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Unreadable(_line(event), "holds a second YAML document", "remove it, with its `---`")
                data = self._value(next(self._events), ())
        return data

    def _fault(self, path: Where, event: yaml.Event, message: str, remedy: str = "") -> None:
        self._document.faults.append(Fault(path, _line(event), message, remedy))

    def _value(self, event: yaml.Event, path: Where) -> Any:
        if len(path) > MAX_DEPTH:
            raise _Unreadable(_line(event), f"is nested more than {MAX_DEPTH} levels deep")
        self._count += 1
        # A mapping's entry has the line of its key already.
        self._document.lines.setdefault(path, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._count
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                value.append(self._value(item, (*path, len(value))))
        else:
            value = self._mapping(path)
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = (value, self._count - before + 1)
        return value

    def _alias(self, event: yaml.AliasEvent) -> Any:
        # The alias's name stays out of the message: an unquoted secret that begins with `*` looks like one.
        if event.anchor not in self._anchors:
            remedy = "a value that begins with `*` goes in quotes"
            raise _Unreadable(_line(event), "refers to a YAML anchor that is not there (yet)", remedy)
        value, size = self._anchors[event.anchor]
        self._count += size
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            raise _Unreadable(_line(event), f"YAML aliases stand for more than {MAX_ALIASED} values")
        return value

    def _mapping(self, path: Where) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise _Unreadable(
                    _line(key), "has a key that is not text", "a value that begins with `{` goes in quotes"
                )
            if key.value == "<<" and key.implicit[0]:
                merged = self._merge(key, path) | merged
                continue
            name = key.value
            here = (*path, name)
            if name in own:
                first = self._document.lines[here]
                self._fault(here, key, f"is given twice, first on line {first}", "keep one of them")
            self._document.lines[here] = _line(key)
            own[name] = self._value(next(self._events), here)
        return merged | own

    def _merge(self, key: yaml.Event, path: Where) -> dict[str, Any]:
        value = self._value(next(self._events), (*path, "<<"))
        merged: dict[str, Any] = {}
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                merged = part | merged
            else:
                self._fault(path, key, "`<<` merges something that is no mapping", "give it an alias of a mapping")
        return merged

    def _scalar(self, event: yaml.ScalarEvent, path: Where) -> Any:
        text: str = event.value
        if event.tag is None or event.tag == "!":
            if not event.implicit[0]:  # quoted, or a block
                return text
            return next(convert(text) for _, pattern, convert in _TYPES if pattern.fullmatch(text))
        for name, pattern, convert in _TYPES:
            if event.tag == _TAG + name and pattern.fullmatch(text):
                return convert(text)
        self._fault(path, event, "has a YAML tag that is unknown or does not fit", "put the value in quotes")
        return None


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark else 1
