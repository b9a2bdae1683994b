"""The model that a form names (`multipart/form-data`: pictures to edit, speech to write down), read in slices.

Only what every server reads in the same way is read: one field `model`, in parts as RFC 7578 has them. Another form's
model is unclear.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aimux.gateway.large_bodies import TOO_MANY, Large, Skimmed, is_large, references_of, skim
from aimux.gateway.outline import Outline
from aimux.http.head import CONTENT_TYPE
from aimux.http.rounds import through
from aimux.plugin.body import MAX_MODEL
from aimux.plugin.codings import DecodeError, unpacked
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.stored import MOST, is_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aimux.plugin.body import Body
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Headers, RequestHead

SLICE: Final = 1024 * 1024
"""Bytes that are searched at once for a boundary: in 0.3 ms."""
FIELDS_SLICE: Final = 8 * 1024
"""Bytes that are searched at once for fields: in 2 ms if each is a line's end, else in 0.01."""
LONGEST_FIELD: Final = 256
"""Bytes of a field that may be an id, and of the blank line before it."""
MAX_PARTS: Final = 1_000
MODEL: Final = b"model"
SESSION: Final = b"session"
"""The field of a call (`/v1/realtime/calls`) that has the model in it; no other may say one."""
MAX_PART_HEAD: Final = 4 * 1024

_TYPE = re.compile(
    r'multipart/form-data;\s*boundary=(?:"([^"\\]{1,70})"|([A-Za-z0-9\'()+_,\-./:=?]{1,70}))(?:;\s*charset="?utf-8"?)?',
    re.IGNORECASE,
)
_QUOTED = rb'"[^"\\\r\n]*"'
_DISPOSITION = re.compile(
    rb"content-disposition:[ \t]*form-data;[ \t]*name=(%b|[\w.\[\]-]+)"
    rb'((?:;[ \t]*filename\*?=(?:%b|[^";\r\n]*))*)[ \t]*' % (_QUOTED, _QUOTED),
    re.IGNORECASE,
)
_ELSE = re.compile(
    rb"content-(?:type:[^\r\n]*|length:[ \t]*[0-9]+|transfer-encoding:[ \t]*(?:binary|[78]bit))[ \t]*", re.IGNORECASE
)


_ALONE = re.compile(rb"\n\r?\n[ \t]*+([a-z][\w-]{1,127})[ \t]*\r?\n--", re.ASCII)
"""What may be the whole value of a field. Nothing else of a form is looked at: servers read names in many ways."""


def is_form(headers: Headers) -> bool:
    """Whether any server may take the body for one: some read the last of two types."""
    return any("multipart/" in one.lower() for one in headers.getall(CONTENT_TYPE, ()))


class Form(Skimmed):
    """A form instead of an object. `references` as in any other body."""

    def __init__(self, spans: list[tuple[int, int]], found: str | None, references: tuple[str, ...]) -> None:
        """`found` None: the model is unclear."""
        outline = Outline()
        outline.done = True
        if found:
            outline.members["model"] = found
        super().__init__(outline, references)
        self._spans = spans
        self._clear = found is not None

    @property
    def model(self) -> str:
        if not self._clear:
            raise GatewayError(
                ErrorKind.BAD_REQUEST,
                "The model that this request asks for can't be read: its form is not one that every server reads in "
                "the same way.",
                retry=False,
            )
        return self.summary.model

    async def changeable(self, body: Body) -> Large:
        return Large(body.raw, self._spans, text=True)


async def read_form(
    body: Body, head: RequestHead, provider: Provider | None, others: Callable[[str], bool] | None = None
) -> Form:
    """What a form says of its model; a compressed one is unclear. `provider`: recognizes references, if anybody needs
    them, `others` as in `references_of`."""
    headers, reader = head.headers, _Reader()
    references: tuple[str, ...] = ()
    if provider is not None:
        if is_large(body):
            references = (await skim(body, head, provider, others=others)).references
        else:
            references = references_of(provider, head, body, others)
        fields: dict[str, None] = {}
        await through(_ids_in_fields(body, fields))
        references += tuple(fields)
    boundary = _TYPE.fullmatch(headers.get("content-type", "").strip())
    if boundary is not None and not body.encoding and len(headers.getall("content-type")) == 1:
        await through(reader.steps(body.raw, b"--" + (boundary[1] or boundary[2]).encode("utf-8", "surrogateescape")))
    spans = reader.spans
    found: str | None = None
    if reader.whole and len(spans) <= 1 and not (spans and reader.session):
        found = body.raw[slice(*spans[0])].decode("utf-8", "replace") if spans else ""
        if len(found) > MAX_MODEL:
            found = None
    return Form(spans, found, references)


def _ids_in_fields(body: Body, found: dict[str, None]) -> Iterator[None]:
    """Add the ids that are fields of a form, as `file_id` and `video[id]` are."""
    try:
        yield from _search(unpacked(body.raw, body.encoding) if body.encoding else [body.raw], found)
    except DecodeError:  # what it says of its coding is not true, and some servers don't look at that
        yield from _search([body.raw], found)


def _search(pieces: Iterable[bytes], found: dict[str, None]) -> Iterator[None]:
    before = b""
    for piece in pieces:
        for begin in range(0, len(piece), FIELDS_SLICE):
            data = before + piece[begin : begin + FIELDS_SLICE]
            found.update((one.decode(), None) for one in _ALONE.findall(data) if is_id(one.decode()))
            if len(found) > MOST:
                raise GatewayError(ErrorKind.BAD_REQUEST, TOO_MANY, retry=False)
            before = data[-LONGEST_FIELD:]
            yield


class _Reader:
    """`spans`: where the values of the fields called `model` are. `whole`: every part could be read, to the end.
    `session`: there is such a field."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.whole = False
        self.session = False

    def steps(self, raw: bytes, boundary: bytes) -> Iterator[None]:
        """Read it, a slice at a time."""
        if not raw.startswith(boundary):
            return
        line, at = b"\r\n" + boundary, len(boundary)
        for _ in range(MAX_PARTS):
            if raw.startswith(b"--", at):
                self.whole = not raw[at + 2 :].strip()
                return
            head = raw.find(b"\r\n\r\n", at, at + MAX_PART_HEAD)
            if not raw.startswith(b"\r\n", at) or head < 0:
                return
            name = _name(raw[at + 2 : head])
            if name is None:
                return
            begin = head + 4
            end, searched = -1, begin - 2  # an empty part's line end may be its head's
            while end < 0 and searched < len(raw):
                end = raw.find(line, searched, searched + SLICE + len(line))
                searched += SLICE
                yield
            if end < begin:
                return
            if name == MODEL:
                self.spans.append((begin, end))
            self.session |= name == SESSION
            at = end + len(line)


def _name(head: bytes) -> bytes | None:
    """The name in a part's head; None: it says what not every server reads."""
    found: bytes | None = None
    for line in head.split(b"\r\n"):
        if disposition := _DISPOSITION.fullmatch(line):
            name = disposition[1].strip(b'"')
            if found is not None or (name == MODEL and disposition[2]):
                return None
            found = name
        elif not _ELSE.fullmatch(line):
            return None
    return found
