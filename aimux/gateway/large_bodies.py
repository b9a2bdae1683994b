"""Reading large bodies for what routing has to know, without keeping anybody else waiting."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import TYPE_CHECKING, Final

from aimux.compiling import mypyc_attr
from aimux.gateway.outline import SLICE, Outline
from aimux.http.rounds import through
from aimux.http.unpacking import RATIO, most_of
from aimux.plugin.body import Body
from aimux.plugin.codings import DecodeError, TooLarge, unpacked
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.stored import MOST, TooManyReferences, ids_in_query, names_in_path, texts_like_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aimux.gateway.named_models import NamedModels
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import RequestHead

LARGE: Final = 128 * 1024
"""Unpacked bytes of a body that is parsed at once: in 15 ms at worst, in 0.4 ms if it is a conversation."""
MOST_AT_ONCE: Final = 100_000
"""Steps of an outline that is read at once: 60 ms at worst."""
MOST_UNPACKED = 64 * 1024 * 1024
OVERLAP = 32 * 1024
"""Bytes of the text before a slice that are searched with it: longer than a reference, or a list of 500."""
TOO_MANY = "This request names more stored files and the like than can be looked at."
_UNSEEN = (
    "What this request names of stored files and the like can't be read: its body is not in UTF-8, or unpacks to more "
    f"than {RATIO} times its size."
)
_WHITE = re.compile(rb"\s{2,}")
_BEFORE = b"\0 \t\r\n\xfe\xff"
_ESCAPED = re.compile(rb"\\u00([2-7][0-9a-fA-F])")


class Large(Body):
    """An unpacked body that is sent as it is, except for its model. `spans`: where the model is; `text`: not as JSON,
    but as it is."""

    def __init__(self, raw: bytes, spans: list[tuple[int, int]], *, text: bool = False) -> None:
        super().__init__(raw)
        self.spans = spans
        self.text_model = text


@mypyc_attr(allow_interpreted_subclasses=True)
class Skimmed:
    """What is known of a large body."""

    def __init__(self, outline: Outline, references: tuple[str, ...]) -> None:
        self._outline = outline
        self.summary = Body(json.dumps(outline.members).encode() if outline.done or outline.hard else b"")
        """A small body in its place, for code that looks into bodies: its short members and the first items of
        lists."""
        self.references = references

    @property
    def model(self) -> str:
        """The model as the upstream reads it. Raises GatewayError if that is unclear: it could be any."""
        if self._outline.hard:
            raise GatewayError(
                ErrorKind.BAD_REQUEST,
                "The model that this request asks for can't be read: its body is made to be hard to read, is not in "
                f"UTF-8, or unpacks to more than {RATIO} times its size.",
                retry=False,
            )
        return self.summary.routed_model

    @property
    def models(self) -> Iterable[str]:
        """All that are named in its place: servers differ in which they read."""
        return self._outline.models

    async def changeable(self, body: Body) -> Large:
        """The body, readied for another model. GatewayError 413 if it unpacks to too much, 400 if not at all."""
        return Large((await plain(body)).raw if body.encoding else body.raw, self._outline.spans)


async def plain(body: Body) -> Body:
    """A compressed body, unpacked. GatewayError 413 if it unpacks to too much, 400 if not at all."""
    pieces: list[bytes] = []
    try:
        await through(map(pieces.append, unpacked(body.raw, body.encoding, _most(body))))
    except TooLarge as error:
        raise GatewayError(
            ErrorKind.TOO_LARGE, f"The request's body {error}; send it uncompressed.", retry=False
        ) from None
    except DecodeError:
        raise GatewayError(
            ErrorKind.BAD_REQUEST,
            "The request's body can't be unpacked as its Content-Encoding says; send it uncompressed.",
            retry=False,
        ) from None
    return Body(b"".join(pieces))


def is_large(body: Body) -> bool:
    """Whether it has to be skimmed."""
    if len(body.raw) > LARGE or not body.encoding:
        return len(body.raw) > LARGE
    size = 0
    try:
        for piece in unpacked(body.raw, body.encoding):
            size += len(piece)
            if size > LARGE:
                return True
    except DecodeError:
        pass
    return False


def message_model(raw: bytes, *, decisive: bool) -> str:
    """The model that a socket's message names. `decisive`: as the upstream reads it; GatewayError if that is unclear.

    It is found at once, so a large message is read no further than it may name a model: of 1 MB the first part takes 4
    ms, all of it 20.
    """
    if len(raw) <= LARGE:
        body = Body(raw)
        if (model := body.routed_model) or body.json() or not decisive:
            return model
    outline = Outline(MOST_AT_ONCE)
    for begin in range(0, len(raw), SLICE):
        if begin == LARGE and not (decisive and _may_follow(raw, begin)):
            return Body(json.dumps(outline.members).encode()).model
        outline.feed(raw[begin : begin + SLICE])
    return Skimmed(outline, ()).model


def _may_follow(raw: bytes, begin: int) -> bool:
    """Whether a model could be named from there on."""
    begin -= 8
    return raw.find(b'"model"', begin) >= 0 or raw.find(b"\\u006", begin) >= 0


async def skim(
    body: Body,
    head: RequestHead,
    provider: Provider | None,
    names: NamedModels | None = None,
    others: Callable[[str], bool] | None = None,
) -> Skimmed:
    """Read a large body once. `provider`: recognizes references, if anybody needs them, `others` as in
    `references_of`; so does `names` models."""
    outline = Outline(names=names)
    references = References(head, provider, others) if provider is not None else None
    await through(_steps(body, outline, references))
    if references is None:
        return Skimmed(outline, ())
    references.search()
    skimmed = Skimmed(outline, ())
    # A member at the top may be longer than what is searched at once.
    at_top = references_of(references.provider, head, skimmed.summary)
    skimmed.references = (*dict.fromkeys((*references.found, *at_top)),)
    return skimmed


def references_of(
    provider: Provider, head: RequestHead, body: Body, others: Callable[[str], bool] | None = None
) -> tuple[str, ...]:
    """`Provider.refers_to`, and what a query names. `others` tells which texts are ids of what is known to be another
    user's: these count wherever they stand, under names that no provider knows, too.

    Raises GatewayError where the body is made to be hard to read."""
    try:
        found = provider.refers_to(head, body) + ids_in_query(head.target)
    except TooManyReferences:
        raise GatewayError(ErrorKind.BAD_REQUEST, TOO_MANY, retry=False) from None
    return found if others is None else (*found, *filter(others, chain(names_in_path(head.path), texts_like_ids(body))))


def _most(body: Body) -> int:
    return min(MOST_UNPACKED, most_of(len(body.raw)))


def _steps(body: Body, outline: Outline, references: References | None) -> Iterator[None]:
    try:
        pieces = unpacked(body.raw, body.encoding, _most(body)) if body.encoding else iter([body.raw])
        yield from _read(pieces, outline, references)
    except TooLarge:
        _give_up(outline, references)
    except DecodeError:  # what it says of its coding is not true, and some servers don't look at that
        outline.restart()
        yield from _read([body.raw], outline, references)


def _read(pieces: Iterable[bytes], outline: Outline, references: References | None) -> Iterator[None]:
    for piece in pieces:
        for begin in range(0, len(piece), SLICE):
            data = piece[begin : begin + SLICE]
            if outline.begins and b"\0" in data[:4] and data.strip(b"\0") and data.lstrip(_BEFORE)[:1] in b"{[":
                _give_up(outline, references)  # UTF-16 or UTF-32, which a few servers read
            outline.feed(data)
            if references is not None:
                references.feed(data)
            yield


def _give_up(outline: Outline, references: References | None) -> None:
    """Part of it can't be read. Raises GatewayError where that part could name what others have stored."""
    outline.hard = True
    if references is not None:
        raise GatewayError(ErrorKind.BAD_REQUEST, _UNSEEN, retry=False)


class References:
    """Ids that a provider finds in a text which goes by in slices."""

    def __init__(self, head: RequestHead, provider: Provider, others: Callable[[str], bool] | None = None) -> None:
        self.found: dict[str, None] = {}
        self.provider = provider
        self._head = head
        self._others = others
        self._before = b""
        self._new = bytearray()

    def feed(self, data: bytes) -> None:
        """The next bytes. They are searched when there are enough of them, so that each is looked at twice at most."""
        self._new += data
        if len(self._new) >= OVERLAP:
            self.search()

    def search(self) -> None:
        """White space and escapes, which could put an id out of sight, are taken out first."""
        text = _WHITE.sub(b" ", _ESCAPED.sub(_character, self._before + self._new))
        self._new.clear()
        seen = Body(text.decode("utf-8", "ignore").encode())  # a slice may begin within a character
        self.found.update(dict.fromkeys(references_of(self.provider, self._head, seen, self._others)))
        if len(self.found) > MOST:
            raise GatewayError(ErrorKind.BAD_REQUEST, TOO_MANY, retry=False)
        self._before = text[-OVERLAP:]


def _character(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[1].decode())
