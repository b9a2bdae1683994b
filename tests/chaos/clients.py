"""Two hundred clients of seven kinds. Each writes down what became of its requests, and believes nobody."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import websockets
from websockets.asyncio.client import connect

from .ledger import Entry, Ledger

LIMIT = 60.0
"""Seconds for one answer: nothing that is tried takes so long, so that whoever waits longer waits for ever."""


class NotWhole(Exception):
    """The connection ended before the answer did."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Door:
    """How clients get in."""

    address: tuple[str, int]
    context: ssl.SSLContext | None
    tokens: list[str]
    ledger: Ledger
    over: bool = False
    """Begin nothing new."""

    async def connect(self, *, receive_buffer: int | None = None) -> Connection:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self.address)
            name = "localhost" if self.context else None
            reader, writer = await asyncio.open_connection(sock=sock, ssl=self.context, server_hostname=name)
        except (OSError, asyncio.IncompleteReadError):
            sock.close()
            raise
        return Connection(reader, writer, sock)


class Connection:
    """HTTP/1.1 by hand: what is whole and what is not has to be seen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sock: socket.socket) -> None:
        self.reader = reader
        self.writer = writer
        self._sock = sock

    async def send(self, request: bytes) -> None:
        self.writer.write(request)
        await self.writer.drain()

    async def answer(self, progress: Callable[[bytes], Awaitable[None]] | None = None) -> Answer:
        """One whole answer; `progress` sees its body as it comes. Raises NotWhole, whose `args` hold what there was."""
        block = b""
        answer = Answer(0, {})
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
        except (ConnectionError, ssl.SSLError):
            raise NotWhole(answer) from None

    def close(self) -> None:
        self.writer.transport.abort()
        self.writer.close()

    def reset(self) -> None:
        """RST, as Claude Code's Ctrl-C."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def request(provider: str, tag: str, token: str, *, stream: bool, simulator: str = "") -> bytes:
    words = f"{tag} says hello"
    if provider == "claude":
        path = "/claude/v1/messages"
        body = {"model": "claude-sonnet-5", "max_tokens": 99, "messages": [{"role": "user", "content": words}]}
    else:
        path = "/chatgpt/v1/responses"
        body = {"model": "gpt-5.5", "input": [{"role": "user", "content": words}], "store": False}
    raw = json.dumps(body | {"stream": stream}).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        "anthropic-version: 2023-06-01",
        f"x-request-id: {tag}",
        f"Content-Length: {len(raw)}",
        *([f"x-simulator: {simulator}"] if simulator else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def words(body: bytes) -> str:
    """The text that an answer's body adds up to, streamed or not."""
    parts = []
    lines = [line[5:] for line in body.split(b"\n") if line.startswith(b"data:")] or [body]
    for line in lines:
        try:
            parts.append(_text(json.loads(line)))
        except ValueError:
            parts.append(line.decode("utf-8", "replace"))  # half an event
    return "".join(parts)


def _text(event: dict[str, object]) -> str:
    match event:
        case {"type": "content_block_delta", "delta": {"text": str(text)}}:
            return text
        case {"type": "response.output_text.delta", "delta": str(text)}:
            return text
        case {"type": "message", "content": [{"text": str(text)}, *_]}:
            return text
        case {"object": "response", "output": list(output)}:
            return json.dumps(output, ensure_ascii=False)
    return ""


ENDED = re.compile(rb"event: (message_stop|response\.completed)\r?\n")
FAILED = re.compile(rb"event: (error|response\.failed)\r?\n")


def judge(ledger: Ledger, entry: Entry, answer: Answer, *, whole: bool, stream: bool) -> None:
    """Write down how a request ended."""
    entry.status = answer.status
    head = "\r\n".join(f"{name}: {value}" for name, value in answer.headers.items()).encode()
    ledger.received(entry, head + b"\r\n" + answer.body)
    if answer.status and answer.headers.get("x-request-id") != entry.tag:
        ledger.violations.append(f"{entry.tag} got the answer to {answer.headers.get('x-request-id')}")
    text = words(answer.body)
    if answer.status != 200:
        entry.end = "failed" if whole else "broken"
        entry.detail = answer.body.decode("utf-8", "replace")[:300]
        ledger.said(entry, text, whole=False)
        return
    if not whole:
        entry.end = "broken"
    elif stream and not ENDED.search(answer.body):
        entry.end = "failed"
        entry.detail = "an error event"
        if not FAILED.search(answer.body):
            ledger.violations.append(f"{entry.kind} {entry.tag} ended cleanly before its time: {answer.body[-200:]!r}")
    else:
        entry.end = "whole"
    ledger.said(entry, text, whole=entry.end == "whole")


async def ask(door: Door, connection: Connection, entry: Entry, *, stream: bool, simulator: str = "") -> Answer | None:
    """One request and its answer, judged. None: it is not whole, and the connection is over."""
    token = random.choice(door.tokens)
    try:
        async with asyncio.timeout(LIMIT):
            try:
                await connection.send(request(entry.provider, entry.tag, token, stream=stream, simulator=simulator))
            except (ConnectionError, ssl.SSLError):
                raise NotWhole(Answer(0, {})) from None
            answer = await connection.answer()
    except NotWhole as error:
        judge(door.ledger, entry, error.args[0], whole=False, stream=stream)
        return None
    except TimeoutError:
        door.ledger.violations.append(f"{entry.kind} {entry.tag} got no end within {LIMIT:g} s")
        entry.end = "broken"
        return None
    judge(door.ledger, entry, answer, whole=True, stream=stream)
    return answer


# --- the kinds --------------------------------------------------------------------------------------------------------


async def plain(door: Door, provider: str, kind: str) -> None:
    """Some requests on one connection, streamed or not (Codex's backend only streams)."""
    provider = provider if kind == "stream" else "claude"
    connection = await door.connect()
    try:
        for number in range(random.randint(1, 4)):
            with door.ledger.request(provider, kind) as entry:
                answer = await ask(door, connection, entry, stream=kind == "stream")
                if answer is None and not entry.status and number:
                    # A kept connection may be closed just as it is used again: clients send their request anew.
                    entry.end = "as asked"
            if answer is None or answer.headers.get("connection") == "close" or door.over:
                return
            await asyncio.sleep(random.uniform(0, 1.0))
    finally:
        connection.close()


async def abort(door: Door, provider: str, kind: str) -> None:
    """Goes away in the middle of a stream, politely or not, at whatever byte."""
    connection = await door.connect()
    patience = random.randint(1, 900)

    class Enough(Exception):
        pass

    async def progress(piece: bytes) -> None:
        nonlocal patience
        seen.extend(piece)
        patience -= len(piece)
        if patience <= 0:
            raise Enough

    seen = bytearray()
    with door.ledger.request(provider, kind) as entry:
        try:
            async with asyncio.timeout(LIMIT):
                await connection.send(request(provider, entry.tag, random.choice(door.tokens), stream=True))
                if random.random() > 0.2:
                    await connection.answer(progress)
        except (Enough, NotWhole, ConnectionError, ssl.SSLError):
            pass
        door.ledger.received(entry, bytes(seen))
        door.ledger.said(entry, words(bytes(seen)), whole=False)
        entry.end = "left"
    connection.reset() if random.random() < 0.5 else connection.close()


async def slow(door: Door, provider: str, kind: str) -> None:
    """Reads a large answer in small sips."""
    connection = await door.connect(receive_buffer=8192)
    try:
        with door.ledger.request(provider, kind) as entry:
            token = random.choice(door.tokens)
            sent = request(provider, entry.tag, token, stream=True, simulator="size:300000,events:60")

            async def sip(_: bytes) -> None:
                await asyncio.sleep(0.02)

            try:
                async with asyncio.timeout(LIMIT):
                    await connection.send(sent)
                    answer = await connection.answer(sip)
            except (NotWhole, ConnectionError, ssl.SSLError) as error:
                answer = error.args[0] if isinstance(error, NotWhole) else Answer(0, {})
                judge(door.ledger, entry, answer, whole=False, stream=True)
            else:
                judge(door.ledger, entry, answer, whole=True, stream=True)
    finally:
        connection.close()


async def stranger(door: Door, provider: str, kind: str) -> None:
    """Has no token, or a wrong one."""
    connection = await door.connect()
    try:
        with door.ledger.request(provider, kind) as entry:
            token = "" if random.random() < 0.5 else "wrong-token-" + entry.tag[-8:]
            try:
                await connection.send(request(provider, entry.tag, token, stream=True))
                answer = await connection.answer()
            except (NotWhole, ConnectionError, ssl.SSLError):
                entry.end = "broken"
                return
            judge(door.ledger, entry, answer, whole=True, stream=True)
            if answer.status in {401, 429} and answer.headers.get("x-should-retry") == "false":
                entry.end = "as asked"
    finally:
        connection.close()


ASKED = {
    "400": "400",
    "404": "404",
    "413": "413",
    "403": "403",
    "429": "429",
    "500": "500",
    "529": "529",
    "503:1": "503",
    "307": "307",
    "reset:2": "broken",
    "cut:2": "broken",
    "end:2": "broken",
    "overload:1": "failed",
    "drop": "502",
    "tiny:9": "whole",
    "split": "whole",
    "huge": "whole",
    "slow-start:0.4": "whole",
    "interim:9": "whole",
    "leaky": "whole",
    "extensions,trailers": "whole",
    "close": "whole",
    "http10": "whole",
    "stale": "whole",
}
"""A scenario that every account plays, and what a client has to see of it."""


async def asker(door: Door, provider: str, kind: str) -> None:
    """Asks for a failure, and for exactly that one."""
    connection = await door.connect()
    scenario, wanted = random.choice(list(ASKED.items()))
    try:
        with door.ledger.request(provider, kind) as entry:
            await ask(door, connection, entry, stream=True, simulator=scenario)
            got = str(entry.status) if entry.status not in {0, 200} else entry.end
            if got == wanted:
                entry.end = "as asked"
            else:
                entry.detail = f"{scenario}: {got} in place of {wanted}; {entry.detail}"
    finally:
        connection.close()


async def talker(door: Door, provider: str, kind: str) -> None:
    """A WebSocket with a few turns."""
    host, port = door.address
    url = f"ws{'s' if door.context else ''}://{host}:{port}/chatgpt/v1/responses"
    with door.ledger.request("socket", kind) as entry:
        headers = {
            "authorization": f"Bearer {random.choice(door.tokens)}",
            "openai-beta": "responses_websockets=2026-02-06",
            "x-request-id": entry.tag,
        }
        texts = []
        try:
            async with (
                asyncio.timeout(LIMIT),
                connect(
                    url,
                    ssl=door.context,
                    server_hostname="localhost" if door.context else None,
                    additional_headers=headers,
                    user_agent_header=None,
                    proxy=None,
                ) as ws,
            ):
                for _ in range(random.randint(1, 3)):
                    create = {
                        "type": "response.create",
                        "model": "gpt-5.5",
                        "store": False,
                        "input": [{"role": "user", "content": f"{entry.tag} says hello"}],
                    }
                    await ws.send(json.dumps(create))
                    texts.append("")
                    while True:
                        message = await ws.recv(decode=False)
                        door.ledger.received(entry, message)
                        event = json.loads(message)
                        texts[-1] += _text(event)
                        if event["type"] in {"error", "response.failed"}:
                            entry.end, entry.detail = "failed", message.decode()[:300]
                            return
                        if event["type"] == "response.completed":
                            door.ledger.said(entry, texts[-1], whole=True)
                            break
                    await asyncio.sleep(random.uniform(0, 0.3))
                entry.end = "whole"
        except websockets.InvalidStatus as refused:
            entry.end, entry.status = "failed", refused.response.status_code
            entry.detail = (refused.response.body or b"").decode()[:300]
            door.ledger.received(entry, refused.response.body or b"")
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else 1006
            entry.end, entry.detail = ("closed" if code in {1001, 1012} else "broken"), str(closed)
        except (OSError, EOFError, ssl.SSLError, websockets.InvalidHandshake) as error:
            entry.end, entry.detail = "broken", repr(error)
        except TimeoutError:
            entry.end = "broken"
            door.ledger.violations.append(f"{kind} {entry.tag} got no end within {LIMIT:g} s")
        finally:
            door.ledger.said(entry, "".join(texts), whole=False)


KINDS: dict[str, tuple[int, Callable[[Door, str, str], Awaitable[None]]]] = {
    "stream": (70, plain),
    "message": (30, plain),
    "abort": (30, abort),
    "slow": (10, slow),
    "stranger": (5, stranger),
    "asker": (25, asker),
    "socket": (30, talker),
}
"""How many of each."""
CLIENTS = sum(count for count, _ in KINDS.values())


async def client(door: Door, kind: str, run: Callable[[Door, str, str], Awaitable[None]]) -> None:
    """One client, until it is over."""
    await asyncio.sleep(random.uniform(0, 2))
    while not door.over:
        try:
            await run(door, random.choice(["claude", "chatgpt"]), kind)
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            pass  # no connection: nothing was asked yet. That somebody listens at all times is the socket's doing.
        await asyncio.sleep(random.uniform(0.5, 2.5))
