"""Requests and answers through the gateway: what each side sees, on raw sockets."""

from __future__ import annotations

import asyncio
import gzip
import re
from dataclasses import replace

import pytest

from aimux.gateway import Authentication
from aimux.gateway.epoch import Admitted
from aimux.http.framing import chunk
from aimux.people import Configured, Directory, User

from .answers import body_of, head_of
from .conftest import BOTH_WAYS, SECRET, TOKEN, Start, Upstream, request

pytestmark = BOTH_WAYS

OTHER = Directory(Configured({"other": User("other")}))


async def test_a_request_reaches_the_upstream_with_the_accounts_credential(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    answer = await aimux.send(request("/plain/v1/chat?beta=true", headers="X-Custom: Kept\r\nAccept: */*\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n{}")
    sent = upstream.requests[0]
    assert sent.startswith(b"POST /v1/chat?beta=true HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % upstream.port)
    assert b"X-Custom: Kept\r\n" in sent
    assert f"authorization: Bearer {SECRET}".encode() in sent
    assert sent.endswith(b'\r\n\r\n{"model":"m"}')


async def test_nothing_of_the_client_that_must_not_go_upstream_does(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    headers = (
        f"Cookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Api-Key: {TOKEN}\r\nVia: 1.1 x\r\n"
        f"Proxy-Authorization: Basic abc\r\nX-Copy: my {TOKEN}\r\nTE: trailers\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        "X-Real-IP: 1.2.3.4\r\nX-Aimux-Note: 1\r\nConnection: X-Hop\r\nX-HTTP-Method-Override: GET\r\n"
        "X-HTTP-Method: GET\r\nX-Method-Override: GET\r\nX-Rewrite-URL: /v1/files\r\n"
    )
    await aimux.send(request(headers=headers))
    sent = upstream.requests[0].lower()
    for name in ("cookie", "forwarded", "x-api-key", "via", "proxy-", "x-copy", "te:", "x-hop", "keep-alive", "x-real"):
        assert name.encode() not in sent, name
    assert b"x-aimux" not in sent
    assert b"override" not in sent
    assert b"x-http" not in sent
    assert b"rewrite" not in sent
    assert b"connection" not in sent
    assert TOKEN.encode() not in sent


CDN = (
    "cf-ray", "CF-Visitor", "cf-warp-tag-id", "cf-connecting-ipv6", "cdn-loop", "x-envoy-external-address",
    "fastly-client-ip", "fly-client-ip", "x-azure-fdid", "x-original-forwarded-for", "x-appengine-user-ip",
    "x-arr-log-id", "x-vercel-ip-country", "client-ip", "x-client-ip",
)  # fmt: skip
IDENTITY = (
    "cf-access-jwt-assertion", "x-auth-request-access-token", "x-auth-request-email", "x-goog-iap-jwt-assertion",
    "x-amzn-oidc-data", "x-ms-client-principal", "x-ms-client-principal-id", "x-ms-token-aad-access-token",
    "tailscale-user-login", "Remote-User", "x-pomerium-jwt-assertion", "x-id-token", "x-userinfo", "x-authentik-email",
    "ssl-client-cert", "x-consumer-username",
)  # fmt: skip


async def test_what_stand_ins_add_ends_here(start: Start, upstream: Upstream) -> None:
    """chatgpt.com, behind Cloudflare itself, answers 403 to a `cf-` header; and nobody's identity is its business."""
    aimux = await start()
    own = "X-Client-Request-Id: 1\r\nOriginator: codex\r\nX-Stainless-Os: Linux\r\nX-Goog-Api-Client: a\r\n"
    await aimux.send(request(headers=own + "".join(f"{name}: whispered\r\n" for name in (*CDN, *IDENTITY))))
    assert b"whispered" not in upstream.requests[0]
    for name in (b"X-Client-Request-Id", b"Originator", b"X-Stainless-Os", b"X-Goog-Api-Client"):
        assert name in upstream.requests[0]


async def test_a_configuration_drops_more(start: Start, upstream: Upstream) -> None:
    aimux = await start(drop_headers=["X-Corp-User", "x-trace-*"])
    await aimux.send(request(headers="x-corp-user: a\r\nX-Trace-Id: b\r\nx-corp-users: c\r\nx-trace: d\r\n"))
    sent = upstream.requests[0].lower()
    assert b"x-corp-user:" not in sent
    assert b"x-trace-" not in sent
    assert b"x-corp-users: c" in sent
    assert b"x-trace: d" in sent


async def test_the_answers_own_headers_pass_less_those_that_may_not(start: Start, upstream: Upstream) -> None:
    upstream.answer = (
        b"HTTP/1.1 203 Odd Reason\r\nX-Kept: yes\r\nSet-Cookie: a=b\r\nX-Account: acc\r\n"
        b"Connection: X-Hop\r\nX-Hop: 1\r\n"
        b"X-Request-Id: theirs\r\nAlt-Svc: h3\r\ncontent-length: 2\r\n\r\nok"
    )
    aimux = await start()
    answer = await aimux.send(request(headers="X-Request-Id: mine\r\n"))
    assert answer.startswith(b"HTTP/1.1 203 Odd Reason\r\n")
    head = head_of(answer)
    assert b"x-kept: yes" in head
    assert b"x-request-id: mine" in head
    assert b"x-upstream-request-id: theirs" in head
    for name in (b"set-cookie", b"x-account", b"x-hop", b"alt-svc"):
        assert name not in head


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize(
    ("kind", "told", "shown"),
    [
        ("application/json", b'{"error": "%b is suspended"}', b'{"error": "upstream\xe2\x80\xa6 is suspended"}'),
        ("text/html", b"<p>%b is no key", b"<p>upstream\xe2\x80\xa6 is no key"),
    ],
)
async def test_an_error_that_quotes_the_accounts_key_passes_without_it(
    start: Start, upstream: Upstream, kind: str, told: bytes, shown: bytes, coding: str
) -> None:
    """Gemini's names the key of a suspended project (songquanpeng/one-api#1775)."""
    aimux = await start()
    body = told.replace(b"%b", SECRET.encode())
    if coding:
        body = gzip.compress(body)
    head = f"HTTP/1.1 403 Forbidden\r\ncontent-type: {kind}\r\ncontent-encoding: {coding}\r\nx-kept: 1\r\n"
    upstream.answer = head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
    answer = await aimux.send(request())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert body_of(answer) == shown
    assert b"content-type: %b\r\n" % kind.encode() in answer.lower()
    assert b"x-kept: 1\r\n" in answer.lower()
    assert b"content-encoding" not in answer.lower()


@pytest.mark.parametrize("status", [200, 404])
async def test_a_header_that_quotes_the_accounts_key_does_not_pass(
    start: Start, upstream: Upstream, status: int
) -> None:
    """Google answers some requests with the key that it was sent (maximhq/bifrost#3954)."""
    aimux = await start()
    upstream.answer = (
        f"HTTP/1.1 {status} Odd Reason\r\nX-Goog-Api-Key: {SECRET}\r\nX-Kept: 1\r\n"
        f"Location: http://127.0.0.1/?key={SECRET}&b=1\r\nX-Request-Id: {SECRET}\r\ncontent-length: 2\r\n\r\nok"
    ).encode()
    answer = await aimux.send(request())
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert SECRET.encode() not in answer
    assert b"x-kept: 1" in head_of(answer)


async def test_requests_on_one_connection_go_up_each_with_its_own_head(start: Start, upstream: Upstream) -> None:
    """The second is recognized by its head, and the third differs from it."""
    aimux = await start()
    reader, writer = await aimux.connect()
    bodies = [b'{"model":"m"}', b'{"model":"m","longer":true}', b"{}"]
    for body, more in zip(bodies, ["", "", "X-Third: 3\r\n"], strict=True):
        writer.write(request(body=body, headers=more, close=False))
        assert (await reader.readuntil(b"\r\n\r\n{}")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert [body_of(sent) for sent in upstream.requests] == bodies
    lengths = [
        b"\r\nContent-Length: %d\r\n" % len(body) in sent for body, sent in zip(bodies, upstream.requests, strict=True)
    ]
    assert lengths == [True] * 3
    assert [b"X-Third: 3" in sent for sent in upstream.requests] == [False, False, True]
    assert all(SECRET.encode() in sent and TOKEN.encode() not in sent for sent in upstream.requests)


async def test_requests_on_one_connection_have_their_clients_id_or_one_of_their_own(start: Start) -> None:
    aimux = await start()
    reader, writer = await aimux.connect()
    told = []
    for headers in ("X-Request-Id: mine\r\n",) * 2 + ("",) * 2:
        writer.write(request(headers=headers, close=False))
        told += re.findall(rb"\r\nx-request-id: ([^\r]+)\r\n", await reader.readuntil(b"\r\n\r\n{}"))
    writer.close()
    assert told[:2] == [b"mine"] * 2
    assert len({*told}) == 3
    assert all(name.startswith(b"req_") for name in told[2:])


async def test_a_token_that_was_taken_away_does_not_go_on_with_its_connection(
    start: Start, upstream: Upstream, way: str
) -> None:
    aimux = await start()
    reader, writer = await aimux.connect()
    writer.write(request(close=False))
    assert (await reader.readuntil(b"\r\n\r\n{}")).startswith(b"HTTP/1.1 200 ")
    if way == "lane":
        (connection,) = aimux.app.gateway.server.connections
        kept = connection.admission
        assert isinstance(kept, Admitted)
        assert kept.sent is not None
        assert not {secret for secret in (TOKEN, SECRET) if secret in repr(kept)}
    gateway = aimux.app.gateway
    gateway.begin(replace(gateway.setup, authentication=Authentication(OTHER, allow_anonymous=False)))
    writer.write(request(close=True))
    assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n"),
    ],
)
async def test_answers_without_a_body(start: Start, upstream: Upstream, method: str, head: bytes) -> None:
    upstream.answer = head
    aimux = await start()
    reader, writer = await aimux.connect()
    async with asyncio.timeout(10):
        for _ in range(2):
            writer.write(request(method=method, body=b"", close=False))
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(head.partition(b"\r\n")[0])
    assert upstream.connections == 1


async def test_interim_answers_end_here(start: Start, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + upstream.answer
    aimux = await start()
    assert (await aimux.send(request())).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_expect_100_continue(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    reader, writer = await aimux.connect()
    head, _, body = request(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert b"expect" not in upstream.requests[0].lower()


async def test_pipelined_requests_are_answered_in_order(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    answer = await aimux.send(
        request("/plain/1", headers="X-Request-Id: a\r\n", close=False)
        + request("/plain/2", headers="X-Request-Id: b\r\n", close=False)
        + request("/plain/3", headers="X-Request-Id: c\r\n")
    )
    assert [answer.find(b"x-request-id: " + i) >= 0 for i in (b"a", b"b", b"c")] == [True] * 3
    assert answer.find(b": a\r\n") < answer.find(b": b\r\n") < answer.find(b": c\r\n")


async def test_a_chunked_request_goes_up_with_its_length(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    head = request(body=b"", headers="Transfer-Encoding: chunked\r\n")
    await aimux.send(head + chunk(b"hello ") + chunk(b"world") + b"0\r\n\r\n")
    assert upstream.requests[0].endswith(b"Content-Length: 11\r\n\r\nhello world")
    assert b"transfer-encoding" not in upstream.requests[0].lower()


async def test_a_compressed_body_is_not_touched(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    body = bytes(range(256)) * 20
    await aimux.send(request(body=body, headers="Content-Encoding: gzip\r\n"))
    assert upstream.requests[0].endswith(b"\r\n\r\n" + body)
    assert b"Content-Encoding: gzip" in upstream.requests[0]


async def test_connections_are_kept_and_a_stale_one_is_replaced(start: Start, upstream: Upstream) -> None:
    once = upstream.answer

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(once)
        await upstream.read(reader)  # and then hangs up without a word

    upstream.script = script
    aimux = await start()
    for _ in range(3):
        assert (await aimux.send(request())).startswith(b"HTTP/1.1 200 OK")
    assert upstream.connections == 3
    assert len(upstream.requests) == 5


async def test_an_answer_before_the_request_was_read_reaches_the_client(start: Start, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        await reader.read()

    upstream.script = script
    aimux = await start()
    assert (await aimux.send(request(body=b"x" * 5_000_000))).startswith(b"HTTP/1.1 413 No\r\n")
