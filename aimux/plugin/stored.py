"""What an upstream keeps for an account (files, batches, stored responses): the ids that a request names, and lists."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from aimux.plugin.reading import plain_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimux.plugin.body import Body
    from aimux.plugin.types import RequestHead

MOST = 1_000
"""Places in a body that may name something: a vector store accepts 500 files at once."""
MOST_PARSED = 256 * 1024
"""Bytes of such lists and objects: they may be nested."""
EVERYBODYS = "*"
"""In place of an id: a request names all that is stored with the account, whoever has stored it."""
LARGEST_PAGE = 100
"""Items that every vendor's lists give at once: all pages but the first ask for this many."""
_SHORTEST = 8
"""Characters of what looks like no id and is one: words and counters of a few are in many paths."""
LONGEST_ID = 512
"""Characters: another gateway writes where a response lies into its id, in base64."""
_ID = re.compile(
    rf"(?=.{{0,{LONGEST_ID}}}\Z)[a-z]{{2,16}}[-_](?=[^0-9A-Z]*[0-9A-Z])[A-Za-z0-9_+=-]{{4,}}"
    "|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
)
_ESCAPED = re.compile(rb"\\(?:u00(2[013-9a-f]|[346][0-9a-f]|5[0-9abdef]|7[0-9a-e])|(/))", re.IGNORECASE)
"""All that may be in an id. Quotes and backslashes stay: what is in a text stays there."""
_TEXT = re.compile(rb'"([!#-\[\]-~]{1,%d})"' % LONGEST_ID)
_WHOLE = re.compile(rb'"(?=[a-z0-9A-F]{2,16}[-_])([A-Za-z0-9_+=-]{8,%d})"' % LONGEST_ID)
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_+=-]+")
_CURSORS = ("after", "after_id", "before", "before_id", "page")


class TooManyReferences(ValueError):
    """A body names so much that searching it would take long."""


def _with_all(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, and what it says under a name that it has twice: servers differ in which they read."""
    read = dict(members)
    return read if len(read) == len(members) else {**read, "": [value for _, value in members]}


_decoder = json.JSONDecoder(object_pairs_hook=_with_all, strict=False)


# --- what a request names --------------------------------------------------------------------------------------------


def ids_in_path(path: str) -> tuple[str, ...]:
    """What looks like the id of something stored (`file-…`, `msgbatch_…`) among a path's segments, for `refers_to`;
    whatever stands beside it in one, as in `file-…:download`."""
    if "%" in path:
        path = unquote(path)
    if "_" not in path and "-" not in path:
        return ()
    return tuple(part for segment in path.split("/")[2:] for part in _NOT_IN_IDS.split(segment) if is_id(part))


def names_in_path(path: str) -> Iterator[str]:
    """What could be ids among a path's segments that look like none: Gemini's are two (`batches/a1b2c3`)."""
    if "/models" not in path:
        parts = unquote(path).split("/")[2:]
        for one in (*parts, *map("/".join, pairwise(parts))):
            if len(one) >= _SHORTEST and not one.isalpha():
                yield one


def ids_in_query(target: str) -> tuple[str, ...]:
    """The same among what a target says behind its path, as `?call_id=` does. Its place in a list is no reference."""
    query = target.partition("?")[2]
    if "_" not in query and "-" not in query and "%" not in query:
        return ()
    told = (part for name, value in parse_qsl(query) if name not in _CURSORS for part in _NOT_IN_IDS.split(value))
    return tuple(filter(is_id, told))


def is_id(text: str) -> bool:
    """Whether a text looks like the id of something stored: a word, followed by what nobody can guess; or a UUID, as
    Mistral's and xAI's are."""
    return _ID.fullmatch(text) is not None


def members(*names: str) -> re.Pattern[bytes]:
    """For `ids_in_body`: finds the members of these names anywhere in a body, each with its name."""
    first = "".join(sorted({name[0] for name in names}))  # most texts differ in it: 0.6 of the time
    return re.compile(rf'"(?=[{re.escape(first)}])({"|".join(map(re.escape, names))})"\s*:\s*'.encode())


def ids_in_body(body: Body, wanted: re.Pattern[bytes]) -> tuple[str, ...]:
    """The ids that a JSON body has in the `wanted` members: as a text, as the `id` of an object, or in a list of these.

    Raises TooManyReferences.
    """
    return tuple({one: None for _, value in values_in_body(body, wanted) for one in ids_of(value)})


def ids_of(value: Any) -> list[str]:
    """What may be ids in a member's value: further within it, what looks like one."""
    named = value if isinstance(value, list) else [value]
    ids = [one.get("id") if isinstance(one, dict) else one for one in named]
    within = [one for one in named if isinstance(one, (dict, list))]
    for one in within:  # it grows
        for other in one.values() if isinstance(one, dict) else one:
            if isinstance(other, (dict, list)):
                within.append(other)
            elif isinstance(other, str) and is_id(other):
                ids.append(other)
    return [one for one in ids if isinstance(one, str) and 0 < len(one) <= LONGEST_ID]


def values_in_body(body: Body, wanted: re.Pattern[bytes]) -> list[tuple[str, Any]]:
    """The short texts, the objects and the lists that a JSON body has in the `wanted` members, with their names.

    It is searched, not parsed: 90 µs for 60 kB of prose, 170 for as much code. Letters that are escaped in it are read
    like others. Raises TooManyReferences.
    """
    data = _readable(body)
    found: list[tuple[str, Any]] = []
    text, parsed = "", 0
    for number, match in enumerate(wanted.finditer(data)):
        name, at = match[1].decode(), match.end()
        if plain := _TEXT.match(data, at):
            found.append((name, plain[1].decode()))
        elif data[at : at + 1] in {b"[", b"{"}:
            text = text or data.decode("latin-1")  # a character for each byte
            try:
                value, end = _decoder.raw_decode(text, at)
            except (ValueError, RecursionError):  # it is cut, or made to be hard to read: not for each server
                value, end = [one for one in map(bytes.decode, _TEXT.findall(data, at)) if is_id(one)], len(text)
            found.append((name, value))
            parsed += end - at
        if number >= MOST or parsed > MOST_PARSED:
            raise TooManyReferences
    return found


def texts_like_ids(body: Body) -> Iterator[str]:
    """All texts of a JSON body that look like ids, whatever they are called and however deep they are."""
    return (one.decode() for one in _WHOLE.findall(_readable(body)))


def _readable(body: Body) -> bytes:
    data = body.decoded()
    if data is None:
        data = body.raw  # what it says of its coding is not true, and some servers don't look at that
    return _ESCAPED.sub(_character, data) if b"\\u00" in data or b"\\/" in data else data


def _character(escape: re.Match[bytes]) -> bytes:
    return escape[2] or bytes.fromhex(escape[1].decode())


# --- lists of it -----------------------------------------------------------------------------------------------------


Lists = Literal["nothing", "own", "refused"]


def lists(request: RequestHead) -> Lists:
    """`Provider.lists`: a GET that names nothing, unless it is for models. What belongs to one thing is its owner's."""
    path = plain_path(request.path)  # an id behind a semicolon is none to a server that reads no further
    if request.method != "GET" or "/models" in path or any(map(is_id, path.split("/")[2:])):
        return "nothing"
    return "own"


class StoredPage(NamedTuple):
    """One page of a list of what an account keeps. `more`: the target of the next one; None: it is the last."""

    items: list[Any]
    more: str | None


def whole_list(target: str) -> str:
    """The target of a list's first page: what the client asked for, without its place in the list."""
    path, _, query = target.partition("?")
    if not any(name in _CURSORS for name, _ in parse_qsl(query, keep_blank_values=True)):
        return target
    kept = _query(query)
    return f"{path}?{kept}" if kept else path


def read_page(target: str, answer: bytes) -> StoredPage | None:
    """The page that is the answer to `target`; None if it is not a list. Mistral's of conversations are bare arrays."""
    page = _value(answer)
    if isinstance(page, list):
        return StoredPage(page, None)
    items = page.get("data")
    if not isinstance(items, list):
        return None
    path, _, query = target.partition("?")
    last = items[-1].get("id") if items and isinstance(items[-1], dict) else None
    place: dict[str, str] = {}
    if isinstance(following := page.get("next_page"), str) and following:
        place = {"page": following}
    elif page.get("has_more") is True and isinstance(last, str):
        # Anthropic's lists give their end under a name that OpenAI's have too, but continue by another one.
        place = {"after_id" if "object" not in page else "after": last}
    return StoredPage(items, f"{path}?{_query(query, limit=str(LARGEST_PAGE), **place)}" if place else None)


def part_of_list(target: str, answer: bytes, items: list[Any]) -> bytes:
    """A page of `items`, which are all that the caller may see, in the form of `answer`: the part that `target` asks
    for by its cursor and its `limit`."""
    page = _value(answer)
    if isinstance(page, list):
        return json.dumps(items).encode()
    asked = dict(parse_qsl(target.partition("?")[2]))
    ids = [item.get("id") if isinstance(item, dict) else None for item in items]
    after = asked.get("after") or asked.get("after_id") or asked.get("page")
    before = asked.get("before") or asked.get("before_id")
    begin = ids.index(after) + 1 if after and after in ids else 0
    end = ids.index(before) if before and before in ids else len(items)
    limit = int(asked["limit"][:9]) if asked.get("limit", "").isdecimal() else len(items)
    part = items[begin:end]
    backwards = before is not None and after is None
    shown = part[-limit:] if backwards and limit else part[:limit]
    more, by_page = len(shown) < len(part), "next_page" in page
    page["data"] = shown
    if "has_more" in page or not by_page:
        page["has_more"] = more
    for name, at in (("first_id", 0), ("last_id", -1)):
        if name in page or not ("object" in page or by_page):
            page[name] = shown[at].get("id") if shown and isinstance(shown[at], dict) else None
    if by_page:  # the client brings it back as `page`
        last = shown[-1] if shown else None
        page["next_page"] = last.get("id") if more and isinstance(last, dict) else None
    if "prev_page" in page:
        page["prev_page"] = None
    return json.dumps(page).encode()


def _query(query: str, **changed: str) -> str:
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in _CURSORS]
    return urlencode([*((name, value) for name, value in kept if name not in changed), *changed.items()])


def _value(answer: bytes) -> dict[str, Any] | list[Any]:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict | list) else {}
