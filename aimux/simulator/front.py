"""One exchange's way through the simulator: which part answers, who asks, what is scripted, what is written down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from aimux.simulator import websocket
from aimux.simulator.answers import Call, SimulatedAnswer, json_answer
from aimux.simulator.journal import Received
from aimux.simulator.oauth import OAuthServer
from aimux.simulator.openai import OpenAIApi
from aimux.simulator.scenarios import HEADER, OK, Script, UnknownScenario, choose
from aimux.simulator.wire import Broken, Sent, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import web

    from aimux.simulator.journal import Journal


class Api(Protocol):
    """One part of the simulator. It sees calls and gives answers; the front does the I/O."""

    def authenticate(self, call: Call) -> SimulatedAnswer | None: ...

    def fault(self, call: Call, status: int) -> SimulatedAnswer: ...

    def respond(self, call: Call) -> SimulatedAnswer: ...


class Front:
    """The handler of every request. `bases`: path prefix without slashes around it → part; "" takes the rest."""

    def __init__(self, bases: Mapping[str, Api], script: Script, journal: Journal, clock: Callable[[], float]) -> None:
        self.origin = ""
        self._bases = bases
        self._script = script
        self._journal = journal
        self._clock = clock
        self._numbers = 0
        self._closing = asyncio.Event()
        self._gate = asyncio.Event()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler."""
        received = self._received(request, request.method)
        self._journal.open += 1
        aborted = False
        try:
            keep = await self._exchange(request, received)
        except Broken:
            keep = False
        except ConnectionError:
            keep, aborted = False, not self._closing.is_set()
        except asyncio.CancelledError:
            aborted = not self._closing.is_set() and not received.done
            raise
        finally:
            self._journal.leave(received, aborted=aborted)
        return Sent(received.status or 500, keep=keep)

    def _received(self, request: web.BaseRequest, method: str) -> Received:
        self._numbers += 1
        peer = request.transport.get_extra_info("peername") if request.transport else None
        return Received(self._numbers, peer[1] if peer else 0, method, request.raw_path, tuple(request.raw_headers))

    async def _exchange(self, request: web.BaseRequest, received: Received) -> bool:
        call, api = self._call(request, received)
        answer = api.authenticate(call)
        received.account = call.account.name if call.account else None
        if isinstance(api, OAuthServer):
            await self._read(request, received, call)  # its body says whose account it is about
        header = request.headers.get(HEADER)
        try:
            call.scenario = choose(header, *self._scripts(api, call, refused=answer is not None))
        except UnknownScenario as error:
            answer = json_answer(400, {"error": {"type": "simulator", "message": str(error)}})
        if not isinstance(api, OAuthServer):
            await self._read(request, received, call)
        opens = answer is None and call.scenario.status is None and websocket.wanted(call, api)
        if answer is None:
            answer = SimulatedAnswer(101) if opens else self._answer(api, call)
        received.account = call.account.name if call.account else None
        if call.account is not None:
            call.account.requests += 1
        received.status, received.usage = answer.status, answer.usage
        wire = self._wire(request, call)
        if opens:
            await wire.open()
            await self._socket(request, received, call, api, chosen_by_header=header is not None)
            return False
        return await wire.send(answer)

    def _wire(self, request: web.BaseRequest, call: Call) -> Wire:
        return Wire(request, call.scenario, self._pause, self._hold, self._forever)

    def _call(self, request: web.BaseRequest, received: Received) -> tuple[Call, Api]:
        path, _, query = received.target.partition("?")
        base = next((base for base in self._bases if base and f"{path}/".startswith(f"/{base}/")), "")
        received.base = base
        below = path.removeprefix(f"/{base}") if base else path
        number, now = received.number, self._clock()
        return Call(request.method, below, query, request.headers, self.origin, number, now, OK), self._bases[base]

    def _scripts(self, api: Api, call: Call, *, refused: bool) -> list[Script]:
        if isinstance(api, OAuthServer):
            if not call.path.endswith("/token"):
                return []
            own = api.script_of(call)
            return [api.script] if own is None else [own, api.script]
        return [] if refused or call.account is None else [call.account.script, self._script]

    def _answer(self, api: Api, call: Call) -> SimulatedAnswer:
        scenario = call.scenario
        if scenario.hang or scenario.raw is not None or scenario.ending in {"drop", "drop-rst"}:
            return SimulatedAnswer(500)  # it will not be sent, and nothing must have happened
        if scenario.status is None:
            return api.respond(call)
        if scenario.status in {204, 304}:
            return SimulatedAnswer(scenario.status)
        if scenario.status < 400:
            return SimulatedAnswer(scenario.status, [("location", f"{self.origin}/elsewhere")])
        answer = api.fault(call, scenario.status)
        if scenario.no_retry:
            others = [pair for pair in answer.headers if pair[0] != "x-should-retry"]
            answer.headers = [*others, ("x-should-retry", "false")]
        return answer

    async def _read(self, request: web.BaseRequest, received: Received, call: Call) -> None:
        parts: list[bytes] = []
        try:
            if not call.scenario.early:
                if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
                    request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                while data := await request.content.readany():
                    parts.append(data)
        finally:
            received.body = call.body = b"".join(parts)
            self._journal.arrive(received)

    # --- WebSocket ---------------------------------------------------------------------------------------------------

    async def _socket(
        self, request: web.BaseRequest, received: Received, call: Call, api: Api, *, chosen_by_header: bool
    ) -> None:
        """Turn after turn on one socket. Each is recorded as a request of its own, with the method `WS`."""
        first = [call.scenario]

        def turn(message: bytes) -> tuple[Call, SimulatedAnswer]:
            one = self._received(request, "WS")
            asked, _ = self._call(request, one)
            asked.method, asked.body = "POST", websocket.as_request(message)
            asked.account, asked.scope = call.account, call.scope
            if chosen_by_header:
                asked.scenario = call.scenario
            else:
                asked.scenario = first.pop() if first else choose(None, *self._scripts(api, call, refused=False))
            answer = self._answer(api, asked)
            one.body, one.account, one.status, one.usage = message, received.account, answer.status, answer.usage
            one.done = True
            self._journal.arrive(one)
            return asked, answer

        assert isinstance(api, OpenAIApi)
        await websocket.Socket(request, received, api, lambda asked: self._wire(request, asked), turn).serve(call)

    # --- waiting, as the scenarios want it; closing ends it ----------------------------------------------------------

    def close(self) -> None:
        """End what is held, slow or hanging, now and later."""
        self._closing.set()
        self.release()

    def release(self) -> None:
        """Let every held answer go on."""
        gate, self._gate = self._gate, asyncio.Event()
        gate.set()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return
        raise Broken

    async def _forever(self) -> None:
        await self._closing.wait()
        raise Broken

    async def _hold(self) -> None:
        self._journal.held += 1
        self._journal.changed()
        try:
            await self._gate.wait()
        finally:
            self._journal.held -= 1
        if self._closing.is_set():
            raise Broken
