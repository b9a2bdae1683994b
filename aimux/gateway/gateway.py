"""One request's way, from the parsed head to the access log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from aimux.accounts import Selection
from aimux.front.answer import SENT, Answer, Sent
from aimux.front.request import BodyError, Request
from aimux.front.server import FrontServer
from aimux.gateway.answers import DONE, ClientSink, error_answer, own_lines
from aimux.gateway.attempts import ERROR_BODY_SECONDS, Attempts
from aimux.gateway.call import Admitted, Attempt, Call, Route
from aimux.gateway.conversations import conversation_of, named_conversation
from aimux.gateway.headers import to_client, under_name
from aimux.gateway.meter_feed import MeterFeed
from aimux.gateway.models import Target
from aimux.gateway.websockets import WebSockets, handshake
from aimux.metering.record import TOLD, RequestRecord, Sender, new_id
from aimux.plugin.codings import decode
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.types import Body, RequestHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aimux.gateway.auth import Authentication, Caller
    from aimux.gateway.models import ModelRoutes
    from aimux.gateway.mounts import Mount, MountTable
    from aimux.metering.metrics import Metrics
    from aimux.metering.record import RecordSink
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Headers
    from aimux.relay.pool import Pool

log = logging.getLogger("aimux.gateway")

ARRIVAL_SECONDS = 0.3
"""How long a stop waits for the first request of connections that were accepted just before it."""

NO_BODY = Body(b"")

MAX_WORD = 64
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a reload replaces as a whole. A request keeps the one it began with."""

    authentication: Authentication
    mounts: MountTable
    routes: Mapping[str, Route]
    models: ModelRoutes
    max_body_size: int
    request_timeout: float


@dataclass(slots=True)
class Gateway:
    """Serves requests with the current `setup`. `control` answers everything outside the mounts (/health, /api, …)."""

    setup: Setup
    pool: Pool
    metrics: Metrics
    finished: RecordSink
    """Takes the record of each request below a mount that is over, whatever came of it."""
    control: Callable[[Request], Awaitable[Answer | None]]
    draining: bool = False
    server: FrontServer = field(init=False)
    sockets: WebSockets = field(init=False)
    _open: int = field(init=False, default=0)
    _cut: bool = field(init=False, default=False)
    _idle: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.server = FrontServer(self.handle)
        self.sockets = WebSockets(self.metrics, self.finished)

    async def handle(self, request: Request) -> Answer | Sent:
        """Serve one request. Runs as its turn."""
        setup = self.setup
        target = request.head.target
        path = target.partition("?")[0][:TOLD]
        now = time.time()
        own = new_id(now)
        record = RequestRecord(own, now, request.head.method, path, _request_id(request, own))
        started = time.perf_counter()
        provider: Provider | None = None
        answer: Answer | Sent
        self._open += 1
        try:
            found = setup.mounts.find(target)
            if found is None:
                answer = await self._control(request)
            else:
                mount, below = found
                record.provider = mount.provider
                route = setup.routes[mount.provider]
                provider = route.provider
                admitted: Admitted | None = request.head.context
                if admitted is None or admitted.setup is not setup:
                    admitted = request.head.context = _admit(request, setup, route, mount, below)
                answer = await self._serve(request, setup, admitted, record, started)
        except GatewayError as error:
            error.request_id = record.request_id
            record.error = record.error or error.kind.name.lower()
            close = self.draining or isinstance(error, BodyError)
            answer = error_answer(error, provider, record.request_id, close=close)
        except asyncio.CancelledError:
            if not record.error:
                record.error = self._why_cancelled(request)
            raise
        except Exception:
            log.exception("%s: a fault in aimux itself", record.request_id)
            record.error = "internal"
            fault = GatewayError(
                ErrorKind.INTERNAL, f"aimux failed; its log has the details under {record.request_id}."
            )
            answer = error_answer(fault, provider, record.request_id, close=True)
        finally:
            self._open -= 1
            if self.draining and not self._open:
                self._idle.set()
            record.duration = time.perf_counter() - started
            if record.error == DONE:
                record.error = ""
            if record.provider:
                if not record.status and record.error not in {"client_gone", "shutdown"}:
                    assert isinstance(answer, Answer)
                    record.status = answer.status
                    record.ttfb = record.duration
                self.finished(record)
        return answer

    def _why_cancelled(self, request: Request) -> str:
        return "client_gone" if request.connection.lost and not self._cut else "shutdown"

    async def drained(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until no request is open, at most `timeout` seconds. Call with `draining` set."""
        patience = time.monotonic() + min(ARRIVAL_SECONDS, timeout)
        while self.server.awaits_requests and time.monotonic() < patience:  # noqa: ASYNC110 - 30 looks at the very end
            await asyncio.sleep(0.01)
        if self._open:
            self._idle.clear()
            self.sockets.drain()
            try:
                await asyncio.wait_for(self._idle.wait(), timeout)
            except TimeoutError:
                log.warning("%d requests did not end within %g s and are cut off", self._open, timeout)
                self._cut = True
                self.sockets.cut()

    async def _control(self, request: Request) -> Answer:
        answer = await self.control(request)
        if answer is not None:
            return answer
        mounts = ", ".join(mount.prefix or "/" for mount in self.setup.mounts.mounts) or "none"
        raise GatewayError(ErrorKind.NOT_FOUND, f"Nothing is served at this path. Mounts: {mounts}.", retry=False)

    async def _serve(
        self,
        request: Request,
        setup: Setup,
        admitted: Admitted,
        record: RequestRecord,
        started: float,
    ) -> Answer | Sent:
        route, caller, head = admitted.route, admitted.caller, admitted.head
        provider, headers = route.provider, head.headers
        record.user, record.sender = caller.name, admitted.sender
        upgrade = handshake(request, provider, head, draining=self.draining) if "upgrade" in headers else None
        raw = request.whole(setup.max_body_size) if upgrade is None else b""
        if raw is None:
            raw = await request.read(setup.max_body_size)
        record.bytes_in = len(raw)
        body = Body(raw, headers.get("content-encoding", ""))
        record.model = (body.model if setup.models.empty else body.routed_model) if raw else ""
        # A socket names its models later, and then it has its account.
        targets = setup.models.targets(record.model, provider.instance) if upgrade is None else (Target(route),)
        # One account needs no stickiness, which can cost parsing the body.
        choice = (raw or upgrade) and (len(targets) > 1 or len(targets[0].route.accounts.accounts) > 1)
        conversation = conversation_of(provider, head, body) if choice else None
        record.conversation = conversation or admitted.sender.conversation
        selection = Selection(
            record.model,
            f"{caller.name}\0{conversation}" if conversation else None,
            groups=frozenset(caller.user.groups) if caller.user and caller.user.groups else None,
            pinned=_pinned(headers, caller) if "x-aimux-account" in headers else None,
        )
        call = Call(admitted, body, record, targets, selection, upgrade, request.turn)
        attempt = await Attempts(call, self.pool, setup.request_timeout).run()
        # An open stream needs its request no more: with 1,000 of them these are 60 MB.
        call.body = body = NO_BODY
        del raw
        try:
            if upgrade is not None and attempt.head.status == 101:
                return await self.sockets.relay(request, call, attempt, upgrade, started)
            if not setup.models.empty and (names := setup.models.names(provider.instance)):
                listed = await _models(provider, head, attempt, names)
                if listed is not None:
                    record.status = 200
                    record.ttfb = time.perf_counter() - started
                    return Answer(200, {"content-type": "application/json", "x-request-id": record.request_id}, listed)
            return await self._relay(request, call, attempt, started)
        finally:
            attempt.end()

    async def _relay(self, request: Request, call: Call, attempt: Attempt, started: float) -> Sent:
        """Stream the answer. From here on the client has bytes, and nothing is tried again."""
        record, exchange, answer, provider = call.record, attempt.exchange, attempt.head, attempt.route.provider
        connection, http11 = request.connection, request.head.http11
        if self.draining:
            request.keep_alive = False
        lines = to_client(answer, attempt.route.blocked)
        if attempt.model != record.model:
            lines = under_name(lines, attempt.model, record.model)
        own: dict[bytes, bytes] = {}
        if attempt.retry_after is not None:
            own[b"retry-after"] = b"%d" % max(1, round(attempt.retry_after))
        if answer.status == 401:
            # The credential that was refused is aimux's: the client can't mend it by trying again.
            own[b"x-should-retry"] = b"false"
        if own:  # instead of the upstream's (and of its retry-after-ms): Claude Code takes two of one name for none
            lines = [line for line in lines if not line.lower().startswith(tuple(own))]
            lines += [b"%b: %b\r\n" % field for field in own.items()]
        lines += own_lines(call, attempt)
        outlet = exchange.outlet(http11=http11)
        lines.append(outlet.header)
        if not request.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason, b"".join(lines))

        coding = answer.get("content-encoding")
        meter = provider.meter(call.head, answer.status, answer.headers)
        served_by = record.provider
        feed = MeterFeed(meter, coding, record.provider) if meter is not None else None
        plain_stream = not coding and answer.get("content-type").startswith("text/event-stream")
        # An error event can't be put into a compressed stream or a JSON body: there, breaking the connection must do.
        error_event = partial(provider.stream_error, request=call.head) if plain_stream else None
        sink = ClientSink(connection.transport, feed, error_event)

        record.status = answer.status
        record.ttfb = time.perf_counter() - started
        self.metrics.opened(served_by)
        try:
            connection.flow = exchange
            if not exchange.begin(outlet, sink, head, paused=connection.full):
                await exchange.rest()
        except asyncio.CancelledError:
            # Codex hangs up right after the last event, before the body's end: that is no abort.
            if feed is None or not feed.complete:
                record.error = self._why_cancelled(request)
            else:
                record.error = DONE
            raise
        finally:
            connection.flow = None
            self.metrics.closed(served_by)
            record.bytes_out = outlet.bytes_out
            if meter is not None:
                record.usage = meter.usage
                if meter.limits:
                    attempt.account.observe(meter.limits, time.time())
        if (failure := exchange.error) is not None:
            record.error = "upstream_lost"
            log.warning("%s: %s account %s: %s", record.request_id, record.provider, attempt.account.name, failure)
            request.keep_alive = False
        return SENT


async def _models(provider: Provider, head: RequestHead, attempt: Attempt, names: list[str]) -> bytes | None:
    """The list of models with the configuration's own names; None where this request is for something else."""
    if provider.list_models(head, b"", names) is None:
        return None
    answer = attempt.head
    payload = b""
    if answer.status == 200:
        payload = await attempt.exchange.peek(lambda _payload: False, ERROR_BODY_SECONDS)
        payload = decode(payload, answer.get("content-encoding"))
    return provider.list_models(head, payload, names)


def _admit(request: Request, setup: Setup, route: Route, mount: Mount, target: str) -> Admitted:
    """`target` is below the mount. Raises GatewayError for who may not call."""
    received, peer = request.head, request.connection.peer
    caller = setup.authentication.authenticate(received.headers, peer, route.provider, time.monotonic())
    head = RequestHead(received.method, target, received.headers)
    return Admitted(setup, route, caller, head, received, _sender(mount, route.provider, caller, head))


def _request_id(request: Request, own: str) -> str:
    given = request.head.headers.get("x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else own


def _sender(mount: Mount, provider: Provider, caller: Caller, head: RequestHead) -> Sender:
    user, headers = caller.user, head.headers
    hints = provider.hints(head)
    return Sender(
        mount.prefix,
        caller.token_id,
        tuple(user.groups) if user else (),
        _word(headers.get("user-agent", "").partition(" ")[0]),
        named_conversation(provider, head, NO_BODY) or "",
        _word(hints.request_class),
        _word(hints.agent),
        _word(hints.parent_agent),
    )


def _word(text: str) -> str:
    """Foreign text for a column of the ledger."""
    return text[:MAX_WORD] if text.isprintable() else ""


def _pinned(headers: Headers, caller: Caller) -> str:
    if caller.user is None or not caller.user.pin_accounts:
        raise GatewayError(
            ErrorKind.FORBIDDEN, "You may not choose the account: leave `x-aimux-account` out.", retry=False
        )
    return headers["x-aimux-account"]
