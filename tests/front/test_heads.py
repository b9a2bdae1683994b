"""Heads with more than one reading, or too much of it: refused before anybody is asked."""

from __future__ import annotations

import tracemalloc

import pytest
from multidict import CIMultiDict

from aimux.gateway.conversations import conversation_of
from aimux.gateway.headers import NEVER_TO_CLIENT, to_client, to_upstream
from aimux.http.head_reader import HeadReader
from aimux.http.request import parse_request_head
from aimux.metering.record import TOLD
from aimux.plugin import Body, ProviderSettings, RequestHead
from tests.gateway.conftest import Plain

from .conftest import SMUGGLED, TOKEN, Aimux, StrictUpstream, ask, head, must_refuse

PATH = "POST /plain/v1/chat HTTP/1.1"


def with_line(*lines: str) -> bytes:
    return head(PATH, *lines, "Content-Length: 5", close=True) + b"hello" + SMUGGLED


REFUSED = {
    **{
        f"a header line {line!r}": with_line(line)
        for line in (
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "Transfer-Encoding\x00: chunked",
            "Transfer\xadEncoding: chunked",
            "Transfer-Encoding\xa0: chunked",
            "Transfer-Encoding\x0b: chunked",
            "\x00Transfer-Encoding: chunked",
            "\tTransfer-Encoding: chunked",
            "Transfer-Encoding; chunked",
            "Transfer Encoding: chunked",
            "X-A: a\nTransfer-Encoding: chunked",
            "X-A: a\rTransfer-Encoding: chunked",
            "X-A: a\r\n folded",
            "X-A: a\x00b",
            "X-A: a\x01b",
            "X-A: a\x7fb",
            "no colon",
            ": no name",
            "X(A): b",
            "Host: other",
        )
    },
    "line feeds alone": with_line().replace(b"\r\n", b"\n"),
    "a line feed alone at the end": with_line().replace(b"\r\n\r\nhello", b"\r\n\nhello"),
    "a second carriage return": with_line().replace(b"\r\n\r\nhello", b"\r\n\r\r\nhello"),
    "no host": with_line().replace(b"Host: gateway\r\n", b"", 1),
    **{
        f"the line {line!r}": head(line, close=True) + SMUGGLED
        for line in (
            " POST /plain/v1/chat HTTP/1.1",
            "POST\t/plain/v1/chat\tHTTP/1.1",
            "POST /plain/v1/chat x HTTP/1.1",
            "POST /plain/v1/chat HTTP/1.1 ",
            "POST  /plain/v1/chat HTTP/1.1",
            "POST /plain/v1/chat  HTTP/1.1",
            "POST /plain/v1/chat HTTP/1.1\n",
            "POST /plain/v1/chat HTTP/1.1\rX: y",
            "POST /plain/v1/chat HTTP/0.9",
            "POST /plain/v1/chat HTTP/1.2",
            "POST /plain/v1/chat HTTP/1.10",
            "POST /plain/v1/chat HTTP/2.0",
            "POST /plain/v1/chat http/1.1",
            "POST /plain/v1/chat",
            "post /plain/v1/chat HTTP/1.1",
            "P@ST /plain/v1/chat HTTP/1.1",
            "CONNECT /plain/v1/chat HTTP/1.1",
            "CONNECT gateway:443 HTTP/1.1",
            "TRACE /plain/v1/chat HTTP/1.1",
            "OPTIONS * HTTP/1.1",
        )
    },
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "too many headers": head(PATH, *(f"X-{n}: 1" for n in range(200)), close=True),
    "a header that is too long": head(PATH, "X-A: " + "a" * 40_000, close=True),
    "a header's name that is too long": head(PATH, "a" * 40_000 + ": x", close=True),
    "a target that is too long": head(f"GET /plain/v1/{'a' * 40_000} HTTP/1.1", close=True),
    "endless headers": head(PATH, *("X-A: b" for _ in range(200_000)), close=True),
    "headers that are too long together": head(PATH, *(f"X-{n}: {'a' * 30_000}" for n in range(3)), close=True),
    "line ends without end": b"\r\n" * 40_000,
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
async def test_it_is_refused(aimux: Aimux, upstream: StrictUpstream, request_: bytes) -> None:
    await must_refuse(aimux, upstream, request_)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_what_no_path_serves_is_not_implemented(aimux: Aimux, method: str) -> None:
    """A 405 would have to tell which methods that path answers."""
    answer = await ask(aimux, head(f"{method} /plain/v1/chat HTTP/1.1"))
    assert answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
    assert (b"aimux is no proxy" in answer) is (method == "CONNECT"), "HTTPS_PROXY was set to aimux"


async def test_nothing_of_a_refused_line_is_in_the_log_or_the_answer(aimux: Aimux, upstream: StrictUpstream) -> None:
    """It may be the one with the token: the library's own words would quote it."""
    request_ = head(PATH).replace(b"Authorization:", b"Authorization :")
    answer = await ask(aimux, request_)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert TOKEN.encode()[:12] not in answer
    assert TOKEN[:12] not in aimux.log
    assert "is refused: it has a malformed header line" in aimux.log


def test_what_is_remembered_of_strangers_headers_is_bounded() -> None:
    """30 kB in a name, another one each time: a thousand requests with and without a token, and their answers."""

    def pass_on(number: int) -> None:
        field = b"%08d" % number * 3750 + b": x"
        request = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + field)
        assert field in to_upstream(request, token=b"", dropped=frozenset(), replaced=())
        found = HeadReader().feed(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n")
        assert found is not None
        assert field in b"".join(to_client(found[0], NEVER_TO_CLIENT))

    pass_on(0)
    tracemalloc.start()
    try:
        for number in range(1, 1000):
            pass_on(number)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown < 1_000_000


async def test_what_is_told_and_kept_of_a_request_is_bounded(aimux: Aimux) -> None:
    """Ten thousand requests are remembered, with a token or without."""
    long = "a" * 30_000
    stranger = head(f"GET /plain/v1/{long} HTTP/1.1", close=True).replace(TOKEN.encode(), b"wrong-token-0123456789")
    assert (await ask(aimux, stranger)).startswith(b"HTTP/1.1 401 ")
    for body in (f'{{"model":"{long}"}}', f'{{"a":1,"model":"{long}"}}'):
        asked = head(PATH, f"Content-Length: {len(body)}", close=True) + body.encode()
        assert (await ask(aimux, asked)).startswith(b"HTTP/1.1 200 ")
    kept = [*aimux.app.journal.latest()][::-1]
    assert [len(record.path) for record in kept] == [TOLD, 14, 14]
    assert [record.model for record in kept] == [""] * 3
    assert max(map(len, aimux.log.splitlines())) < 1000


class Talkative(Plain):
    def conversation_key(self, request: RequestHead, body: Body) -> str:
        return "\ud800" + "k" * 30_000 + request.path


def test_a_conversation_has_a_short_key_however_a_client_calls_it() -> None:
    provider = Talkative(ProviderSettings())
    keys = [
        conversation_of(provider, RequestHead("POST", path, CIMultiDict()), Body(b"")) for path in ("/a", "/b", "/b")
    ]
    assert all(key is not None and len(key) < 100 for key in keys)
    assert keys[0] != keys[1] == keys[2]
