"""A simulator, an HTTP client that leaves the bytes alone, and a raw socket for what no client shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator

BETA = {"anthropic-beta": "oauth-2025-04-20", "anthropic-version": "2023-06-01"}
MESSAGE: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Grüß Gott"}],
}
RESPONSE: dict[str, Any] = {"model": "gpt-5.5", "input": "Grüß Gott"}
CODEX = RESPONSE | {"stream": True, "store": False}


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


def claude(sim: Simulator, account: str = "claude", **extra: str) -> dict[str, str]:
    """Headers with which an account's credential is good."""
    owner = sim.accounts[account]
    if owner.api_key:
        return {"x-api-key": owner.api_key, "anthropic-version": "2023-06-01", **extra}
    return {"authorization": f"Bearer {owner.access_token}", **BETA, **extra}


def codex(sim: Simulator, account: str = "chatgpt", **extra: str) -> dict[str, str]:
    owner = sim.accounts[account]
    return {"authorization": f"Bearer {owner.access_token}", "chatgpt-account-id": owner.account_id, **extra}


def openai(sim: Simulator, **extra: str) -> dict[str, str]:
    return {"authorization": f"Bearer {sim.accounts['openai-key'].api_key}", **extra}


def request(sim: Simulator, scenario: str = "", body: dict[str, Any] | None = None, method: str = "POST") -> bytes:
    """The bytes of a streamed Messages request."""
    data = json.dumps(MESSAGE | {"stream": True} if body is None else body).encode() if method == "POST" else b""
    path = "/anthropic/v1/messages" if method == "POST" else "/anthropic/v1/models"
    headers = claude(sim, "claude-key") | {"host": "simulator", "content-type": "application/json"}
    if data:
        headers["content-length"] = str(len(data))
    if scenario:
        headers["x-simulator"] = scenario
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data


Socket = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def connect(sim: Simulator) -> AsyncIterator[Socket]:
    """Opens connections to the simulator, and closes them in the end."""
    writers: list[asyncio.StreamWriter] = []

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(sim.host, sim.port)
        writers.append(writer)
        return reader, writer

    yield opened
    for writer in writers:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


async def head_of(reader: asyncio.StreamReader) -> tuple[str, list[tuple[str, str]]]:
    """Status line and headers of an answer."""
    raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = raw.removesuffix("\r\n\r\n").split("\r\n")
    return first, [(line.split(": ", 1)[0], line.split(": ", 1)[1]) for line in lines]


async def chunks_of(reader: asyncio.StreamReader) -> list[bytes]:
    """The chunks of a chunked body up to its terminal one, which is read as well (without trailers)."""
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return chunks
