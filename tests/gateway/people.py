"""People who are kept in the database, and what their requests come to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aimux.http.framing import chunk
from aimux.people import Actor, User, issuing, users
from tests.gateway.answers import EVENT, SSE, json_of, status_of
from tests.gateway.conftest import Aimux, Upstream, request

ADMIN = Actor("admin")


async def add(aimux: Aimux, name: str, *scopes: str, token_scopes: tuple[str, ...] = (), **values: Any) -> str:
    """A user with a token: the token."""
    await users.add(aimux.app.people, ADMIN, User(name, scopes=scopes, **values))
    return (await issuing.issue(aimux.app.people, ADMIN, name, scopes=token_scopes)).secret


async def status(aimux: Aimux, token: str, **options: Any) -> tuple[int, str]:
    answer = await aimux.send(request(token=token, **options))
    return status_of(answer), json_of(answer).get("plain", "")


@pytest.fixture
def streaming(upstream: Upstream) -> None:
    """Upstreams that send an event and then wait for the end."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + chunk(EVENT))
        await reader.read()

    upstream.script = script


async def stream(aimux: Aimux, token: str) -> asyncio.StreamReader:
    """An open one, with its first event read."""
    reader, writer = await aimux.connect()
    writer.write(request(close=False, token=token))
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(EVENT)
    return reader
