"""Two hundred clients of seven kinds. Each writes down what became of its requests, and believes nobody."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

from .endpoint import Answer, Connection, Endpoint, NotWhole, Unconnected, prompt, request
from .judge import judge, said, text_of
from .ledger import Entry
from .world import REQUEST_TIMEOUT

LIMIT = 60.0
"""Seconds for one answer: nothing that is tried takes so long, so that whoever waits longer waits for ever."""
LARGE = 300_000


async def ask(
    endpoint: Endpoint,
    connection: Connection,
    entry: Entry,
    token: str,
    *,
    stream: bool,
    simulator: str = "",
    upgrade: bool = False,
    progress: Callable[[bytes], Awaitable[None]] | None = None,
) -> Answer | None:
    """One request and its answer, judged. None: it is not whole, and the connection is over."""
    sent = request(entry.provider, entry.tag, token, stream=stream, simulator=simulator, upgrade=upgrade)
    try:
        async with asyncio.timeout(LIMIT):
            await connection.send(sent)
            answer = await connection.answer(progress)
    except NotWhole as error:
        judge(endpoint.ledger, entry, error.args[0], whole=False, stream=stream)
        return None
    except TimeoutError:
        endpoint.ledger.violations.append(f"{entry.kind} {entry.tag} got no end within {LIMIT:g} s ({simulator})")
        entry.end = "broken"
        return None
    judge(endpoint.ledger, entry, answer, whole=True, stream=stream)
    return answer


# --- the kinds --------------------------------------------------------------------------------------------------------


async def plain(endpoint: Endpoint, dice: random.Random, provider: str, kind: str) -> None:
    """Some requests on one connection, streamed or not (Codex's backend only streams)."""
    provider = provider if kind == "stream" else "claude"
    connection = await endpoint.connect()
    try:
        for number in range(dice.randint(1, 4)):
            with endpoint.ledger.request(provider, kind) as entry:
                answer = await ask(endpoint, connection, entry, dice.choice(endpoint.tokens), stream=kind == "stream")
                if answer is None and not entry.status and number:
                    entry.end = "unanswered"
            if answer is None or answer.headers.get("connection") == "close" or endpoint.over:
                return
            await asyncio.sleep(dice.uniform(0, 1.0))
    finally:
        connection.close()


async def abort(endpoint: Endpoint, dice: random.Random, provider: str, kind: str) -> None:
    """Goes away in the middle of a stream, politely or not, at whatever byte."""
    connection = await endpoint.connect()
    patience = dice.randint(1, 900)
    waits = dice.random() > 0.2
    size = 0

    class Enough(Exception):
        pass

    async def progress(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        if size >= patience:
            raise Enough

    try:
        with endpoint.ledger.request(provider, kind) as entry:
            try:
                if waits:
                    await ask(endpoint, connection, entry, dice.choice(endpoint.tokens), stream=True, progress=progress)
                else:
                    await connection.send(request(provider, entry.tag, dice.choice(endpoint.tokens), stream=True))
                    entry.end = "left"
            except NotWhole:
                entry.end = "broken"
            except Enough:
                judge(endpoint.ledger, entry, connection.last, whole=False, stream=True)
                entry.end = "left"
    finally:
        connection.reset() if dice.random() < 0.5 else connection.close()


async def slow(endpoint: Endpoint, dice: random.Random, provider: str, kind: str) -> None:
    """Reads a large answer in small sips."""
    connection = await endpoint.connect(receive_buffer=8192)
    size = 0

    async def sip(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        await asyncio.sleep(0.02)

    try:
        with endpoint.ledger.request(provider, kind) as entry:
            scenario = f"size:{LARGE},events:60"
            await ask(
                endpoint, connection, entry, dice.choice(endpoint.tokens), stream=True, simulator=scenario, progress=sip
            )
            if entry.end == "whole" and size < LARGE:
                endpoint.ledger.violations.append(f"{kind} {entry.tag} got {size} bytes")
    finally:
        connection.close()


async def stranger(endpoint: Endpoint, dice: random.Random, provider: str, kind: str) -> None:
    """Has no token, or one that is somebody's, but not of this gateway: a secret all the same."""
    connection = await endpoint.connect()
    try:
        with endpoint.ledger.request(provider, kind) as entry:
            token = "" if dice.random() < 0.3 else f"sk-ant-oat01-stranger-{dice.getrandbits(128):032x}"
            if token:
                endpoint.strangers.append(token)
            answer = await ask(endpoint, connection, entry, token, stream=True)
            if answer is not None and answer.status in {401, 429} and answer.headers.get("x-should-retry") == "false":
                entry.end = "as asked"
    finally:
        connection.close()


ASKED = {
    "400": "400",
    "403": "403",
    "404": "404",
    "405": "405",
    "413": "413",
    "422": "422",
    "426": "426",
    "429": "429",
    "429:extra-usage": "429",
    "500": "500",
    "501": "501",
    "502": "502",
    "503:1": "503",
    "504": "504",
    "529": "529",
    "drop": "502",
    "drop:rst": "502",
    "early,500": "500",
    "reset:2": "told",
    "end:2": "told",
    "end:2,close": "told",
    "cut:2": "broken",
    "overload:1": "failed",
    "overload-error:1": "failed",
    "tiny:29": "whole",
    "split": "whole",
    "huge": "whole",
    "slow-start:0.4": "whole",
    "interim:9": "whole",
    "leaky": "whole",
    "extensions,trailers": "whole",
    "close": "whole",
    "http10": "whole",
    "length": "whole",
    "stale": "whole",
}
"""A scenario that every account plays, and what a client has to see of it: a status, or how a 200 ends."""
TRIED_AGAIN = frozenset({"500", "502", "503", "529"})
REDIRECTED = {"claude": "502", "chatgpt": "400"}
"""No redirect goes on to a client; Codex would ask for a 502 thirty times, and stops at a 400."""
UPGRADED = {"claude": ("", "426"), "chatgpt": ("426", "426")}
"""Claude's API has no WebSocket; where ChatGPT's has none today, Codex goes on over HTTP."""


async def asker(endpoint: Endpoint, dice: random.Random, provider: str, kind: str) -> None:
    """Asks for a failure, and for exactly that one."""
    connection = await endpoint.connect()
    upgrade = False
    scenario = dice.choice([*ASKED, "307", "upgrade"])
    wanted = ASKED.get(scenario, REDIRECTED[provider])
    if scenario == "upgrade":
        (scenario, wanted), upgrade = UPGRADED[provider], True
    try:
        with endpoint.ledger.request(provider, kind) as entry:
            token = dice.choice(endpoint.tokens)
            await ask(endpoint, connection, entry, token, stream=True, simulator=scenario, upgrade=upgrade)
            got = str(entry.status) if entry.status not in {0, 200} else entry.end
            # On a busy machine its time may be up before the last account has failed it.
            late = got == "504" and time.monotonic() - entry.began > REQUEST_TIMEOUT
            if got == wanted or (late and wanted in TRIED_AGAIN):
                entry.end = "as asked"
            else:
                entry.detail = f"{scenario}: {got} in place of {wanted}; {entry.detail}"
    finally:
        connection.close()


async def talker(endpoint: Endpoint, dice: random.Random, provider: str, kind: str) -> None:
    """A WebSocket with a few turns, which ends as Codex ends it, or with a close frame, or in the middle of a turn."""
    host, port = endpoint.address
    url = f"ws{'s' if endpoint.context else ''}://{host}:{port}/chatgpt/v1/responses"
    with endpoint.ledger.request("socket", kind) as entry:
        headers = {
            "authorization": f"Bearer {dice.choice(endpoint.tokens)}",
            "openai-beta": "responses_websockets=2026-02-06",
            "x-request-id": entry.tag,
        }
        # While aimux restarts they wait at the endpoint, as all the others do.
        options: dict[str, Any] = {"user_agent_header": None, "proxy": None, "open_timeout": None}
        if endpoint.context:
            options |= {"ssl": endpoint.context, "server_hostname": "localhost"}
        try:
            async with (
                asyncio.timeout(LIMIT),
                connect(url, additional_headers=headers, **options) as ws,
            ):
                assert ws.response is not None
                endpoint.ledger.received(entry, str(ws.response.headers).encode())
                turns = dice.randint(1, 3)
                for _ in range(turns):
                    # One in twenty turns ends early.
                    patience = dice.randint(1, 8) if dice.random() < 0.05 else None
                    await turn(endpoint, entry, ws, patience)
                    if entry.end:
                        break
                    await asyncio.sleep(dice.uniform(0, 0.3))
                else:
                    entry.end = "whole"
                if entry.end == "left" or dice.random() < 0.5:
                    ws.transport.abort()
        except websockets.InvalidStatus as refused:
            entry.end, entry.status = "failed", refused.response.status_code
            body = bytes(refused.response.body or b"")
            entry.detail = body.decode()[:300]
            endpoint.ledger.received(entry, body)
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else 1006
            entry.end, entry.detail = ("closed" if code in {1001, 1012} else "broken"), str(closed)
        except (OSError, EOFError, websockets.InvalidHandshake) as error:
            entry.end, entry.detail = "broken", repr(error)
        except TimeoutError:
            entry.end = "broken"
            endpoint.ledger.violations.append(f"{kind} {entry.tag} got no end within {LIMIT:g} s")


async def turn(endpoint: Endpoint, entry: Entry, ws: ClientConnection, patience: int | None) -> None:
    """One turn; `patience`: so many messages are enough. It sets `entry.end` only if the socket ends with it."""
    message = {"role": "user", "content": prompt(entry.tag)}
    await ws.send(json.dumps({"type": "response.create", "model": "gpt-5.5", "store": False, "input": [message]}))
    text, kind, count = "", "", 0
    try:
        while kind != "response.completed":
            raw = await ws.recv(decode=False)
            endpoint.ledger.received(entry, raw)
            text += text_of(raw)
            kind = json.loads(raw)["type"]
            count += 1
            if kind in {"error", "response.failed"}:
                entry.end, entry.detail = "failed", raw.decode()[:300]
                return
            if count == patience:
                entry.end = "left"
                return
    finally:
        said(endpoint.ledger, entry, text, whole=kind == "response.completed")


Kind = Callable[[Endpoint, random.Random, str, str], Awaitable[None]]
KINDS: dict[str, tuple[int, Kind]] = {
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


async def client(endpoint: Endpoint, dice: random.Random, kind: str, run: Kind) -> None:
    """One client, until it is over."""
    await asyncio.sleep(dice.uniform(0, 2))
    while not endpoint.over:
        try:
            await run(endpoint, dice, dice.choice(["claude", "chatgpt"]), kind)
        except Unconnected:
            pass  # the ledger has it
        await asyncio.sleep(dice.uniform(0.5, 2.5))
