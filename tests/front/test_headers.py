"""The headers that docs/security.md names, on the wire: they end here, and all else passes byte for byte."""

from __future__ import annotations

import asyncio
import re

from tests.gateway.conftest import BOTH_WAYS, Upstream
from tests.tools import ROOT

from .conftest import SECRET, TOKEN, Aimux, StrictUpstream, ask, head, honest
from .hostile import OK, evil, read_strictly

pytestmark = BOTH_WAYS

TEXT = (ROOT / "docs" / "security.md").read_text()
OWN = {"host", "authorization", "content-length", "transfer-encoding"}
"""Every request has these, or may not: `head` writes them, and other tests say what becomes of them."""


def named(row: str) -> list[str]:
    (line,) = re.findall(rf"^\| {row} \| (.*) \|$", TEXT, re.MULTILINE)
    return re.findall(r"`([^`]+)`", line)


def spelt(name: str, number: int) -> str:
    return (name, name.title(), name.upper())[number % 3]


async def test_what_ends_here_of_a_request(aimux: Aimux, upstream: StrictUpstream) -> None:
    names = [name for name in named("client to upstream") if name not in OWN]
    names += [f"{prefix}anything" for prefix in named("client to upstream, by their beginning")]
    kept = ["Accept: text/*;q=0.5", "ACCEPT-encoding: gzip, br", "x-empty: ", "X-Twice: 1", "X-Twice: 2", "X_under: s"]
    lines = [f"{spelt(name, number)}: X-Named, {number}" for number, name in enumerate(names)]
    between = [line for pair in zip(lines, kept + [""] * len(lines), strict=False) for line in pair if line]
    await ask(aimux, head("GET /plain/v1/chat HTTP/1.1", *between, "X-Named: 1", f"X-Copy: {TOKEN}"), until=b"evil")
    assert len(names) > 20
    assert (
        upstream.raw
        == (
            f"GET /v1/chat HTTP/1.1\r\nHost: 127.0.0.1:{upstream.port}\r\nX-Tag: evil\r\n"
            + "".join(f"{line}\r\n" for line in kept)
            + f"authorization: Bearer {SECRET}\r\n\r\n"
        ).encode()
    )
    await honest(aimux, upstream)


async def test_so_it_does_with_underscores(aimux: Aimux, upstream: StrictUpstream) -> None:
    """oauth2-proxy's CVE-2025-64484: servers that follow CGI take `X_Forwarded_User` for `X-Forwarded-User`."""
    names = named("client to upstream")
    names += [f"{beginning}any-thing" for beginning in named("client to upstream, by their beginning")]
    lines = [f"{spelt(name, number).replace('-', '_')}: x" for number, name in enumerate(names) if "-" in name]
    await ask(aimux, head("GET /plain/v1/chat HTTP/1.1", *lines, "session_id: s"), until=b"evil")
    assert len(lines) > 20
    assert upstream.raw.lower().count(b"_") == 1
    assert b"session_id: s" in upstream.raw
    await honest(aimux, upstream)


async def test_what_ends_here_of_an_answer(aimux: Aimux, upstream: Upstream) -> None:
    names = [name for name in named("upstream to client") if name not in OWN]
    names += [f"{beginning}anything" for beginning in named("upstream to client, by their beginning")]
    kept = {b"content-type": b"text/plain", b"x-empty": b"", b"server": b"theirs", b"date": b"today", b"x_under": b"s"}
    lines = [f"{spelt(name, number)}: X-Named, {number}" for number, name in enumerate(names)]
    answer = OK + b"".join(b"%b: %b\r\n" % field for field in kept.items()) + "\r\n".join(lines).encode()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(answer + b"\r\nX-Named: 1\r\ncontent-length: 2\r\n\r\nok")

    upstream.script = script
    status, headers, body = read_strictly(await evil(aimux))
    assert len(names) > 12
    assert (status, body) == (200, b"ok")
    assert re.fullmatch(rb"req_[0-9a-f]{24}", headers.pop(b"x-request-id"))
    theirs = f"X-Named, {names.index('x-request-id')}".encode()
    own = {b"content-length": b"2", b"connection": b"close", b"x-upstream-request-id": theirs}
    assert headers == kept | own
