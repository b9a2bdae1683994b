"""Large bodies: what routing has to know of them is the same, however large or packed they are."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from functools import partial

import pytest
import zstandard
from multidict import CIMultiDict

from aimux.gateway.large_bodies import LARGE, OVERLAP, References
from aimux.gateway.limiting import text_size
from aimux.http import rounds
from aimux.http.unpacking import RATIO
from aimux.plugin.body import Body
from aimux.plugin.types import RequestHead
from tests.gateway.conftest import Aimux, Plain, Start, Upstream, request

from .answers import account_of, body_of, status_of

PADDING = [{"role": "user", "content": f"{number} " + "words and more of them; " * 40} for number in range(600)]
ROUTED = {"alias": {"provider": "plain", "model": "real"}, "default": {"provider": "plain"}}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": partial(gzip.compress, mtime=0),  # the same bytes in each second
    "zstd": zstandard.compress,
}


def large(**members: object) -> bytes:
    raw = json.dumps({"messages": PADDING} | members).encode()
    assert len(raw) > 4 * LARGE
    return raw


async def ask(aimux: Aimux, raw: bytes, coding: str = "") -> bytes:
    headers = f"Content-Encoding: {coding}\r\n" if coding else ""
    return await aimux.send(request(body=PACKED[coding](raw), headers=headers))


@pytest.mark.parametrize("coding", PACKED)
async def test_a_model_behind_everything_else_is_routed_and_replaced(
    start: Start, upstream: Upstream, coding: str
) -> None:
    aimux = await start(models=ROUTED)
    raw = large(model="alias", metadata={"model": "alias"})
    assert status_of(await ask(aimux, raw, coding)) == 200
    sent = upstream.requests[0].partition(b"\r\n\r\n")
    assert sent[2] == raw.replace(b'"model": "alias"', b'"model": "real"', 1)
    assert b"content-encoding" not in sent[0].lower()
    assert "model=alias" in aimux.log


@pytest.mark.parametrize("coding", PACKED)
async def test_what_is_not_changed_goes_up_as_it_came(start: Start, upstream: Upstream, coding: str) -> None:
    aimux = await start(models=ROUTED)
    raw = large(model="other")
    assert status_of(await ask(aimux, raw, coding)) == 200
    assert body_of(upstream.requests[0]) == PACKED[coding](raw)


@pytest.mark.parametrize(
    "raw", [b'{"model": "other"}', large(model="other"), b"no JSON"], ids=["small", "large", "text"]
)
@pytest.mark.parametrize("coding", PACKED)
async def test_an_upstream_that_takes_nothing_packed_gets_it_unpacked(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, coding: str, raw: bytes
) -> None:
    monkeypatch.setattr(Plain, "takes_packed", False)
    aimux = await start()
    for _ in range(2):
        assert status_of(await ask(aimux, raw, coding)) == 200
    for sent in upstream.requests:
        assert body_of(sent) == raw
        assert b"content-encoding" not in sent.lower()
    broken = await aimux.send(request(body=b"broken", headers="Content-Encoding: gzip\r\n"))
    assert status_of(broken) == 400
    assert b"can't be unpacked as its Content-Encoding says" in broken


@pytest.mark.parametrize("coding", PACKED)
async def test_what_was_unpacked_for_another_model_is_not_called_packed_where_the_model_stays(
    start: Start, upstream: Upstream, coding: str
) -> None:
    aimux = await start(models={"alias": [{"provider": "plain"}, {"provider": "plain", "model": "real"}]})
    raw = large(model="alias")
    assert status_of(await ask(aimux, raw, coding)) == 200
    assert body_of(upstream.requests[0]) == raw
    assert b"content-encoding" not in upstream.requests[0].lower()


@pytest.mark.parametrize("coding", ["gzip", "zstd", "snappy"])
async def test_what_can_not_be_unpacked_is_no_matter_of_its_size(start: Start, upstream: Upstream, coding: str) -> None:
    """A client says of a 413 that the conversation is too long."""
    aimux = await start(models=ROUTED)
    answer = await aimux.send(request(body=b'{"model": "alias"}', headers=f"Content-Encoding: {coding}\r\n"))
    assert status_of(answer) == 400
    assert b"can't be unpacked as its Content-Encoding says" in answer
    assert not upstream.requests


async def test_a_conversation_stays_where_it_is_while_it_grows(start: Start, upstream: Upstream) -> None:
    aimux = await start(accounts=("one", "two", "three"))
    for messages in (PADDING[:1], PADDING[:2], PADDING, PADDING + PADDING):
        for _ in range(3):
            await aimux.send(request(body=json.dumps({"model": "m", "messages": messages}).encode()))
    assert len({account_of(sent) for sent in upstream.requests}) == 1


HARD = {
    "brackets": b'{"model":"other","a":[' + b"[[[0]]]," * 400_000 + b"0]}",
    "members": b'{"model":"other",' + b",".join(b'"%d":0' % number for number in range(40_000)) + b"}",
    "a key": b'{"' + b"k" * 2 * LARGE + b'":0,"model":"other"}',
}


@pytest.mark.parametrize("raw", HARD.values(), ids=HARD)
async def test_where_the_model_decides_it_has_to_be_readable(start: Start, upstream: Upstream, raw: bytes) -> None:
    aimux = await start(models=ROUTED)
    answer = await ask(aimux, raw)
    assert status_of(answer) == 400
    assert b"can't be read" in answer
    assert upstream.requests == []


@pytest.mark.parametrize("raw", [b"--boundary\r\n" * LARGE, b'{"model":"alias",' + b"x" * LARGE, b"\0" * 2 * LARGE])
async def test_what_is_no_json_object_names_no_model(start: Start, upstream: Upstream, raw: bytes) -> None:
    """An upload, or what is the upstream's to refuse."""
    aimux = await start(models=ROUTED)
    assert status_of(await ask(aimux, raw)) == 200
    assert upstream.requests[0].endswith(raw)
    assert "model=-" in aimux.log


ODD = {
    "a mark of byte order": b'\xef\xbb\xbf{"x": 1, "model": "alias"}',
    "a byte that is no UTF-8": b'{"x": "\xff", "model": "alias"}',
    "a byte that is no UTF-8, behind it": b'{"model": "alias", "x": "\xff"}',
    "half of a character": b'{"x": "\xed\xa0\x80", "model": "alias"}',
    "something behind it": b'{"x": 1, "model": "alias"} and more',
    "brackets": b'{"x": %b, "model": "alias"}' % (b"[" * 5_000 + b"]" * 5_000),
    "a number": b'{"x": %b, "model": "alias"}' % (b"9" * 6_000),
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
async def test_what_a_lenient_server_reads_is_routed_by_its_model(start: Start, upstream: Upstream, raw: bytes) -> None:
    aimux = await start(models=ROUTED)
    assert status_of(await ask(aimux, raw)) == 200
    assert body_of(upstream.requests[0]) == raw.replace(b'"alias"', b'"real"')
    assert "model=alias" in aimux.log


@pytest.mark.parametrize("raw", [b'{"model": "alias", "x": %b}' % (b"[" * 50_000), b'{"model": "alias", "x": 0x1}'])
async def test_a_model_that_can_not_be_replaced_is_not_asked_for(start: Start, upstream: Upstream, raw: bytes) -> None:
    """It may be the name of one that the upstream has, too."""
    aimux = await start(models=ROUTED)
    answer = await ask(aimux, raw)
    assert (status_of(answer), upstream.requests) == (400, [])
    assert b"stands for another model" in answer


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
async def test_where_the_model_decides_a_body_has_to_be_in_utf_8(
    start: Start, upstream: Upstream, encoding: str
) -> None:
    """Python's servers read the others, too."""
    aimux = await start(models=ROUTED)
    answer = await ask(aimux, '{"model": "other"}'.encode(encoding))
    assert (status_of(answer), upstream.requests) == (400, [])
    assert b"is not in UTF-8" in answer


@pytest.mark.parametrize(
    "headers", ["Content-Encoding: gzip\r\nContent-Encoding: zstd\r\n", "Content-Encoding: gzip,zstd\r\n"]
)
async def test_a_body_may_be_packed_twice(start: Start, upstream: Upstream, headers: str) -> None:
    aimux = await start(models=ROUTED)
    raw = zstandard.compress(gzip.compress(b'{"x": 1, "model": "alias"}'))
    assert status_of(await aimux.send(request(body=raw, headers=headers))) == 200
    assert upstream.requests[0].endswith(b'{"x": 1, "model": "real"}')


@pytest.mark.parametrize("coding", ["gzip", "aws-chunked", "utf-8"])
async def test_a_coding_that_is_none_hides_no_model(start: Start, upstream: Upstream, coding: str) -> None:
    """Servers that don't know of codings read what is there."""
    aimux = await start(limits={"default": {"models": {"dear": {"requests_per_minute": 0}}}})
    raw = b'{"x": 1, "model": "dear"}'
    answer = await aimux.send(request(body=raw, headers=f"Content-Encoding: {coding}\r\n"))
    assert (status_of(answer), upstream.requests) == (429, [])


async def test_a_bomb_is_not_unpacked_to_its_end(start: Start, upstream: Upstream) -> None:
    aimux = await start(models=ROUTED)
    bomb = gzip.compress(b'{"model":"other","a":"' + b"x" * 50_000_000 + b'"}')
    answer = await aimux.send(request(body=bomb, headers="Content-Encoding: gzip\r\n"))
    assert status_of(answer) == 400
    assert f"more than {RATIO} times".encode() in answer


async def test_meanwhile_others_are_served(start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    aimux = await start(models=ROUTED)
    slow, served = large(model="other"), asyncio.Event()
    through = rounds.through

    async def after_others(steps: object) -> None:
        await served.wait()
        await through(steps)  # type: ignore[arg-type]

    monkeypatch.setattr("aimux.gateway.large_bodies.through", after_others)
    waiting = asyncio.create_task(ask(aimux, slow))
    assert status_of(await aimux.send(request())) == 200
    served.set()
    assert status_of(await waiting) == 200


@pytest.mark.parametrize(
    "text",
    [
        '{"file": "file-123"}',
        '{"file":%s"file-123"}' % (" " * 9000),
        '{"file": "file\\u002d12\\u0033"}',
        '"é"{"file":"file-123"}',
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100, 4096])
@pytest.mark.parametrize("of_it", [0, 1, 3, 14, 20])
def test_a_reference_is_found_wherever_a_slice_ends(text: str, size: int, of_it: int) -> None:
    """`of_it`: its bytes in what is searched first."""

    class Filing(Plain):
        def refers_to(self, request: RequestHead, body: Body) -> tuple[str, ...]:
            seen = body.text()
            assert seen is not None
            return ("file-123",) if '"file": "file-123"' in seen or '"file":"file-123"' in seen else ()

    references = References(RequestHead("POST", "/", CIMultiDict()), Filing(Plain.Settings()))
    data = "é".encode() * (OVERLAP // 2) + b" " * (OVERLAP - of_it) + text.encode() + b"x" * OVERLAP
    for begin in range(0, len(data), size):
        references.feed(data[begin : begin + size])
    references.search()
    assert [*references.found] == ["file-123"]


def test_images_are_no_text() -> None:
    text = json.dumps(PADDING).encode()
    image = b'{"type":"base64","data":"' + b"QUJD" * 250_000 + b'"}'
    assert text_size(text) == len(text)
    assert 0.9 * len(text) < text_size(text + image) < 1.6 * len(text)
    many = text_size((text + image) * 20)
    assert 18 * len(text) < many < 32 * len(text)
    turn = text[:60_000]
    assert text_size(turn) == len(turn)
    assert 0.9 * len(turn) < text_size(turn + image[:100_000]) < 1.6 * len(turn)


@pytest.mark.parametrize("piece", [b"A" * 1023 + b" ", b"base64", b"A", b" "])
def test_to_tell_that_takes_no_time(piece: bytes) -> None:
    body = b"base64" + piece * (20_000_000 // len(piece))
    began = time.thread_time()
    assert text_size(body) <= len(body)
    assert time.thread_time() - began < 0.1
