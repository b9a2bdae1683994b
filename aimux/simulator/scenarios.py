"""Scenarios: what the simulator does to one answer.

A request chooses with the header `x-simulator: name[:arg…][,name…]`, which a gateway passes on like any other; else the
account's script decides, else the simulator's. Durations are seconds. N counts chunks: a chunk is one event of a stream
(the whole body of an answer that is none), unless `tiny`, `huge` or `split` cut the bytes differently.

| scenario | what happens |
| --- | --- |
| `ok` | nothing special |
| `slow-start[:SECONDS]` | the head comes after 1 second, or SECONDS |
| `gap[:SECONDS]` | that long between two chunks (default 0.1) |
| `hold[:N]` | after N chunks (default 0: head only) wait until the test calls `Simulator.release()` |
| `stall[:N]` | N chunks (default 3) and then nothing more, the connection stays open |
| `hang` | never answers |
| `tiny[:BYTES]` | chunks of BYTES (default 1) |
| `huge` | the whole stream is one chunk |
| `split` | chunks end inside UTF-8 characters and inside events, never between two events |
| `encode[:CODING]` | gzip, deflate, br or zstd, whatever the client accepts; without CODING the first one it accepts |
| `chunked` | chunked framing, also for an answer that is no stream |
| `length` | content-length framing, also for a stream |
| `close` | no framing: the body ends with the connection, and the head says so |
| `http10` | an HTTP/1.0 answer: no framing, no `connection` header |
| `trailers` | trailer fields after the last chunk |
| `extensions` | chunk extensions |
| `interim[:N]` | N informational heads (103) before the real one (default 1) |
| `early` | the answer is sent without reading the request's body |
| `drop[:rst]` | the connection ends without an answer: FIN, or RST |
| `reset[:N]` | RST after N chunks (default 3) |
| `cut[:N]` | FIN inside the chunk after the first N (default 3) |
| `end[:N]` | only N chunks (default 3), framing intact: a clean end that lacks the rest |
| `stale` | the connection is closed right after a complete answer that did not announce it |
| `STATUS` | the vendor's own error for any status from 400 to 599, e.g. `401`, `500`, `502` (an HTML page), `529` |
| `503[:SECONDS]` | the same with `retry-after` |
| `403[:revoked]`, `403:disabled`, `403:organization` | token revoked; organization disabled; OAuth not allowed for it |
| `429[:SECONDS[:WINDOW]]` | limited, without a reset or for SECONDS; in `5h`, `7d`, `7d_oi`, `primary` or `secondary` |
| `429:extra-usage` | the 429 that is about extra usage and not a limit of the account |
| `overage[:WINDOW]` | it is paid extra usage (Claude) or credits (ChatGPT): what `5h` or WINDOW includes is used up |
| `no-retry` | a refusal says `x-should-retry: false`, whatever its status usually says |
| `overload[:N]` | overload inside a 200: the protocol's failure after N content events (default 0) |
| `overload-error[:N]` | the same; from OpenAI as a bare `error` event in place of `response.failed` |
| `204`, `304` | an answer without a body |
| `301` … `308` | a redirect to `/elsewhere` |
| `events:N` | a stream of exactly N events (as far as the protocol's own frame allows) |
| `size:BYTES` | the answer's text has that many bytes |
| `tool[:NAME]` | the answer calls a tool the request offers: NAME, or the first; after its result, text |
| `leaky` | response headers that must not reach a client: cookies, hop-by-hop ones, the account's own |
| `no-rotation` | token endpoints only: the answer brings no new refresh token and the old one stays good |

At a token endpoint a status (and `hang`, `drop`) means that nothing was renewed; what else goes wrong (`reset`, `cut`,
`stall`, …) goes wrong after the token was rotated, so that the answer with the new one is lost.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = "x-simulator"
WINDOWS = {"5h": "5h", "7d": "7d", "7d_oi": "7d_oi", "primary": "5h", "secondary": "7d"}
CODINGS = ("gzip", "deflate", "br", "zstd")
STATUSES = frozenset({204, 304, 301, 302, 303, 307, 308, *range(400, 600)})
Chunk = Literal["event", "tiny", "huge", "split"]


class UnknownScenario(ValueError):
    """The text names no scenario, or gives one an argument it doesn't take."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One combination of faults; the defaults are a healthy answer. The module's table explains the fields.

    `raw` has no name in the table: bytes to send in place of any answer (then FIN, or open with `stall=0`), for tests
    of a hostile upstream.
    """

    status: int | None = None
    detail: str = ""
    seconds: float | None = None
    window: str = "5h"
    no_retry: bool = False
    overage: bool = False
    overload: int | None = None
    overload_error: bool = False
    events: int | None = None
    size: int | None = None
    tool: str | None = None
    leaky: bool = False
    rotate: bool = True

    slow_start: float = 0.0
    gap: float = 0.0
    hold: int | None = None
    stall: int | None = None
    hang: bool = False
    chunk: Chunk = "event"
    chunk_size: int = 1
    encode: str | None = None
    framing: Literal["usual", "chunked", "length", "close", "http10"] = "usual"
    trailers: bool = False
    extensions: bool = False
    interim: int = 0
    early: bool = False
    ending: Literal["complete", "drop", "drop-rst", "reset", "cut", "end", "stale"] = "complete"
    ending_at: int = 3
    raw: bytes | None = None


OK = Scenario()


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError("must be a number of seconds")
    return value


def _window(text: str) -> str:
    if text not in WINDOWS:
        raise ValueError(f"the window must be one of {', '.join(WINDOWS)}")
    return WINDOWS[text]


def _coding(text: str) -> str:
    if text not in CODINGS:
        raise ValueError(f"must be one of {', '.join(CODINGS)}")
    return text


def _ending(ending: str) -> Callable[..., dict[str, Any]]:
    return lambda at="3": {"ending": ending, "ending_at": _count(at)}


def _status(status: int) -> Callable[..., dict[str, Any]]:
    """Arguments of a status: seconds with an optional window, or a word that picks the vendor's wording."""

    def parse(first: str = "", window: str = "5h") -> dict[str, Any]:
        if (first and status in {403, 401}) or first == "extra-usage":
            return {"status": status, "detail": first}
        return {"status": status, "seconds": _seconds(first) if first else None, "window": _window(window)}

    return parse


NAMES: dict[str, Callable[..., dict[str, Any]]] = {
    "ok": lambda: {"status": None},
    "slow-start": lambda seconds="1": {"slow_start": _seconds(seconds)},
    "gap": lambda seconds="0.1": {"gap": _seconds(seconds)},
    "hold": lambda n="0": {"hold": _count(n)},
    "stall": lambda n="3": {"stall": _count(n)},
    "hang": lambda: {"hang": True},
    "tiny": lambda size="1": {"chunk": "tiny", "chunk_size": max(1, _count(size))},
    "huge": lambda: {"chunk": "huge"},
    "split": lambda: {"chunk": "split"},
    "encode": lambda coding="": {"encode": _coding(coding) if coding else "accepted"},
    "chunked": lambda: {"framing": "chunked"},
    "length": lambda: {"framing": "length"},
    "close": lambda: {"framing": "close"},
    "http10": lambda: {"framing": "http10"},
    "trailers": lambda: {"trailers": True},
    "extensions": lambda: {"extensions": True},
    "interim": lambda n="1": {"interim": _count(n)},
    "early": lambda: {"early": True},
    "drop": lambda how="": {"ending": {"": "drop", "rst": "drop-rst"}[how]},
    "reset": _ending("reset"),
    "cut": _ending("cut"),
    "end": _ending("end"),
    "stale": lambda: {"ending": "stale"},
    "overage": lambda window="5h": {"overage": True, "window": _window(window)},
    "no-retry": lambda: {"no_retry": True},
    "overload": lambda n="0": {"overload": _count(n)},
    "overload-error": lambda n="0": {"overload": _count(n), "overload_error": True},
    "events": lambda n: {"events": _count(n)},
    "size": lambda n: {"size": _count(n)},
    "tool": lambda name="": {"tool": name},
    "leaky": lambda: {"leaky": True},
    "no-rotation": lambda: {"rotate": False},
}


def parse(text: str) -> Scenario:
    """Read `name[:arg…][,name…]`. Raises UnknownScenario with what is wrong and what there is."""
    scenario = OK
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, *args = part.split(":")
        reader = NAMES.get(name)
        if reader is None and name.isascii() and name.isdigit() and int(name) in STATUSES:
            reader = _status(int(name))
        if reader is None:
            raise UnknownScenario(f"{name!r} is no scenario; there are {', '.join(NAMES)}, and statuses")
        try:
            scenario = replace(scenario, **reader(*args))
        except (TypeError, ValueError, KeyError) as error:
            reason = str(error) if type(error) is ValueError else "takes other arguments"
            raise UnknownScenario(f"scenario {part!r}: {reason}") from None
    return scenario


class Script:
    """Scenarios in the order in which they will be used: `script("429:60", "ok")`; then `always`, over and over."""

    def __init__(self, always: str | Scenario | None = None) -> None:
        self.always = always
        self._queue: deque[Scenario] = deque()

    def __call__(self, *scenarios: str | Scenario) -> None:
        self._queue.extend(_scenario(one) for one in scenarios)

    def __len__(self) -> int:
        return len(self._queue)

    def take(self) -> Scenario | None:
        """The next one of the queue; None when it is empty."""
        return self._queue.popleft() if self._queue else None

    def clear(self) -> None:
        self._queue.clear()
        self.always = None


def choose(header: str | None, *scripts: Script) -> Scenario:
    """The header's scenario, else the first queued one, else the first `always`. Raises UnknownScenario."""
    if header is not None:
        return parse(header)
    for script in scripts:
        if (queued := script.take()) is not None:
            return queued
    for script in scripts:
        if script.always is not None:
            return _scenario(script.always)
    return OK


def _scenario(value: str | Scenario) -> Scenario:
    return parse(value) if isinstance(value, str) else value
