"""The Responses API over a WebSocket: a turn for each `response.create`, an event a frame, one answer after the other.

A scenario with a status, `hang` or `drop` hits the handshake. Any other holds for the turns: for all of them if a
header chose it, for the first one if a script did (each further one takes the script's next). `tiny` and `split` then
are fragments, `encode` is permessage-deflate, `interim` are pings before the answer, `cut` is a FIN inside a frame,
`reset` an RST, `end` a close frame in the middle, and `stale` a FIN without a close frame after the answer.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from aimux.simulator.answers import dumps
from aimux.simulator.openai import OpenAIApi
from aimux.simulator.wire import Broken, cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.simulator.answers import Call, SimulatedAnswer
    from aimux.simulator.journal import Received
    from aimux.simulator.wire import Wire

MAX_MESSAGE = 64 * 1024 * 1024
TEXT, CONTINUATION = 0x1, 0x0


def wanted(call: Call, api: object) -> bool:
    """Whether this is a handshake at a path that has WebSockets."""
    upgrade = call.headers.get("upgrade", "").lower() == "websocket"
    return upgrade and call.method == "GET" and call.path.endswith("/responses") and isinstance(api, OpenAIApi)


def as_request(frame: bytes) -> bytes:
    """The body of the POST that a `response.create` stands for; empty for any other message."""
    try:
        message = json.loads(frame)
    except ValueError:
        return b""
    if not isinstance(message, dict) or message.get("type") != "response.create":
        return b""
    request = {name: value for name, value in message.items() if name not in {"type", "generate", "stream_id"}}
    return dumps(request | {"stream": True})


class Socket:
    """One socket. `turn` answers a message as the API would; `api` adds what only sockets tell."""

    def __init__(
        self,
        request: web.BaseRequest,
        received: Received,
        api: OpenAIApi,
        wire: Callable[[Call], Wire],
        turn: Callable[[bytes], tuple[Call, SimulatedAnswer]],
    ) -> None:
        self._request = request
        self._received = received
        self._api = api
        self._wire = wire
        self._turn = turn
        self._messages: asyncio.Queue[bytes] = asyncio.Queue()
        self._known: set[str] = set()
        """Ids of this socket's responses: nothing is stored, so a turn can only build on these."""

    async def serve(self, call: Call) -> None:
        """Until the client closes. Raises ConnectionError if it leaves in the middle of a turn."""
        compress = call.scenario.encode is not None
        ws = web.WebSocketResponse(autoping=False, compress=compress, max_msg_size=MAX_MESSAGE, timeout=1.0)
        ws.headers.extend(self._api.headers(call))
        await ws.prepare(self._request)
        self._received.done = True  # between turns a client may leave in any way
        transport = self._request.transport
        turns = asyncio.create_task(self._turns(ws))
        turns.add_done_callback(lambda _: transport.close() if transport else None)
        try:
            await self._read(ws)
        finally:
            turns.cancel()
            await asyncio.wait([turns])
            error = None if turns.cancelled() else turns.exception()
            if error is not None and not isinstance(error, (Broken, ConnectionError)):
                raise error  # a mistake in here, and not the cancellation that it caused
        if error is not None:
            raise error
        if not self._received.done:
            raise ConnectionResetError("the client left in the middle of a turn")

    async def _read(self, ws: web.WebSocketResponse) -> None:
        while True:
            message = await ws.receive()
            match message.type:
                case WSMsgType.TEXT:
                    self._messages.put_nowait(message.data.encode())
                case WSMsgType.PING:
                    await ws.pong(message.data)
                case WSMsgType.PONG:
                    self._received.pongs.append(bytes(message.data))
                case WSMsgType.BINARY:
                    await ws.close(code=1003, message=b"text only")
                case _:
                    return

    async def _turns(self, ws: web.WebSocketResponse) -> None:
        while True:
            message = await self._messages.get()
            self._received.done = False
            call, answer = self._turn(message)
            try:
                await self._send(ws, call, self._frames(call, answer, message))
            except Broken:
                self._received.done = True  # the simulator's doing, not the client's
                raise

    def _frames(self, call: Call, answer: SimulatedAnswer, message: bytes) -> list[bytes]:
        """The events of a turn, as they are sent."""
        if not answer.streamed:
            return [refusal(answer)]
        asked = json.loads(message)
        previous = asked.get("previous_response_id")
        if previous is not None and previous not in self._known:
            error = {
                "type": "invalid_request_error",
                "code": "previous_response_not_found",
                "message": f"Previous response with id '{previous}' not found.",
                "param": "previous_response_id",
            }
            return [dumps({"type": "error", "status": 400, "error": error})]
        events = [chunk.partition(b"\ndata: ")[2].rstrip(b"\n") for chunk in answer.chunks]
        self._known.add(json.loads(events[0])["response"]["id"])
        done = json.loads(events[-1])
        if asked.get("generate") is False and done["type"] == "response.completed":
            # A warm-up: the prompt is taken in, and nothing said.
            done["response"] |= {"output": []}
            done["response"]["usage"] |= {
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": done["response"]["usage"]["input_tokens"],
            }
            events = [events[0], dumps(done | {"sequence_number": 1})]
        limits = self._api.limits_event(call)
        frames = events if limits is None else [events[0], dumps(limits), *events[1:]]
        if (stream := asked.get("stream_id")) is not None:
            frames = [dumps(json.loads(frame) | {"stream_id": stream}) for frame in frames]
        return frames

    async def _send(self, ws: web.WebSocketResponse, call: Call, frames: list[bytes]) -> None:
        scenario, wire = call.scenario, self._wire(call)
        await wire.open()
        for number in range(scenario.interim):
            await ws.ping(b"%d" % number)
        for number, payload in enumerate(frames):
            if number == scenario.ending_at and scenario.ending != "stale":
                await self._break(ws, call, wire, payload)
            if number and scenario.gap:
                await wire.pause(scenario.gap)
            if scenario.chunk in {"tiny", "split"}:
                for piece in fragments(payload, call):
                    await wire.write(piece)
            else:
                await ws.send_str(payload.decode())
            if number == len(frames) - 1:
                self._received.done = self._messages.empty()  # Codex leaves as soon as it has read this
            await wire.mark(number + 1)
            await asyncio.sleep(0)  # lets a reader in this process see one frame at a time
        await self._break(ws, call, wire, b"")

    async def _break(self, ws: web.WebSocketResponse, call: Call, wire: Wire, payload: bytes) -> None:
        """Go on, unless the scenario ends the socket here. Raises Broken."""
        match call.scenario.ending:
            case "reset":
                wire.reset()
            case "cut" | "stale":
                whole = raw_frame(TEXT, payload) if payload else b""
                await wire.write(whole[: len(whole) // 2])
                wire.close()
            case "end":
                self._received.done = True  # closing ends the reader, which then ends this task
                await ws.close(code=1000)
                raise Broken


def refusal(answer: SimulatedAnswer) -> bytes:
    """An error answer as an event: status, error and the headers that tell limits."""
    try:
        body: dict[str, Any] = json.loads(b"".join(answer.chunks))
    except ValueError:
        body = {"detail": f"status {answer.status}"}
    error = body.get("error") or {"type": "invalid_request_error", "message": body.get("detail")}
    limits = {name: value for name, value in answer.headers if name.startswith(("x-codex-", "x-ratelimit-", "retry-"))}
    return dumps({"type": "error", "status": answer.status, "error": error, "headers": limits})


def raw_frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """An unmasked frame, as a server sends it."""
    first = bytes([(0x80 if last else 0) | opcode])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return first + b"\x7e" + len(payload).to_bytes(2) + payload
    return first + b"\x7f" + len(payload).to_bytes(8) + payload


def fragments(payload: bytes, call: Call) -> list[bytes]:
    """One message in many frames, cut as the scenario cuts chunks."""
    pieces = cut([payload], call.scenario)
    last = len(pieces) - 1
    return [raw_frame(CONTINUATION if at else TEXT, piece, last=at == last) for at, piece in enumerate(pieces)]
