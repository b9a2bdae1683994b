"""The models that a request names beside its own: those that may take its place, and what a tool or a plugin asks.

They matter for callers who are bound to some models. A vendor's defaults are not named, and so not seen.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from aimux.plugin.body import MAX_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aimux.plugin.body import Body

LONGEST = 64 * 1024
"""Bytes of a list's item, or of an object, that are read in a large body: in 8 ms at worst."""
_FILE = "input_file_id"
"""OpenAI's member for a batch whose requests, and their models, are in a file."""
_MEMBERS = frozenset(
    {"tools", "plugins", "provideroptions", "session", "requests", "data_source", "testing_criteria", "method"}
    | {_FILE}
)
"""Anthropic's, OpenAI's, OpenRouter's and Vercel's members, in lower case: Go's servers read `Model` as `model`. A
batch's requests, an eval's samples, and graders have models of their own."""
_HISTORY = "input"
"""OpenAI's member whose items may have tools, too (`additional_tools`)."""
_MODEL = "model"
_MODELS = (_MODEL, "models", "fallbacks")
"""What names of members end with that hold models (`analysis_models`, LiteLLM's `context_window_fallbacks`)."""
_FREE = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "enum", "const", "default", "examples"}
    | {"input_examples", "headers", "messages"}
)
"""What has members of anybody's choice: those of schemas and of what is said."""
_TOOLS = re.compile(
    b'"%b"' % b"".join(rb"(?:%c|\\u00(?i:%02x))" % (letter, letter) for letter in b"tools") + rb"\s*+(?::|\Z)"
)
_LONGEST_KEY = 32
_NOTHING = re.compile(r'[^"\[\]{]*+')
"""Between two values, and those that hold no model."""
_UNQUOTED = re.compile(rb"models?'?\s*:")
"""A member as lenient servers (Gson's, fastjson's) read it, too: without quotes or in single ones."""
_PLACE = re.compile("/(?:deployments|engines|models)/", re.IGNORECASE)
"""What stands before a model in a path: Azure's, OpenAI's of old (which LiteLLM serves, too), and Gemini's …"""
_OPERATION = re.compile(r"/(?:(?:chat/)?completions|embeddings|responses|(?:audio|images)/[a-z]+)/?\Z|:[A-Za-z]+\Z")
"""… and behind it."""


def _with_every(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, with a list of all that it says under a name that it has twice: servers differ in which they read."""
    read = dict(members)
    if len(read) < len(members):
        every: dict[str, list[Any]] = {}
        for name, value in members:
            every.setdefault(name, []).append(value)
        read |= {name: values for name, values in every.items() if len(values) > 1}
    return read


_decoder = json.JSONDecoder(object_pairs_hook=_with_every)


class NamedModels:
    """Looks for one that is not allowed: in a document, or in the members of one that goes by in pieces."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self._allowed = allowed
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self.refused = ""
        """What may not be used, in words."""
        self._member = ""
        """The one under way whose value has begun."""
        self._search = False
        """Its value is searched for lists of tools. Else it is read, …"""
        self._listed = False
        """… and this is within a list."""
        self._text = ""
        self._enough = 0
        """Characters with which reading on is worth while."""

    def look(self, body: Body) -> None:
        """Look at a small body. It is only parsed where it may name a model beside its own."""
        raw = body.raw
        if not body.encoding and b"\\u00" not in raw:
            text = raw.lower()
            if (
                text.count(b'model"') <= bool(body.leading_model)
                and not (b'models"' in text or b"fallbacks" in text or b"input_file_id" in text)
                and _UNQUOTED.search(text) is None
            ):
                return
        document = _document(body)
        if not document:
            self.refused = "a body that is no JSON in UTF-8, as your access is bound to some models"
        for member, value in document.items():
            if _is_read(member):
                self._check(member, value)
        for item in _items(document.get(_HISTORY)):
            if isinstance(item, dict) and "tools" in item:
                self._check("tools", item["tools"])

    def feed(self, member: str, piece: bytes, *, over: bool) -> None:
        """The next bytes of a top-level member's value. `over`: it ends with them."""
        if self.refused:
            return
        if not self._member:
            self._search = member == _HISTORY
            if not (self._search or _is_read(member)):
                return
            self._member, self._text, self._listed, self._enough = member, "", False, 0
        self._text += piece.decode("latin-1")  # a character for each byte; models' names are ASCII
        if over or len(self._text) >= self._enough:
            self._read(over=over)
        if over:
            self._member = ""

    def _read(self, *, over: bool) -> None:
        text, position = self._text, 0
        while not self.refused:
            if self._search:
                found = _TOOLS.search(text.encode("latin-1"), position)
                position = max(position, len(text) - _LONGEST_KEY) if found is None else found.start()
                if found is None or found.end() == len(text):
                    break
                position, self._search = found.end(), False
            position = _end_of_nothing(text, position)
            if position == len(text):
                break
            if text[position] == "]":
                position, self._listed = position + 1, False
            elif not self._listed and text[position] == "[":
                position, self._listed = position + 1, True
                continue
            else:
                try:
                    value, position = _decoder.raw_decode(text, position)
                except (ValueError, RecursionError):
                    break
                self._check("tools" if self._member == _HISTORY else self._member, value)
                if self._listed:
                    continue
            self._search = True
        self._text = text[position:]
        self._enough = 2 * len(self._text)
        if len(self._text) > LONGEST or (over and self._text and not self._search):
            self.refused = self.refused or f"what is so long in {self._member}, as your access is bound to some models"

    def _check(self, member: str, value: Any) -> None:
        if member.lower() == _FILE and value:
            self.refused = "a file's requests, as your access is bound to some models"
            return
        for model in _models(member, value):
            if len(model) > MAX_MODEL or not self._allowed(model):
                self.refused = f"the model {model[:MAX_MODEL]!r} in {member}"
                return


def own_models(body: Body) -> Iterator[str]:
    """Those that a small body has under `model`, in capitals or several times: servers differ in which they read."""
    raw, leading = body.raw, body.leading_model
    if not body.encoding and b"\\u00" not in raw and raw.lower().count(b'"model"') <= bool(leading):
        return
    # Where the first is the last, too, no server reads one between them, and what was parsed need not be again.
    document = body.json()
    for member, value in (document if leading and leading == document.get(_MODEL) else _document(body)).items():
        if member.lower() == _MODEL:
            for model in value if isinstance(value, list) else (value,):
                if isinstance(model, str):
                    yield model


def models_in_target(target: str) -> Iterator[str]:
    """Those that the address of a request with a body names. LiteLLM takes these, whatever the body says
    (BerriAI/litellm#41810)."""
    path, _, query = target.partition("?")
    for name, value in parse_qsl(query):
        if name.lower() in _MODELS:
            yield value
    path = unquote(path)
    if (operation := _OPERATION.search(path)) and (place := _PLACE.search(path, 0, operation.start())):
        yield path[place.end() : operation.start()]


def _is_read(member: str) -> bool:
    name = member.lower()
    return name in _MEMBERS or name.endswith(_MODELS)


def _document(body: Body) -> dict[str, Any]:
    """The body; `{}` if it is no JSON object."""
    text = body.text()
    try:
        document = _decoder.decode(text) if text is not None else None
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _items(history: Any) -> Iterator[Any]:
    """Those of a list, or of lists."""
    for item in history if isinstance(history, list) else ():
        yield from item if isinstance(item, list) else (item,)


def _models(member: str, value: Any) -> Iterator[str]:
    left: list[tuple[str, Any]] = [(member, value)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            lists = name.lower().endswith(_MODELS)  # LiteLLM's chains, each under the model before it
            left.extend(
                (name if lists and isinstance(each, list) else inner, each)
                for inner, each in value.items()
                if inner not in _FREE
            )
        elif isinstance(value, list):
            left.extend((name, each) for each in value)
        elif isinstance(value, str) and name.lower().endswith(_MODELS) and (name, value) != ("fallbacks", "default"):
            yield value


def _end_of_nothing(text: str, position: int) -> int:
    found = _NOTHING.match(text, position)
    assert found is not None
    return found.end()
