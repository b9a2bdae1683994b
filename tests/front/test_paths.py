"""Targets that mean one thing here and another further on: refused, or sent up exactly as they came."""

from __future__ import annotations

import pytest

from .conftest import SECRET, Aimux, Start, StrictUpstream, ask, head

REFUSED = [
    # out of the mount, as somebody may read it
    "/plain/../admin",
    "/plain/..",
    "/plain/./v1",
    "/plain/v1/../../admin",
    "/../plain/v1",
    "/plain/%2e%2e/admin",
    "/plain/%2E%2E/admin",
    "/plain/.%2e/admin",
    "/plain/%2e/v1",
    "/plain/..%2fadmin",
    "/plain%2fv1",
    "/plain/v1%2Fmessages",
    "/plain/%2f%2fevil.example/v1",
    "/plain/..%5cadmin",
    "/plain/v1\\..\\admin",
    "/plain\\v1",
    "/plain/%5c..%5cadmin",
    # twice encoded, overlong, or not at all
    "/plain/..;/admin",
    "/plain/..;a=b/admin",
    "/plain/.;/admin",
    "/plain/%2e%2e;/admin",
    "/plain/..%3b/admin",
    "/plain/..%20/admin",
    "/plain/%c0%ae%c0%ae/admin",
    "/plain/%e0%80%ae%e0%80%ae/admin",
    "/plain/%f0%80%80%ae./admin",
    "/plain/v1%c0%afadmin",
    "/plain/%ff",
    "/plain/%ef%bc%8e%ef%bc%8e/admin",
    "/plain/%e2%80%a5/admin",
    "/plain/.%ef%bc%8e/admin",
    "/plain/v1%ef%bc%8fadmin",
    "/plain/v1%ef%bc%bcadmin",
    "/plain/%ef%bc%852e%ef%bc%852e/admin",
    "/plain/%252e%252e/admin",
    "/plain/%252fadmin",
    "/plain/%255c",
    "/plain/%25%32%65%25%32%65/x",
    "/plain/%c0%ae%c0%ae/%2e%2e/admin",
    "/plain/%",
    "/plain/%2",
    "/plain/%zz",
    "/plain/%u002e",
    # control characters, spaces and what a URL may not hold
    "/plain/%00",
    "/plain/v1%0d%0aX-A:%20b",
    "/plain/v1%0aX",
    "/plain/%7f",
    "/plain/v1\x7f",
    "/plain/<v1>",
    '/plain/"v1"',
    "/plain/{v1}",
    "/plain/v1^",
    "/plain/v1`",
    "/plain/v1|",
    "/plain/\xe9",
    "/plain/v1?a=\xe9",
    # a fragment
    "/plain/v1#x",
    "/plain/v1?a=b#x",
    "#/plain/v1",
    # other forms of a target
    "http://evil.example/plain/v1",
    "http://gateway/plain/v1",
    "https://gateway/plain/v1",
    "http:/plain/v1",
    "http:plain/v1",
    "plain/v1",
    "evil.example:443",
    "@evil.example/plain/v1",
    "?/plain/v1",
    "*",
    # another mount, or none
    "//evil.example/plain/v1",
    "//plain/v1",
    "///plain/v1",
    "/Plain/v1",
    "/plainx/v1",
    "/plain;a=b/v1",
    "/%70lain/v1",
    "/plain@evil.example/v1",
]

FORWARDED = {
    "/plain": "/",
    "/plain/": "/",
    "/plain?a=b": "/?a=b",
    "/plain//v1/chat": "//v1/chat",
    "/plain//evil.example/v1": "//evil.example/v1",
    "/plain/@evil.example/v1": "/@evil.example/v1",
    "/plain/http://evil.example/": "/http://evil.example/",
    "/plain/v1/...": "/v1/...",
    "/plain/v1/.well-known/..x": "/v1/.well-known/..x",
    "/plain/v1/a%20b%c3%a9": "/v1/a%20b%c3%a9",
    "/plain/v1/%41%3a%3F%23%40": "/v1/%41%3a%3F%23%40",
    "/plain/v1;a=b/c:d": "/v1;a=b/c:d",
    "/plain/v1?q=../..&r=%2e%2e%2f&s=http://evil/%00": "/v1?q=../..&r=%2e%2e%2f&s=http://evil/%00",
    "/plain/v1?a?b=c/d": "/v1?a?b=c/d",
    "/plain/plain/v1": "/plain/v1",
}


async def test_these_are_refused(aimux: Aimux, upstream: StrictUpstream) -> None:
    for target in REFUSED:
        for method in ("GET", "POST"):
            answer = await ask(aimux, head(f"{method} {target} HTTP/1.1", close=True))
            assert answer[9:12] in {b"400", b"404"}, target
            assert upstream.raw == b"", target
    assert upstream.connections == 0


@pytest.mark.parametrize("base_path", ["", "/base/v0"])
async def test_these_go_up_as_they_came_and_nowhere_else(
    start: Start, upstream: StrictUpstream, base_path: str
) -> None:
    aimux = await start(providers={"plain": {"base_url": f"http://127.0.0.1:{upstream.port}{base_path}"}})
    for target, below in FORWARDED.items():
        upstream.raw = b""
        answer = await ask(aimux, head(f"GET {target} HTTP/1.1", close=True))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), target
        assert (
            upstream.raw
            == (
                f"GET {base_path}{below} HTTP/1.1\r\nHost: 127.0.0.1:{upstream.port}\r\nX-Tag: evil\r\n"
                f"authorization: Bearer {SECRET}\r\n\r\n"
            ).encode()
        ), target
    assert upstream.faults == []


async def test_a_mount_at_the_root_gives_no_way_to_aimuxs_own_paths_or_back(
    start: Start, upstream: StrictUpstream
) -> None:
    aimux = await start(mounts={"/": "plain"})
    for target in ("/health", "/ready", "/metrics", "/api/v1/accounts", "/api/v1"):
        await ask(aimux, head(f"GET {target} HTTP/1.1", close=True))
        assert upstream.raw == b"", target
    for target in ("//api/v1/accounts", "/%61pi/v1/accounts", "/v1?/../api/v1/accounts"):
        upstream.raw = b""
        await ask(aimux, head(f"GET {target} HTTP/1.1", close=True))
        assert upstream.raw.startswith(f"GET {target} HTTP/1.1\r\n".encode()), "the upstream's own, not aimux's"
