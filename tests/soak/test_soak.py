"""A few seconds of everything that can happen to a request; each ends as it should, and nothing is left of any."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from aiohappyeyeballs import AddrInfoType
from websockets.asyncio.client import connect

from aimux.app import App
from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, config_of
from tests.soak.world import descriptors, gateway, others, until

REQUESTS = 600
AT_ONCE = 24
LIMITED_TOKEN = "lia-token-0123456789abcdef"
"""Whose requests meet limits, on accounts that serve nobody else: while an account is known to be limited, whoever asks
it in vain hears of the limit, whatever its upstream does."""
TURN = json.dumps(
    {
        "type": "response.create",
        "model": "gpt-5.5",
        "input": [{"role": "user", "content": "Hello!"}],
        "store": False,
        "stream": True,
    }
)

WHOLE = "whole"
"""200, the protocol's last event, and the end that the framing announced."""
FAILED = "failed"
"""200 and the upstream's own error event, to its end."""
BROKEN = "broken"
"""200, aimux's error event, and no end at all."""
TORN = "torn"
"""200, half an event, and no end at all: nothing that follows half an event can be read."""

STREAMS: Mapping[str, str] = {
    "ok": WHOLE,
    "events:150": WHOLE,
    "size:200000,events:20": WHOLE,
    "slow-start:0.05": WHOLE,
    "gap:0.005": WHOLE,
    "tiny:7": WHOLE,
    "split": WHOLE,
    "huge": WHOLE,
    "encode:gzip": WHOLE,
    "encode:deflate,tiny:9": WHOLE,
    "encode:br,events:100": WHOLE,
    "length": WHOLE,
    "close": WHOLE,
    "http10": WHOLE,
    "stale": WHOLE,
    "trailers": WHOLE,
    "extensions,split": WHOLE,
    "interim:3": WHOLE,
    "early,500": "500",
    "leaky": WHOLE,
    "overload:2": FAILED,
    "overload": FAILED,
    "reset:5": f"{BROKEN} or 502",  # a reset takes with it what has not been read yet
    "cut:4": TORN,
    "cut:5,chunked": TORN,
    "end:5": BROKEN,
    "end:4,close": BROKEN,
    "drop": "502",
    "drop:rst": "502",
    "400": "400",
    "404": "404",
    "413": "413",
    "429": "429",
    "429:1": "429",
    "500": "500",
    "503:1": "503",
    "529": "529",
}
"""What the upstream does, and how that ends for a client with one account to serve it."""
LIMITS = {"429:1"}
"""Those of them that leave the account limited for a while."""
ANSWERS = {
    name: outcome
    for name, outcome in STREAMS.items()
    if outcome.isdecimal() or (outcome == WHOLE and name not in {"events:150", "close", "http10"})
} | {"cut:0": TORN, "reset:0": f"{TORN} or 502", "overload": "529"}
"""The same for answers that are no streams."""
LONG = ("gap:0.02", "hold", "hold:4", "stall:5", "hang", "size:3000000,events:90", "gap:0.02,encode:gzip")
"""What a client runs away from."""


class Client:
    """Asks at random, and compares."""

    def __init__(self, app: App, sim: Simulator, session: aiohttp.ClientSession, rng: random.Random) -> None:
        self.app, self.sim, self.session, self.rng = app, sim, session, rng
        self.streams = itertools.cycle(rng.sample(list(STREAMS), len(STREAMS)))
        self.answers = itertools.cycle(rng.sample(list(ANSWERS), len(ANSWERS)))
        self.seen: Counter[str] = Counter()
        self.room = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        kinds = [self.stream, self.answer, self.abort, self.read_slowly, self.talk, self.hang_up]
        async with asyncio.TaskGroup() as group:
            for kind in self.rng.choices(kinds, [10, 4, 4, 1, 1, 1], k=REQUESTS):
                await self.room.acquire()
                group.create_task(kind()).add_done_callback(lambda _: self.room.release())

    def ask(self, scenario: str, *, stream: bool) -> Any:
        """One of the two vendors' requests."""
        token = LIMITED_TOKEN if scenario in LIMITS else TOKEN
        headers = {"authorization": f"Bearer {token}", "x-simulator": scenario, "accept-encoding": "gzip, deflate, br"}
        if self.rng.random() < 0.2:
            headers["connection"] = "close"
        address = self.app.addresses[0]
        text = "Grüß Gott " * self.rng.choice([1, 10, 5000])
        if stream and self.rng.random() < 0.5:
            body: dict[str, Any] = {"model": "gpt-5.5", "input": text, "stream": True, "store": False}
            return self.session.post(f"{address}/chatgpt/v1/responses", json=body, headers=headers)
        body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
        headers["anthropic-version"] = "2023-06-01"
        return self.session.post(f"{address}/claude/v1/messages", json=body | {"stream": stream}, headers=headers)

    def note(self, kind: str, scenario: str, expected: str, outcome: str, detail: object) -> None:
        assert outcome in expected.split(" or "), f"{kind} {scenario}: {outcome} instead of {expected}: {detail!r}"
        self.seen[f"{kind} {scenario}"] += 1

    # --- requests ------------------------------------------------------------------------------------------------

    async def stream(self) -> None:
        scenario = next(self.streams)
        outcome, body = await self.outcome(scenario, stream=True)
        self.note("stream", scenario, STREAMS[scenario], outcome, body[-600:])

    async def answer(self) -> None:
        scenario = next(self.answers)
        outcome, body = await self.outcome(scenario, stream=False)
        self.note("answer", scenario, ANSWERS[scenario], outcome, body[-600:])

    async def outcome(self, scenario: str, *, stream: bool) -> tuple[str, bytes]:
        body, clean = bytearray(), True
        async with self.ask(scenario, stream=stream) as answer:
            try:
                async for data in answer.content.iter_any():
                    body += data
            except aiohttp.ClientError:
                clean = False
                body += b"".join(answer.content._buffer)  # it raises before it hands out what came before the break
        if answer.status != 200:
            assert clean, "an error's answer is whole"
            return str(answer.status), bytes(body)
        if not stream:
            return (WHOLE if clean and isinstance(json.loads(body), dict) else TORN), bytes(body)
        erred = b"event: error" in body or b"event: response.failed" in body
        done = b'"type":"message_stop"' in body or b'"type":"response.completed"' in body
        match clean, erred, done:
            case True, False, True:
                return WHOLE, bytes(body)
            case True, True, False:
                return FAILED, bytes(body)
            case False, True, False:
                return BROKEN, bytes(body)
            case False, False, False:
                return TORN, bytes(body)
        return f"clean {clean}, an error {erred}, done {done}", bytes(body)

    async def abort(self) -> None:
        """Leave, at some time before the end."""
        scenario = self.rng.choice(LONG)
        outcome = "left"
        try:
            async with asyncio.timeout(self.rng.random() * 0.1):
                async with self.ask(scenario, stream=True) as answer:
                    await answer.content.readany()
                    await asyncio.sleep(1)
                    outcome = "stayed"
        except TimeoutError:
            pass
        self.note("abort", scenario, "left", outcome, None)

    async def read_slowly(self) -> None:
        """More than all the buffers between hold, in sips."""
        size = 2_000_000
        body = bytearray()
        async with self.ask(f"size:{size},events:60", stream=True) as answer:
            while data := await answer.content.read(65536):
                body += data
                await asyncio.sleep(0.005)
        whole = len(body) > size and (b'"type":"message_stop"' in body or b'"type":"response.completed"' in body)
        self.note("slow", f"size:{size},events:60", WHOLE, WHOLE if whole else TORN, body[-600:])

    # --- WebSockets ----------------------------------------------------------------------------------------------

    def socket(self, scenario: str) -> connect:
        url = f"{self.app.addresses[0].replace('http', 'ws', 1)}/chatgpt/v1/responses"
        headers = {"authorization": f"Bearer {TOKEN}", "x-simulator": scenario}
        return connect(url, additional_headers=headers, ping_interval=None, max_size=None, proxy=None)

    async def talk(self) -> None:
        """Some turns on one socket."""
        async with self.socket("ok") as socket:
            for _ in range(self.rng.randint(1, 3)):
                await socket.send(TURN)
                kind = ""
                while kind not in {"response.completed", "response.failed", "error"}:
                    event = await socket.recv()
                    kind = json.loads(event)["type"]
                self.note("socket", "ok", "response.completed", kind, event)

    async def hang_up(self) -> None:
        """Leave in the middle of a turn, without a word."""
        async with self.socket("gap:0.02") as socket:
            await socket.send(TURN)
            await socket.recv()
            socket.transport.abort()
        self.note("hang up", "gap", "left", "left", None)


def apart(providers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Settings by which each of two users has one account of each provider."""
    groups = {"default": {"groups": ["well"]}, "limited": {"groups": ["limited"]}}
    return {
        "providers": {name: {**settings, "accounts": groups} for name, settings in providers.items()},
        "users": [
            {"name": "ann", "token": TOKEN, "groups": ["well"]},
            {"name": "lia", "token": LIMITED_TOKEN, "groups": ["limited"]},
        ],
    }


async def everything(folder: Path, rng: random.Random) -> None:
    async with Simulator(keep=0, capacity=1e12) as sim:
        accounts = [(sim.accounts[name], "default") for name in ("claude", "chatgpt")]
        limited = [sim.add_account("claude-limited", "anthropic"), sim.add_account("chatgpt-limited", "openai")]
        accounts += [(account, "limited") for account in limited]
        async with gateway(folder, sim, accounts, **apart(config_of(sim, folder)["providers"])) as app:
            served = [account for pool in app.pools.values() for account in pool.accounts.values()]
            dialled = list[socket.socket]()

            def dial(found: AddrInfoType) -> socket.socket:
                dialled.append(socket.socket(*found[:3]))
                return dialled[-1]

            connector = aiohttp.TCPConnector(limit=0, socket_factory=dial)
            async with aiohttp.ClientSession(connector=connector) as session:
                client = Client(app, sim, session, rng)
                async with asyncio.timeout(60):
                    await client.run()
            for sock in dialled:
                sock.close()  # aiohttp leaves one open whose request ends between the connect and the transport
            pool, server = app.gateway.pool, app.gateway.server
            await until(
                lambda: not (pool.active_exchanges or sim.open or server.open or app.gateway.open),
                lambda: (pool.active_exchanges, sim.open, server.open, app.gateway.open),
            )
            assert {account.in_flight for account in served} == {0}
            assert pool.open_connections <= AT_ONCE
            kinds = Counter(name.partition(" ")[0] for name in client.seen.elements())
            assert kinds.keys() == {"stream", "answer", "abort", "slow", "socket", "hang"}
            assert {name for name in STREAMS if not client.seen[f"stream {name}"]} == set()
            log = (folder / "log").read_text()
            assert "Traceback" not in log
            assert "a fault in aimux" not in log


def test_everything_at_once_leaves_nothing_behind(tmp_path: Path) -> None:
    async def soak() -> None:
        async with Simulator():
            pass  # the first server makes libuv keep a descriptor in reserve
        tasks, files = others(), descriptors()
        await everything(tmp_path, random.Random(11))
        await until(lambda: others() == tasks, lambda: others() - tasks)
        await until(lambda: descriptors() == files, lambda: (files, descriptors()))

    uvloop.run(soak())
