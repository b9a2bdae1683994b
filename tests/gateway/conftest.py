"""A whole aimux in this process, in front of an upstream whose bytes a test scripts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from aimux.accounts import Account
from aimux.app import App
from aimux.config import load_config
from aimux.plugin import (
    Action,
    ErrorAnswer,
    GatewayError,
    Hints,
    JSONMeter,
    LimitState,
    LimitWindow,
    MessageMeter,
    Meter,
    Provider,
    RequestHead,
    SSEMeter,
    Verdict,
)
from aimux.plugin.body import Body
from aimux.plugin.formats.openai_meters import ResponsesSocket
from aimux.plugin.loader import Plugin, Plugins
from aimux.plugin.types import RELAY
from tests.blocking import _nothing_blocks_the_loop  # noqa: F401 - a fixture
from tests.inprocess import embedded, serving

TOKEN = "test-token-0123456789abcdef"
SECRET = "upstream-secret-0123456789"


Headers = CIMultiDict[str] | CIMultiDictProxy[str]


class StreamMeter(SSEMeter):
    needles: ClassVar[tuple[bytes, ...]] = (b'"done"', b'"tokens"', b'"faulty"')
    content: ClassVar[bytes] = b'"words"'

    def content_of(self, event: dict[str, Any]) -> int:
        return len(event["words"])

    def read(self, event: dict[str, Any]) -> None:
        if "faulty" in event:
            raise RuntimeError("a meter's fault")
        self.usage.output_tokens = event.get("tokens", self.usage.output_tokens)
        self.complete = self.complete or "done" in event


class TurnMeter(StreamMeter):
    needles = (*StreamMeter.needles, b'"used"', b'"broken"', b'"lacks"', b'"revoked"', b'"busy"')

    def read(self, event: dict[str, Any]) -> None:
        super().read(event)
        if "used" in event:
            self.limits = (LimitWindow("5h", used=event["used"]),)
        if event.get("limited"):
            until = time.time() + event["limited"]
            self.verdict = Verdict(Action.COOL_DOWN, "limited", until=until, model=event.get("of"))
        if "revoked" in event:
            self.verdict = Verdict(Action.REFRESH, "not accepted")
        if "busy" in event:
            self.verdict = Verdict(Action.BACK_OFF, "overloaded")
        if "lacks" in event:
            self.verdict = Verdict(Action.MISSING, "it does not have the model", model=event["lacks"])
        if "broken" in event:
            raise RuntimeError("a meter's fault")


class AnswerMeter(JSONMeter):
    def read(self, answer: dict[str, Any]) -> None:
        self.usage.output_tokens = answer.get("tokens", 0)
        self.stored = (answer["id"],) if "id" in answer else ()


ADDRESSES = re.compile(rb'(?<=")https://[^"/]+(?=/v1/jobs/)')


class Plain(Provider):
    """Bearer key, JSON, SSE whose last event holds "done"."""

    name = "plain"
    wire_format = "plain"
    hidden_headers = frozenset({"x-account"})
    limit_header_prefix = "x-limit-"

    def meter(self, request: RequestHead, status: int, headers: Headers) -> Meter | None:
        if status != 200:
            return None
        return StreamMeter() if headers.get("content-type") == "text/event-stream" else AnswerMeter()

    def websocket(self, request: RequestHead) -> bool:
        return request.path == "/v1/socket"

    def websocket_meter(self, request: RequestHead) -> MessageMeter | None:
        if "x-unmetered" in request.headers:
            return None
        return (ResponsesSocket if "x-lanes" in request.headers else MessageMeter)(TurnMeter)

    def hints(self, request: RequestHead) -> Hints:
        return Hints(request.headers.get("x-class", ""))

    def conversation_key(self, request: RequestHead, body: Body) -> str | None:
        return request.headers.get("x-conversation")

    def opening(self, headers: Headers, payload: bytes, *, model: str = "") -> Verdict | None:
        if b"\n\n" not in payload:
            return None
        return Verdict(Action.BACK_OFF, "overloaded") if payload.startswith(b"event: error") else RELAY

    def list_models(self, request: RequestHead, answer: bytes, names: Mapping[str, str]) -> bytes | None:
        if request.path != "/v1/models":
            return None
        listed = json.loads(answer) if answer else {"data": []}
        return json.dumps(listed | {"data": [*listed["data"], *({"id": name} for name in names)]}).encode()

    def own_addresses(self, request: RequestHead) -> re.Pattern[bytes] | None:
        return ADDRESSES if request.path.startswith("/v1/jobs") else None

    def classify(self, status: int, headers: Headers, body: bytes, *, model: str = "") -> Verdict:
        if status == 403 and b"revoked" in body:
            return Verdict(Action.PARK, "revoked")
        if b"unreadable" in body:
            return Verdict(Action.MISSING, "it can't read that")
        if b"no such model" in body:
            return Verdict(Action.MISSING, "it does not have the model", model=model)
        return super().classify(status, headers, body, model=model)

    def limit_headers(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> Mapping[str, str]:
        own = {f"x-limit-{limit.period}": f"{limit.part:.2f}" for limit in limits}
        return own or {f"x-limit-{window.name}": f"{window.used:.2f}" for window in windows}

    def limit_event(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
        told = self.limit_headers(limits, windows).items()
        return json.dumps({name.removeprefix("x-limit-"): value for name, value in told}).encode()

    def stream_error(self, error: GatewayError, request: RequestHead) -> bytes:
        return b"event: error\ndata: " + json.dumps({"message": error.message}).encode() + b"\n\n"

    def websocket_error(self, error: GatewayError, request: RequestHead) -> bytes:
        return json.dumps({"error": error.message}).encode()

    def error(self, error: GatewayError) -> ErrorAnswer:
        return ErrorAnswer(json.dumps({"plain": error.message}).encode())

    def vendor_token_advice(self, token: str) -> str | None:
        return "set PLAIN_TOKEN to your aimux token" if token.startswith("vendor-") else None


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """Answers each connection with `script`, and keeps every request's bytes."""

    def __init__(self) -> None:
        self.script: Script = self.serve
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.changed = asyncio.Condition()
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listening on `port`. At the end it waits until nobody is connected."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        yield self
        server.close()
        await self.until(lambda: self.open == 0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self.script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self.open -= 1
            async with self.changed:
                self.changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self.read(reader):
            writer.write(self.answer)
            await writer.drain()

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """One request, head and body; b"" at the end."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        request = head + (await reader.readexactly(length) if length else b"")
        self.requests.append(request)
        async with self.changed:
            self.changed.notify_all()
        return request

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream().running() as fake:
        yield fake


class Aimux:
    """The running gateway and raw connections to it."""

    def __init__(self, app: App, folder: Path, port: int) -> None:
        self.app = app
        self.folder = folder
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def account(self, name: str = "default") -> Account:
        return self.app.pools["plain"].accounts[name]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    async def send(self, request: bytes) -> bytes:
        """One connection: send, and read to the end of the connection."""
        reader, writer = await self.connect()
        writer.write(request)
        async with asyncio.timeout(60):
            return await reader.read()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


def request(
    target: str = "/plain/v1/chat",
    *,
    method: str = "POST",
    body: bytes = b'{"model":"m"}',
    headers: str = "",
    token: str | None = TOKEN,
    close: bool = True,
    version: str = "1.1",
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: gateway"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, ""]).encode() + headers.encode() + b"\r\n" + body


Start = Callable[..., Awaitable[Aimux]]


BOTH_WAYS = pytest.mark.parametrize("way", ["lane", "aiohttp"])
"""For tests of what both have to do alike."""


@pytest.fixture
def way() -> str:
    """Who serves what is below a mount."""
    return "lane"


@pytest.fixture
async def start(tmp_path: Path, upstream: Upstream, way: str) -> AsyncIterator[Start]:
    """Starts an aimux with one account for each name in `accounts`; other arguments are the configuration's."""
    async with contextlib.AsyncExitStack() as stack:

        async def run(*, accounts: tuple[str, ...] = ("default",), **settings: Any) -> Aimux:
            folder = tmp_path / "state" / "plain"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in accounts:
                place = folder if name == "default" else folder / name
                place.mkdir(exist_ok=True, mode=0o700)
                path = place / Plain.credential_file
                path.write_text(json.dumps({"api_key": SECRET if name == "default" else f"{SECRET}-{name}"}))
                path.chmod(0o600)
            (tmp_path / "state").chmod(0o700)
            config = {
                "listen": "127.0.0.1:0",
                "state_dir": str(tmp_path / "state"),
                "providers": {"plain": {"base_url": f"http://127.0.0.1:{upstream.port}"}},
                "users": [{"name": "ann", "token": TOKEN}],
                **settings,
            }
            file = tmp_path / "config.json"
            file.write_text(json.dumps(config))
            plugins = Plugins([Plugin("plain", "tests", "1", ["plain"])], {"plain": Plain})
            if way == "lane":
                load = partial(load_config, file, environ={}, providers=plugins.providers)
                app = await stack.enter_async_context(serving(load, plugins, tmp_path / "log"))
                port = int(app.addresses[0].rpartition(":")[2])
            else:
                app, port = await stack.enter_async_context(embedded(file, plugins, tmp_path / "log"))
            aimux = Aimux(app, tmp_path, port)
            stack.callback(aimux.close)
            return aimux

        yield run
