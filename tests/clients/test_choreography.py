"""What Claude Code and Codex do about each failure, counted: no try too many where trying is pointless, and recovery
where it is not. The rows run at once, since most of their time is waiting."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.clients.programs import claude_code, codex
from tests.clients.world import Ran, Seat, World

TOGETHER = 6
SAID = "You said: “say hi”"
OVERLOADED = "Selected model is at capacity"
FALLS_BACK = "Falling back from WebSockets"
UNSTREAMED_AT_LAST = (True, True, True, False)

# Seconds from the first try to the last. The classes are far apart, so that a busy machine does not change one.
AT_ONCE = (0.0, 8.0)
AS_TOLD = (0.8, 8.0)
"""It waits for the second that `retry-after` says, or a little less: the answer was on its way."""
BACKING_OFF = (0.5, 10.0)
"""Half a second, then one, give or take a quarter; the first try may be late, too."""
FOR_SIX_SECONDS = (4.0, 15.0)
FOR_HALF_A_MINUTE = (15.0, 60.0)


@dataclass(frozen=True)
class Row:
    """`fails`: what upstream does about the first requests; then it is well, or with `for_good` goes on with the last.

    `tries`: how many requests the client made of aimux. `upstream`: how many requests came upstream, where that tells
    more (aimux tries again too). `says` and `silent_about`: what the person reads and does not, as regular expressions.
    `streamed`: of each request, whether it asked for a stream. `took`: one of the classes above. `key`: with an OpenAI
    API key upstream; `oauth`: Claude Code takes its token for a subscription's; `patient`: Codex with its own number of
    tries.
    """

    fails: tuple[str, ...]
    tries: int | None
    says: str = SAID
    for_good: bool = False
    silent_about: str | None = None
    upstream: int | None = None
    streamed: tuple[bool, ...] | None = None
    took: tuple[float, float] = AT_ONCE
    key: bool = False
    oauth: bool = False
    patient: bool = False


def for_good(fails: str, tries: int, says: str, **more: Any) -> Row:
    return Row((fails,), tries, says, for_good=True, **more)


CLAUDE = {
    "401": for_good("401", 1, "API Error: 401", upstream=4),
    "401 that tells so": for_good("401,no-retry", 1, "API Error: 401", upstream=4),
    "403": for_good("403", 1, "API Error: 403 Your account does not have permission"),
    "403 that revokes": for_good("403:revoked", 2, "is out of service", upstream=4),
    "400": for_good("400", 6, "API Error: 400"),
    "429 for a second": Row(("429:1",), 2, took=AS_TOLD),
    "429 for minutes": for_good("429:120", 1, r"Request rejected \(429\)"),
    "429 for a second, not to be tried again": for_good("429:1,no-retry", 1, r"Request rejected \(429\)"),
    "429 of a subscription": for_good("429:30", 1, r"hit your 5-hour limit · resets \d", oauth=True),
    "429 that is none of the account": for_good("429:extra-usage", 1, "Extra usage is required"),
    "529": for_good("529", 3, "Repeated 529 Overloaded", took=BACKING_OFF),
    "529 once": Row(("529",), 2),
    "529, not to be tried again": for_good("529,no-retry", 1, "API Error: 529 Overloaded"),
    "500 once": Row(("500",), 2),
    "502 once": Row(("502",), 2),
    "503 once": Row(("503",), 2),
    "502 for good": for_good("502", 3, "API Error: 502", took=BACKING_OFF),
    "503 for good": for_good("503", 3, "API Error: 503", took=BACKING_OFF),
    # On a connection that was used before, aimux tries again by itself: the client may not even notice.
    "a connection that is reset": Row(("drop:rst",), None, upstream=2),
    "connections that are reset for good": for_good("drop:rst", 3, "claude gave no answer", took=BACKING_OFF),
    "a stream that is cut": Row(("cut:5",), 2, streamed=(True, True)),
    "streams that are cut": Row(("cut:5",) * 3, 4, streamed=UNSTREAMED_AT_LAST, took=BACKING_OFF),
    # It sees our error event first and does as with any, or first that the connection is gone: then it streams again.
    "a stream that is reset": Row(("reset:5",), 2),
    "a stream that ends too early": Row(("end:5",), 2),
    "answers that are cut for good": for_good(
        "cut:5", 4, "Connection to the API was lost", streamed=UNSTREAMED_AT_LAST, took=BACKING_OFF
    ),
    "an error in a stream": Row(("overload:3",), 2, streamed=(True, False)),
    "an error before its content": Row(("overload",), 2),
    "errors in streams for good": for_good("overload:3", 3, "Repeated 529 Overloaded"),
    # It would follow one, with its token in x-api-key, wherever that leads.
    "a redirect": for_good("307", 1, "aimux does not pass redirects on", upstream=1),
}
OLDER_CLAUDE = {
    "401": for_good("401", 1, "API Error: 401", upstream=4),
    "403": for_good("403", 1, "API Error: 403 Your account does not have permission"),
    "400": for_good("400", 1, "API Error: 400"),
    "429 of a subscription": for_good("429:30", 1, r"hit your session limit · resets \d", oauth=True),
    "529": for_good("529", 3, "Repeated 529 Overloaded", took=BACKING_OFF),
    "502 once": Row(("502",), 2),
    "a stream that is cut": Row(("cut:5",), 2, streamed=(True, False)),
    "a stream that ends too early": Row(("end:5",), 2, streamed=(True, False)),
    "an error in a stream": Row(("overload:3",), 2, streamed=(True, False)),
}
POST = {
    "429 with the usage limit": for_good("429:3600", 1, "hit your usage limit.*[Tt]ry again at"),
    "429": for_good("429", 1, "exceeded retry limit, last status: 429", upstream=2),
    "429 once": Row(("429",), 1, upstream=2),
    "400": for_good("400", 1, "Simulated error 400"),
    "429 for a second": Row(("429:1",), 2, key=True, took=AS_TOLD),
    "401": for_good("401", 2, "is out of service", upstream=4),
    "403": for_good("403", 2, "unexpected status 403"),
    "403, and all of its patience": for_good("403", 6, "unexpected status 403", patient=True, took=FOR_SIX_SECONDS),
    "500 once": Row(("500",), 2),
    "500 for good": for_good("500", 4, "high demand"),
    "500 for good, and all of its patience": for_good("500", 30, "high demand", patient=True, took=FOR_HALF_A_MINUTE),
    "a stream that is cut": Row(("cut:5",), 2),
    "a stream that is reset": Row(("reset:5",), 2),
    "a stream that ends too early": Row(("end:5",), 2),
    "streams that are cut, and all of its patience": for_good(
        "cut:5", 6, "stream disconnected before completion", patient=True, took=FOR_SIX_SECONDS
    ),
    "connections that are reset for good": for_good("drop:rst", 4, "chatgpt gave no answer"),
    "overloaded": for_good("overload", 1, OVERLOADED),
}
WEBSOCKET = {
    "426": Row(("426",), 2, silent_about=FALLS_BACK),
    # A 401 of one handshake alone is relayed, and it asks again; where the login is refused, our own answer stops it.
    "401 once": Row(("401",), 2),
    "401": for_good("401", 2, "is out of service", upstream=4),
    "403": for_good("403", 5, FALLS_BACK),
    "404": Row(("404",) * 3, 4, FALLS_BACK),
    "404, and all of its patience": Row(("404",) * 7, 8, FALLS_BACK, patient=True, took=FOR_SIX_SECONDS),
    "405": Row(("405",) * 3, 4, FALLS_BACK),
    "502": Row(("502",) * 3, 4, FALLS_BACK),
    "429 with the usage limit": for_good("429:3600", 2, "hit your usage limit.*[Tt]ry again at"),
    "a frame that is cut": Row(("ok", "cut:5"), 2),
    "a socket that is closed in mid-turn": Row(("ok", "end:5"), 2),
    "overloaded": for_good("overload", 2, OVERLOADED),
}
ROWS = {
    **{f"Claude Code, {name}": row for name, row in CLAUDE.items()},
    **{f"older Claude Code, {name}": row for name, row in OLDER_CLAUDE.items()},
    **{f"Codex, {name}": row for name, row in POST.items()},
    **{f"Codex by WebSocket, {name}": row for name, row in WEBSOCKET.items()},
}


@dataclass
class Played:
    ran: Ran
    seat: Seat


async def play(world: World, name: str, limit: asyncio.Semaphore) -> Played:
    row = ROWS[name]
    seat = world.seat(key=row.key)
    account = seat.anthropic if "Claude" in name else seat.openai
    if name.startswith("older"):
        seat.claude = "claude-code-older"
    account.script(*row.fails)
    if row.for_good:
        account.script.always = row.fails[-1]
    async with limit:
        if "Claude" in name:
            variable = "CLAUDE_CODE_OAUTH_TOKEN" if row.oauth else "ANTHROPIC_AUTH_TOKEN"
            return Played(await claude_code(seat, token="", environ={variable: seat.token}), seat)
        return Played(await codex(seat, websockets="WebSocket" in name, patient=row.patient), seat)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plays(world: World, request: pytest.FixtureRequest) -> dict[str, asyncio.Task[Played]]:
    """Those that this run of the tests asks for, at once; the longest first."""
    limit = asyncio.Semaphore(TOGETHER)
    selected = {item.name.partition("[")[2].rstrip("]") for item in request.session.items}
    wanted = sorted(selected & ROWS.keys(), key=lambda name: not ROWS[name].patient)
    return {name: asyncio.create_task(play(world, name, limit)) for name in wanted}


def parameter(name: str) -> Any:
    return pytest.param(name, id=name, marks=[pytest.mark.slow] if ROWS[name].patient else [])


@pytest.mark.parametrize("row", [parameter(name) for name in ROWS])
async def test_a_failure(plays: dict[str, asyncio.Task[Played]], row: str) -> None:
    expected, played = ROWS[row], await plays[row]
    ran, seat = played.ran, played.seat
    assert re.search(expected.says, ran.said)
    assert expected.silent_about is None or not re.search(expected.silent_about, ran.said)
    assert (ran.code, SAID in ran.out) == ((1, False) if expected.for_good else (0, True))
    if expected.tries is not None:
        await seat.world.aimux.until(lambda: len(seat.served) >= (expected.tries or 0))
        assert len(seat.served) == expected.tries
    least, most = expected.took
    assert least <= seat.elapsed < most
    if expected.upstream is not None:
        assert len(seat.sent) == expected.upstream
    if expected.streamed is not None:
        assert tuple(r.json().get("stream", False) for r in seat.sent) == expected.streamed
