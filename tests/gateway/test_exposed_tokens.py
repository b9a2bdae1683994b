"""Tokens in a request's address, or in its id: refused, and told nowhere."""

from __future__ import annotations

import json

import pytest

from .answers import body_of, head_of, status_of
from .conftest import BOTH_WAYS, TOKEN, Start, Upstream, request

OWN = "aimux_JH2OG8XblLNQsaqD4tNzXm4E2qMbKCv5VPWCpbwJbO30rc3K3"
"""Always the same: tests that run in parallel have to have the same names everywhere."""


@BOTH_WAYS
@pytest.mark.parametrize(
    "target",
    [
        f"/plain/v1/chat?token={TOKEN}",
        f"/plain/v1/chat?a=b&key={OWN}",
        f"/plain/{TOKEN}/v1/chat",
        f"/plain/v1/{OWN[:-1]}",
        f"/plain/v1/{TOKEN.replace('-', '%2D')}",
        f"/plain/v1/x;{TOKEN}",
        f"/{TOKEN}/v1/chat",
    ],
)
@pytest.mark.parametrize("token", [TOKEN, None])
async def test_a_token_in_the_address_is_refused_and_told_nowhere(
    start: Start, upstream: Upstream, target: str, token: str | None, way: str
) -> None:
    if way == "aiohttp" and not target.startswith("/plain/"):
        pytest.skip("is the outer application's")
    aimux = await start()
    for _ in range(2):
        sent = await aimux.send(request(target, token=token))
        assert status_of(sent) == 400
        assert b"token in the address of this request" in body_of(sent)
        assert b"x-should-retry: false" in head_of(sent)
    assert not upstream.requests
    await aimux.app.stop()
    told = aimux.log + sent.decode() + json.dumps([record.path for record in aimux.app.journal.latest()])
    assert TOKEN not in told
    assert OWN[:-1] not in told
    assert "path=" in aimux.log


@pytest.mark.parametrize("given", [TOKEN, OWN, "wrong-token-0123456789", "sk-ant-oat01-x"])
@pytest.mark.parametrize("target", ["/plain/v1/chat", "/health"])
async def test_nor_is_it_a_requests_id(start: Start, given: str, target: str) -> None:
    aimux = await start()
    token = given if given.startswith("wrong") else TOKEN
    sent = await aimux.send(request(target, token=token, headers=f"X-Request-Id: {given}\r\n"))
    assert b"\r\nx-request-id: req_" in head_of(sent)
    assert given not in aimux.log + sent.decode()


@pytest.mark.parametrize("name", ["api-key", "x-api-key", "x-goog-api-key"])
async def test_nor_is_what_any_key_header_holds(start: Start, name: str) -> None:
    aimux = await start()
    given = "wrong-token-0123456789"
    sent = await aimux.send(request(headers=f"{name}: {given}\r\nX-Request-Id: {given}\r\n"))
    assert b"\r\nx-request-id: req_" in head_of(sent)
    assert given not in aimux.log + sent.decode()


async def test_any_other_id_of_a_client_stays(start: Start) -> None:
    aimux = await start()
    sent = await aimux.send(request(headers="X-Request-Id: 6f1c2f9e-3b1a-4c55-9a51-0d7f0e1e2a3b\r\n"))
    assert b"x-request-id: 6f1c2f9e-3b1a-4c55-9a51-0d7f0e1e2a3b" in head_of(sent)
