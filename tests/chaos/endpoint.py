"""How clients get in: connections, HTTP/1.1 by hand, and requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .ledger import Ledger


class NotWhole(Exception):
    """The connection ended before the answer did. Its first argument is the Answer as far as it came."""


class Unconnected(Exception):
    """Nobody was there, or hung up before a request could be sent."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Endpoint:
    """Where aimux is, and whom it lets in. `over`: begin nothing new."""

    address: tuple[str, int]
    context: ssl.SSLContext | None
    tokens: list[str]
    ledger: Ledger
    over: bool = False
    strangers: list[str] = field(default_factory=list)
    """Tokens that were tried and are not of this gateway."""

    async def connect(self, *, receive_buffer: int | None = None) -> Connection:
        """Raises Unconnected, which is in the ledger then."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        connected = False
        try:
            await asyncio.get_running_loop().sock_connect(sock, self.address)
            connected = True
            name = "localhost" if self.context else None
            reader, writer = await asyncio.open_connection(sock=sock, ssl=self.context, server_hostname=name)
        except asyncio.CancelledError:
            if not connected:
                sock.close()
            else:  # half a handshake has it: that ends as if the other side had hung up
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            raise
        except OSError as error:
            sock.close()
            with self.ledger.request("", "connection") as entry:
                entry.end, entry.detail = "unconnected", repr(error)
            raise Unconnected from error
        return Connection(reader, writer, sock)


class Connection:
    """HTTP/1.1 by hand: what is whole and what is not has to be seen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sock: socket.socket) -> None:
        self.reader = reader
        self.writer = writer
        self._sock = sock
        self.last = Answer(0, {})
        """The latest answer, as far as it came."""

    async def send(self, request: bytes) -> None:
        """Raises NotWhole."""
        try:
            self.writer.write(request)
            await self.writer.drain()
        except OSError:  # TLS's errors are among them
            raise NotWhole(Answer(0, {})) from None

    async def answer(self, progress: Callable[[bytes], Awaitable[None]] | None = None) -> Answer:
        """One whole answer; `progress` sees its body as it comes. Raises NotWhole."""
        answer = self.last = Answer(0, {})
        try:
            block = await self.reader.readuntil(b"\r\n\r\n")
            lines = block.decode("latin-1").split("\r\n")
            answer.status = int(lines[0][9:12])
            answer.headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
            }
            if answer.headers.get("transfer-encoding") == "chunked":
                while True:
                    size = int((await self.reader.readuntil(b"\r\n")).partition(b";")[0], 16)
                    piece = (await self.reader.readexactly(size + 2))[:-2]
                    if not size:
                        return answer
                    answer.body += piece
                    if progress is not None:
                        await progress(piece)
            left = int(answer.headers.get("content-length", "0"))
            while left:
                piece = await self.reader.read(min(left, 8192))
                if not piece:
                    raise NotWhole(answer)
                left -= len(piece)
                answer.body += piece
                if progress is not None:
                    await progress(piece)
            return answer
        except asyncio.IncompleteReadError as error:
            answer.body += error.partial
            raise NotWhole(answer) from None
        except OSError:
            raise NotWhole(answer) from None

    def close(self) -> None:
        self.writer.transport.abort()
        self.writer.close()

    def reset(self) -> None:
        """RST, as Claude Code's Ctrl-C."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def prompt(tag: str) -> str:
    return f"{tag} says hello"


def request(provider: str, tag: str, token: str, *, stream: bool, simulator: str = "", upgrade: bool = False) -> bytes:
    """A turn of either provider's client, or the handshake of a WebSocket at the same place."""
    path = "/claude/v1/messages" if provider == "claude" else "/chatgpt/v1/responses"
    lines = [
        f"{'GET' if upgrade else 'POST'} {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token}",
        "anthropic-version: 2023-06-01",
        f"x-request-id: {tag}",
        *([f"x-simulator: {simulator}"] if simulator else []),
    ]
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        return "\r\n".join([*lines, "", ""]).encode()
    message = {"role": "user", "content": prompt(tag)}
    if provider == "claude":
        body: dict[str, object] = {"model": "claude-sonnet-5", "max_tokens": 99, "messages": [message]}
    else:
        body = {"model": "gpt-5.5", "input": [message], "store": False}
    raw = json.dumps(body | {"stream": stream}).encode()
    lines += ["Content-Type: application/json", f"Content-Length: {len(raw)}"]
    return "\r\n".join([*lines, "", ""]).encode() + raw
