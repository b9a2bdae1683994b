"""What a scripted upstream answers, and what comes of it at the client's side."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

from tests.gateway.conftest import SECRET, Aimux, Upstream

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"text":"hi"}\n\n'
DONE = b'data: {"done":1,"tokens":7}\n\n'


def error(status: int, *headers: str, body: bytes = b'{"e":1}') -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def reply(body: Any, *headers: str, status: int = 200) -> bytes:
    """JSON, which may be bytes already."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error(status, "content-type: application/json", *headers, body=raw)


def answer(tokens: int) -> bytes:
    """One that took so many."""
    return reply({"tokens": tokens})


def account_of(sent: bytes) -> str:
    """Whose credential a request came with."""
    match = re.search(rf"Bearer {SECRET}-?(\w*)".encode(), sent)
    assert match
    return match[1].decode() or "default"


def script(upstream: Upstream, answers: dict[str, bytes | list[bytes]]) -> list[str]:
    """Answer by account (a list: one after the other, the last for good). Returns the accounts asked, as they come."""
    asked: list[str] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            account = account_of(sent)
            asked.append(account)
            answer = answers[account]
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            if not answer:
                return
            writer.write(answer)
            await writer.drain()

    upstream.script = run
    return asked


def once(upstream: Upstream, answer: bytes) -> None:
    """Each connection gets this for its first request, and ends."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(answer)
        await writer.drain()

    upstream.script = run


def status_of(answer: bytes) -> int:
    return int(answer[9:12])


def head_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[0].lower()


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def json_of(answer: bytes) -> Any:
    return json.loads(body_of(answer))


def payload_of(answer: bytes) -> bytes:
    """The body without its chunks' frames, which aiohttp makes of its own; also one that is cut short."""
    rest = body_of(answer)
    if b"transfer-encoding: chunked" not in head_of(answer):
        return rest
    payload = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        payload += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return payload


def state(aimux: Aimux, account: str) -> str:
    return aimux.account(account).state(time.time()).status
