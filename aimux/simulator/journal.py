"""What the simulator received, to the byte, and events to wait for, so that no test has to sleep."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Received:
    """One request. `target` and `headers` are as on the wire, in their order; `connection` tells sockets apart.

    `base` is the part of the simulator that was asked: `anthropic`, `openai`, `chatgpt`, `oauth/anthropic` or
    `oauth/openai`, empty for none of them. `aborted`: the client left before the answer was out. `status` is None
    while there is no answer yet.
    """

    number: int
    connection: int
    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    base: str = ""
    body: bytes = field(default=b"", repr=False)
    account: str | None = None
    status: int | None = None
    usage: dict[str, Any] | None = None
    pongs: list[bytes] = field(default_factory=list)
    """What pings of the simulator were answered with, on a WebSocket."""
    aborted: bool = False
    done: bool = False

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order; `name` in any case."""
        key = name.lower().encode()
        return [value.decode("latin-1") for header, value in self.headers if header.lower() == key]

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next(iter(self.values(name)), None)

    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


class Journal:
    """The last `keep` requests and counts of all. Counts are what `wait` compares with: they never go down."""

    def __init__(self, keep: int) -> None:
        self.requests: deque[Received] = deque(maxlen=keep)
        self.received: Counter[str] = Counter()
        self.aborted = 0
        self.open = 0
        self.held = 0
        self._changed = asyncio.Event()

    @property
    def total(self) -> int:
        return self.received.total()

    def arrive(self, request: Received) -> None:
        """The request was read (its body as far as the client sent it)."""
        self.requests.append(request)
        self.received[request.base] += 1
        self.changed()

    def leave(self, request: Received, *, aborted: bool) -> None:
        """The exchange is over, in whatever way."""
        request.done = True
        request.aborted = aborted
        self.aborted += aborted
        self.open -= 1
        self.changed()

    def changed(self) -> None:
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` is true; it is checked after every change."""
        while not condition():
            await self._changed.wait()
