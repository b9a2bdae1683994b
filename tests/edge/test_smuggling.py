"""Requests with more than one reading: refused, or forwarded as exactly one that has a single reading."""

from __future__ import annotations

import pytest

from .conftest import SECRET, TOKEN, Aimux, StrictUpstream, ask, head

PATH = "POST /plain/v1/chat HTTP/1.1"
CHUNKED = head(PATH, "Transfer-Encoding: chunked", close=True)
SMUGGLED = b"GET /plain/v1/smuggled HTTP/1.1\r\nHost: gateway\r\nX-Tag: smuggled\r\n\r\n"


def with_body(*fields: str, body: bytes = b"hello", line: str = PATH) -> bytes:
    """A head, a body, and a request behind it that a lenient reader would take for another one."""
    return head(line, *fields, close=True) + body + SMUGGLED


REFUSED = {
    "two equal content-lengths": with_body("Content-Length: 5", "Content-Length: 5"),
    "two different content-lengths": with_body("Content-Length: 5", "Content-Length: 6"),
    "a list of content-lengths": with_body("Content-Length: 5, 5"),
    "a signed content-length": with_body("Content-Length: +5"),
    "a negative content-length": with_body("Content-Length: -5"),
    "a hexadecimal content-length": with_body("Content-Length: 0x5"),
    "no content-length at all": with_body("Content-Length:"),
    "a content-length with a gap": with_body("Content-Length: 5 0"),
    "a content-length with an underscore": with_body("Content-Length: 1_0"),
    "a content-length in other digits": with_body("Content-Length: \xb2"),
    "a content-length beyond 64 bits": with_body("Content-Length: 18446744073709551621"),
    "a content-length of 5,000 digits": with_body("Content-Length: " + "9" * 5000),
    "a space before content-length's colon": with_body("Content-Length : 5"),
    "both framings": with_body("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "both framings, turned round": with_body("Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"),
    "an empty transfer-encoding beside a length": with_body("Transfer-Encoding:", "Content-Length: 5"),
    "chunked in HTTP/1.0": with_body(
        "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n", line="POST /plain/v1/chat HTTP/1.0"
    ),
    **{
        f"transfer-encoding {value!r}": with_body(f"Transfer-Encoding:{value}", body=b"0\r\n\r\n")
        for value in (
            "",
            " xchunked",
            " chunkedx",
            " chunked x",
            ' "chunked"',
            " \x0bchunked",
            " chunked\x0c",
            " \xa0chunked",
            " chunked;q=1",
            " chunked,",
            " ,chunked",
            " chunked, chunked",
            " chunked, identity",
            " identity",
            " identity, chunked",
            " gzip, chunked",
            " chunked\r\nTransfer-Encoding: chunked",
            " chunked\r\nTransfer-Encoding: identity",
            "\r\n chunked",
            " chunked\r\n\t, identity",
            " chun\x00ked",
            " chunked\nX-A: b",
            " chunked\rX-A: b",
        )
    },
    **{
        f"a header line {line!r}": with_body(line, "Content-Length: 5")
        for line in (
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "Transfer-Encoding\x00: chunked",
            "Transfer\xadEncoding: chunked",
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
    "line feeds alone": with_body("Content-Length: 5").replace(b"\r\n", b"\n"),
    "a line feed alone at the end": with_body("Content-Length: 5").replace(b"\r\n\r\nhello", b"\r\n\nhello"),
    "a second carriage return": with_body("Content-Length: 5").replace(b"\r\n\r\nhello", b"\r\n\r\r\nhello"),
    "no host": with_body("Content-Length: 5").replace(b"Host: gateway\r\n", b"", 1),
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
    **{
        f"chunks {body[:40]!r}": CHUNKED + body + SMUGGLED
        for body in (
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5\t\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"g\r\nhello\r\n0\r\n\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX-T: a\n\r\n",
            b"5\r\nhello\r\n0\r\nX T: a\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX-T: a\r\n b\r\n\r\n",
            b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
            b"5\r\nhello\r\n0\n\n",
            b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
        )
    },
    "too many headers": head(PATH, *(f"X-{n}: 1" for n in range(200)), close=True),
    "a header that is too long": head(PATH, "X-A: " + "a" * 40_000, close=True),
    "a header's name that is too long": head(PATH, "a" * 40_000 + ": x", close=True),
    "a target that is too long": head(f"GET /plain/v1/{'a' * 40_000} HTTP/1.1", close=True),
    "headers that are too long together": head(PATH, *(f"X-{n}: {'a' * 30_000}" for n in range(3)), close=True),
    "line ends without end": b"\r\n" * 40_000,
}

HELLO = b"Content-Length: 5\r\n\r\nhello"
FORWARDED = {
    "spaces around the length": (head(PATH, "Content-Length: \t 5 \t") + b"hello", b"", HELLO),
    "a length with a zero in front": (head(PATH, "Content-Length: 05") + b"hello", b"", HELLO),
    "chunks": (head(PATH, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", b"", HELLO),
    "chunks, spelt otherwise": (head(PATH, "tRANSFER-eNCODING:\tCHUNKED ") + b"005\r\nhello\r\n00\r\n\r\n", b"", HELLO),
    "chunk extensions": (
        head(PATH, "Transfer-Encoding: chunked") + b'2;a=b;c="d;\xe9"\r\nhe\r\n3;x\r\nllo\r\n0;last\r\n\r\n',
        b"",
        HELLO,
    ),
    "trailers, also such as would matter in a head": (
        head(PATH, "Transfer-Encoding: chunked", "Trailer: X-T")
        + b"5\r\nhello\r\n0\r\nX-T: 1\r\nAuthorization: Bearer x\r\nX-Tag: other\r\n\r\n",
        b"",
        HELLO,
    ),
    "another header with an underscore": (
        head(PATH, "Transfer_Encoding: chunked", "Content-Length: 5") + b"hello",
        b"Transfer_Encoding: chunked\r\n",
        HELLO,
    ),
    "a whole request as the body": (
        head(PATH, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        b"",
        b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    ),
    "a length that Connection would strip": (
        head(PATH, "Content-Length: 5", "Connection: content-length, x-tag, authorization, host") + b"hello",
        None,
        HELLO,
    ),
    "empty lines in front": (b"\r\n\r\n" + head(PATH, "Content-Length: 5") + b"hello", b"", HELLO),
    "another host": (
        head(PATH, "Content-Length: 5").replace(b"Host: gateway", b"Host: evil.example@127.0.0.1/x?y") + b"hello",
        b"",
        HELLO,
    ),
    "an upgrade nobody serves": (
        head(
            PATH,
            "Upgrade: h2c",
            "Connection: Upgrade, HTTP2-Settings",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
            "Content-Length: 5",
        )
        + b"hello",
        b"",
        HELLO,
    ),
    "a tab and Latin-1 within a value": (
        head(PATH, "X-A: a\tb\xe9", "Content-Length: 5") + b"hello",
        b"X-A: a\tb\xe9\r\n",
        HELLO,
    ),
    "no body and no length": (head(PATH), b"", b"Content-Length: 0\r\n\r\n"),
}


def expected(upstream: StrictUpstream, kept: bytes | None, end: bytes) -> bytes:
    """The one request that may arrive. `kept`: the client's headers that pass; None: not even X-Tag."""
    passed = b"" if kept is None else b"X-Tag: evil\r\n" + kept
    return b"POST /v1/chat HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%bauthorization: Bearer %b\r\n%b" % (
        upstream.port,
        passed,
        SECRET.encode(),
        end,
    )


async def honest(aimux: Aimux, upstream: StrictUpstream) -> None:
    """Whatever was tried: another client gets its own answer, and no fault came up before."""
    answer = await ask(aimux, head("GET /plain/v1/honest HTTP/1.1", tag="honest", close=True))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhonest")
    assert upstream.faults == []


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
async def test_it_is_refused(aimux: Aimux, upstream: StrictUpstream, request_: bytes) -> None:
    answer = await ask(aimux, request_)
    assert upstream.raw == b""
    status = answer.partition(b"\r\n")[0]
    assert status[:8] in {b"HTTP/1.1", b"HTTP/1.0"}
    assert 400 <= int(status[9:12]) < 600, "and said so, once"
    assert answer.count(b"HTTP/1.") == 1
    assert TOKEN.encode() not in answer
    await honest(aimux, upstream)
    assert TOKEN not in aimux.log
    assert "Traceback" not in aimux.log


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize(("request_", "kept", "end"), FORWARDED.values(), ids=FORWARDED)
async def test_it_arrives_as_exactly_one_request(
    aimux: Aimux, upstream: StrictUpstream, request_: bytes, kept: bytes | None, end: bytes, pieces: str
) -> None:
    parts = [request_] if pieces == "whole" else [request_[i : i + 1] for i in range(len(request_))]
    answer = await ask(aimux, *parts, until=b"untagged" if kept is None else b"evil")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert upstream.raw == expected(upstream, kept, end)
    await honest(aimux, upstream)


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhelloX",
        b"5\r\nhello\r\nzz\r\n",
        b"5\r\nhello\r\n0\r\nX T: 1\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n",
    ],
)
async def test_a_body_that_breaks_off_into_nonsense_is_not_waited_for(
    aimux: Aimux, upstream: StrictUpstream, body: bytes
) -> None:
    """The head is with the handler already when the parser gives up."""
    reader, writer = await aimux.connect()
    writer.write(head(PATH, "Transfer-Encoding: chunked", "Expect: 100-continue"))
    await reader.readuntil(b"100 Continue\r\n\r\n")
    writer.write(body + SMUGGLED)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer.lower()
    assert answer.count(b"HTTP/1.") == 1
    assert upstream.raw == b""
    await honest(aimux, upstream)


async def test_pipelined_halves(aimux: Aimux, upstream: StrictUpstream) -> None:
    """The end of one request and the start of the next in one packet, cut at every place of the second's head."""
    first = head("POST /plain/v1/one HTTP/1.1", "Content-Length: 5", tag="first") + b"hello"
    second = head("POST /plain/v1/two HTTP/1.1", "Content-Length: 3", tag="second", close=True) + b"bye"
    for cut in range(0, len(second), 7):
        upstream.requests.clear()
        answer = await ask(aimux, first[:-3], first[-3:] + second[:cut], second[cut:])
        assert [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]] == [
            b"first",
            b"second",
        ]
        assert [request.partition(b" HTTP")[0] for request in upstream.requests] == [b"POST /v1/one", b"POST /v1/two"]
        assert [request.rpartition(b"\r\n\r\n")[2] for request in upstream.requests] == [b"hello", b"bye"]
    await honest(aimux, upstream)


@pytest.mark.parametrize(
    "half",
    [
        head(PATH)[:-2],
        head(PATH, "Content-Length: 50") + b"hello",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
    ids=["head", "body", "chunk", "trailers"],
)
async def test_half_a_request_never_goes_up(aimux: Aimux, upstream: StrictUpstream, half: bytes) -> None:
    whole = head("GET /plain/v1/one HTTP/1.1", tag="first")
    reader, writer = await aimux.connect()
    writer.write(whole + half)
    assert (await reader.readuntil(b"first")).startswith(b"HTTP/1.1 200 OK")
    writer.write_eof()
    assert await reader.read() == b""
    assert len(upstream.requests) == 1
    await honest(aimux, upstream)


async def test_a_refused_upgrade_takes_nothing_with_it(aimux: Aimux, upstream: StrictUpstream) -> None:
    """What follows is neither swallowed nor taken for frames."""
    upgrade = head("GET /plain/v1/chat HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade")
    next_ = head("GET /plain/v1/next HTTP/1.1", tag="next", close=True)
    answer = await ask(aimux, upgrade + next_)
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert answer.endswith(b"next")
    assert len(upstream.requests) == 1
    await honest(aimux, upstream)


async def test_nothing_of_a_refused_line_is_in_the_log_or_the_answer(aimux: Aimux, upstream: StrictUpstream) -> None:
    """It may be the one with the token: the library's own words would quote it."""
    request_ = head(PATH).replace(b"Authorization:", b"Authorization :")
    answer = await ask(aimux, request_)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert TOKEN.encode()[:12] not in answer
    assert TOKEN[:12] not in aimux.log
    assert "is refused: a malformed header line" in aimux.log
