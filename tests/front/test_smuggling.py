"""Bodies with more than one end: refused, or forwarded as exactly one request that has a single reading."""

from __future__ import annotations

import pytest

from .conftest import SECRET, SMUGGLED, Aimux, StrictUpstream, ask, head, honest, must_refuse

PATH = "POST /plain/v1/chat HTTP/1.1"
CHUNKED = head(PATH, "Transfer-Encoding: chunked", close=True)


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
            " chunked\xa0",
            " \x85chunked",
            " chunked\x85",
            " chun\xe2\x84\xaaed",  # the Kelvin sign, whose lower case is a k
            " chunked\x7f",
            " 'chunked'",
            " chunked chunked",
            " chunked\tchunked",
            " chunked/1.1",
            " chunked=1",
            " trailers",
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
            b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
            b"5; a=b\r\nhello\r\n0\r\n\r\n",
            b"5;\r\nhello\r\n0\r\n\r\n",
            b"5;a=\r\nhello\r\n0\r\n\r\n",
            b'5;a="b\r\nhello\r\n0\r\n\r\n',
            b'5;a="b\r\nc"\r\nhello\r\n0\r\n\r\n',
            b"5,a\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"00000000000000000005\r\nhello\r\n0\r\n\r\n",
            b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0 \r\n\r\n",
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
    "what is framing for servers that follow CGI": (
        head(PATH, "Transfer_Encoding: chunked", "Content-Length: 5") + b"hello",
        b"",
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


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
async def test_it_is_refused(aimux: Aimux, upstream: StrictUpstream, request_: bytes) -> None:
    await must_refuse(aimux, upstream, request_)


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
