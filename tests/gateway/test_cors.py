"""Web pages of other sites: what a browser is told before one calls, and with the answer."""

from __future__ import annotations

import pytest

from aimux.gateway.cors import TOLD

from .answers import OK, body_of, error, head_of, script, status_of
from .conftest import TOKEN, Start, Upstream, request

PAGE = "https://pivot.claude.ai"
ASKS = f"Origin: {PAGE}\r\nAccess-Control-Request-Method: POST\r\n"
WANTED = "anthropic-version,content-type,x-api-key"


def preflight(headers: str = ASKS) -> bytes:
    return request(method="OPTIONS", body=b"", token=None, headers=headers)


@pytest.mark.parametrize(
    "allowed", [[PAGE], ["https://other.example", PAGE], ["*"], ["HTTPS://Pivot.Claude.AI/"], ["file://", PAGE]]
)
async def test_a_page_that_is_allowed_may_call(start: Start, upstream: Upstream, allowed: list[str]) -> None:
    aimux = await start(cors={"allowed_origins": allowed})
    answer = await aimux.send(preflight(ASKS + f"Access-Control-Request-Headers: {WANTED}\r\n"))
    head = head_of(answer).decode()
    assert status_of(answer) == 204
    assert f"access-control-allow-origin: {PAGE}" in head
    assert f"access-control-allow-headers: {WANTED}" in head
    assert "access-control-allow-methods: get, post" in head
    assert "vary: origin" in head
    assert "allow-credentials" not in head, "a browser sends nothing by itself that would open anything"
    assert not upstream.requests
    real = await aimux.send(request(headers=f"Origin: {PAGE}\r\n"))
    assert status_of(real) == 200
    assert f"access-control-allow-origin: {PAGE}".encode() in head_of(real)
    refused = await aimux.send(request(headers=f"Origin: {PAGE}\r\n", token="wrong-wrong-wrong-wrong"))
    assert status_of(refused) == 401
    assert f"access-control-allow-origin: {PAGE}".encode() in head_of(refused), "or the page can't read why"


@pytest.mark.parametrize("origins", [None, [], ["https://other.example"], [f"{PAGE}.evil.example"]])
async def test_any_other_may_not(start: Start, upstream: Upstream, origins: list[str] | None) -> None:
    aimux = await start(**({} if origins is None else {"cors": {"allowed_origins": origins}}))
    answer = await aimux.send(preflight())
    assert status_of(answer) == 403, "no token was missing"
    assert b"access-control-" not in head_of(answer)
    assert not upstream.requests
    assert b"access-control-" not in head_of(await aimux.send(request(headers=f"Origin: {PAGE}\r\n")))


@pytest.mark.parametrize("users", [None, []])
@pytest.mark.parametrize(
    ("origin", "page"),
    [("app://obsidian.md", "page of app://obsidian.md"), ("file://", "page of file://"), ("a\tb", "page without an")],
)
async def test_whoever_runs_aimux_reads_which_page_was_refused(
    start: Start, users: list[str] | None, origin: str, page: str
) -> None:
    """Its user can't: the browser says no more than that it failed."""
    aimux = await start(**({} if users is None else {"users": users}))
    for _ in range(2):
        answer = await aimux.send(preflight(f"Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n"))
        assert status_of(answer) == 403
        assert f"A {page}".encode() in body_of(answer)
        assert b"cors.allowed_origins" in body_of(answer)
    (said,) = [line for line in aimux.log.splitlines() if "cors.allowed_origins" in line]
    assert f"A {page}" in said


async def test_the_log_does_not_grow_with_the_origins_that_somebody_makes_up(start: Start) -> None:
    aimux = await start()
    for number in range(TOLD + 5):
        await aimux.send(preflight(f"Origin: https://{number}.example\r\nAccess-Control-Request-Method: GET\r\n"))
    assert aimux.log.count("cors.allowed_origins") == TOLD


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (f"Origin: {PAGE}\r\n", 401),
        ("Access-Control-Request-Method: POST\r\n", 401),
        (ASKS + "Access-Control-Request-Headers: <script>\r\n", 204),
        (ASKS + "Access-Control-Request-Private-Network: true\r\n", 204),
    ],
)
async def test_only_a_preflight_is_answered_without_a_token(
    start: Start, upstream: Upstream, headers: str, status: int
) -> None:
    aimux = await start(cors={"allowed_origins": [PAGE]})
    answer = await aimux.send(preflight(headers))
    assert status_of(answer) == status
    assert b"<script>" not in answer
    assert (b"allow-private-network: true" in answer) is ("Private" in headers)
    assert not upstream.requests


async def test_what_the_upstream_allows_stays_unless_it_leaves_the_page_out(start: Start, upstream: Upstream) -> None:
    aimux = await start(cors={"allowed_origins": [PAGE]})
    said = ["*", PAGE, "https://vendor.example"]
    allows = [f"\r\nAccess-Control-Allow-Origin: {origin}\r\n\r\n".encode() for origin in said]
    script(upstream, {"default": [OK.replace(b"\r\n\r\n", one) for one in allows]})
    for told in ("*", PAGE, PAGE):
        head = head_of(await aimux.send(request(headers=f"Origin: {PAGE}\r\n"))).decode()
        assert head.count("access-control-allow-origin: ") == 1
        assert f"access-control-allow-origin: {told}" in head


@pytest.mark.parametrize(("origins", "status"), [([PAGE], 200), (["*"], 403), ([], 403)])
async def test_without_users_a_page_that_is_allowed_by_name_is_served(
    start: Start, origins: list[str], status: int
) -> None:
    aimux = await start(users=[], cors={"allowed_origins": origins})
    sent = request(token=None, headers=f"Origin: {PAGE}\r\nSec-Fetch-Site: cross-site\r\n")
    assert status_of(await aimux.send(sent.replace(b"Host: gateway", b"Host: 127.0.0.1"))) == status


async def test_an_error_of_the_upstreams_can_be_read_too(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": error(400, body=b'{"e":"yours"}')})
    aimux = await start(cors={"allowed_origins": [PAGE]})
    answer = await aimux.send(request(headers=f"Origin: {PAGE}\r\n", token=TOKEN))
    assert (status_of(answer), body_of(answer)) == (400, b'{"e":"yours"}')
    assert b"access-control-allow-origin" in head_of(answer)
