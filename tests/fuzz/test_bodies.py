"""Bodies: what is compressed, and what of a request's is looked at before it goes on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any, TypeGuard

import brotli
import zstandard
from multidict import CIMultiDict

from aimux.gateway.conversations import conversation_of
from aimux.gateway.models import rewrite_model
from aimux.gateway.preview import Preview
from aimux.plugin import GatewayError, RequestHead, TooManyReferences
from aimux.plugin.body import MAX_MODEL, Body
from aimux.plugin.codings import MAX_DECODED, DecodeError, decoder
from aimux.plugin.formats import openai
from aimux.plugin.stored import is_id, part_of_list, read_page

from .harness import fuzz, splits
from .test_answers import PROVIDERS

CODINGS = ("gzip", "deflate", "br", "zstd")
FEW = 64 * 1024


def decoded(coding: str, pieces: list[bytes]) -> tuple[bytes, bool]:
    """What comes out, and whether it came to a fault."""
    one, out = decoder(coding), b""
    try:
        for piece in pieces:
            out += one.decode(piece)
    except DecodeError:
        return out, True
    return out, False


@fuzz("compressed", b"\x1f\x8b\x08\0", b"\x78\x9c", b"(\xb5/\xfd", b"\0", b"\xff" * 8, b"\x8b", b"\x03")
def test_compressed_bytes(data: bytes) -> None:
    """However they are cut, the same comes out of them, or a fault of the one kind that is expected; and never much."""
    for coding in CODINGS:
        results = [decoded(coding, pieces) for pieces in splits(data)]
        assert len({failed for _, failed in results}) == 1, coding
        if not results[0][1]:
            assert len({out for out, _ in results}) == 1, coding
        assert all(len(out) <= MAX_DECODED for out, _ in results)
        previews = []
        for pieces in splits(data):
            preview, seen = Preview(coding, FEW), b""
            for piece in pieces:
                seen += piece
                text = preview.read(seen)
                assert len(text) <= FEW
            previews.append(text if pieces else b"")
        longest = max(previews, key=len)
        assert all(longest.startswith(text) for text in previews), coding


COMPRESS = {
    "": bytes,
    "gzip": lambda data: (c := zlib.compressobj(wbits=31)).compress(data) + c.flush(),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def as_json(data: bytes) -> object:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError):
        return None


@fuzz(
    "bodies",
    b'"model"',
    b'"model":"other",',
    b'"\\u006dodel"',
    b'"Model"',
    b'"messages"',
    b'"input"',
    b'"role":"system"',
    b'"metadata"',
    b'"prompt_cache_key"',
    b"null",
    b"[]",
    b"{}",
    b"1e999",
    b"9" * 5000,
    b"[" * 2000,
    b"\\ud800",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\x0b",
    b"\n",
    b" ",
)
def test_a_requests_body(data: bytes) -> None:
    """Its model is the one that an upstream reads, also where that is found without parsing; a compressed body is no
    different; and with another model it is the same body otherwise."""
    plain, parsed = Body(data), as_json(data)
    if isinstance(parsed, dict):
        wanted = parsed.get("model")
        assert plain.routed_model == (wanted if isinstance(wanted, str) and len(wanted) <= MAX_MODEL else "")
    for coding, compress in COMPRESS.items():
        body = Body(compress(data), coding)
        assert body.json() == plain.json()
        assert isinstance(body.model, str)
        for provider in PROVIDERS:
            head = RequestHead("POST", "/v1/messages", CIMultiDict())
            assert conversation_of(provider, head, body) == conversation_of(provider, head, plain)
        try:
            changed = rewrite_model(body, "new")
        except GatewayError:
            assert not isinstance(parsed, dict), "of what is JSON the model can be replaced"
            continue
        if changed is body:
            continue
        assert changed.encoding == ""
        if isinstance(parsed, dict):
            assert as_json(changed.raw) == parsed | {"model": "new"}
            assert changed.routed_model == "new"
        else:
            assert as_json(changed.raw) is None, "what was no JSON has not become any"


WANTED = ("previous_response_id", "conversation", "container", "file_id", "file_ids", "vector_store_ids")


def ids_in(value: Any) -> Iterator[str]:
    """Those that an upstream sees in a parsed body."""
    if isinstance(value, list):
        for one in value:
            yield from ids_in(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from ids_in(one)
            if name in WANTED:
                found = one.get("id") if isinstance(one, dict) else one
                yield from (each for each in (found if isinstance(found, list) else [found]) if is_named(each))


def is_named(one: object) -> TypeGuard[str]:
    return isinstance(one, str) and is_id(one)


@fuzz(
    "references",
    b'"file_id"',
    b'"container"',
    b'"file_ids":[',
    b'"conversation":{"id":',
    b'"\\u0066ile_id"',
    b'"file-abc1"',
    b'"file\\u002dabc1"',
    b'"id"',
    b'{"a":',
    b"]",
    b"}",
    b",",
    b":",
    b" ",
    b"\n",
    b"\\",
    b'"',
)
def test_what_a_body_names(data: bytes) -> None:
    """Nothing that an upstream would see there is missed, however it is written, or compressed."""
    head = RequestHead("POST", "/v1/responses", CIMultiDict())
    wanted = {*ids_in(as_json(data))}
    for coding, compress in COMPRESS.items():
        try:
            found = openai.refers_to(head, Body(compress(data), coding))
        except TooManyReferences:
            continue
        assert wanted <= {*found}, coding


@fuzz(
    "pages",
    b'"data"',
    b'"object"',
    b'"has_more":true',
    b'"next_page":"x"',
    b'{"id":"file-abc1"}',
    b"null",
    b"[",
    b"{",
    b"]",
    b"}",
    b",",
    b":",
    b"9" * 5000,
    b"\xff",
)
def test_a_list_of_what_is_kept(data: bytes) -> None:
    """Whatever it is, it is gone through or it is no list, and nothing but what is said is in the answer."""
    for target in ("/v1/files", "/v1/files?limit=" + "9" * 5000 + "&after=file-abc1&before_id=x", "/v1/files?page=%ff"):
        page = read_page(target, data)
        if page is None:
            continue
        assert page.more is None or page.more.startswith("/v1/files?")
        own = [item for item in page.items if item == {"id": "file-abc1"}]
        told = json.loads(part_of_list(target, data, own))
        assert all(item in own for item in told["data"])
