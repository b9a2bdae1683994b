"""One request's way, from the parsed head to the access log."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import InitVar, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from aimux.accounts import Selection
from aimux.front.answer import SENT, Answer, Sent
from aimux.front.request import BodyError, Request
from aimux.front.server import FrontServer
from aimux.gateway import own_login
from aimux.gateway.answers import DONE, ClientSink, error_answer
from aimux.gateway.astray import Astray
from aimux.gateway.attempts import Attempts
from aimux.gateway.bounds import within_bounds
from aimux.gateway.call import Attempt, Call
from aimux.gateway.conversations import conversation_of
from aimux.gateway.deposits import Deposits
from aimux.gateway.epoch import NO_BODY, Admitted, Epoch, asks_for_stream
from aimux.gateway.handshakes import handshake
from aimux.gateway.limiting import Limiting, states, text_size
from aimux.gateway.meter_feed import MeterFeed
from aimux.gateway.model_list import model_list
from aimux.gateway.models import Target
from aimux.gateway.proofs import Proofs
from aimux.gateway.relayed import as_headers, explained, head_lines
from aimux.gateway.skimming import Skimmed, is_large, skim
from aimux.gateway.websockets import WebSockets
from aimux.metering.record import TOLD, RequestRecord, new_id, request_id
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.types import Body
from aimux.redaction import mask
from aimux.relay.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aimux.gateway.auth import Caller
    from aimux.gateway.setup import Setup
    from aimux.metering.metrics import Metrics
    from aimux.metering.record import RecordSink
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Headers
    from aimux.relay.pool import Pool

log = logging.getLogger("aimux.gateway")

TOLD_WAITED = 5
"""Open requests that are told of when aimux ends."""

ARRIVAL_SECONDS = 0.3
"""How long a stop waits for the first request of connections that were accepted just before it."""


@dataclass(slots=True)
class Gateway:
    """Serves requests. `outside` serves everything outside the mounts (/health, /api, …)."""

    first: InitVar[Setup]
    pool: Pool
    metrics: Metrics
    finished: RecordSink
    """Takes the record of each request below a mount that is over, whatever came of it."""
    outside: Callable[[Request], Awaitable[Sent]]
    """Serves what is below no mount, and sees to its record."""
    limiting: Limiting
    draining: bool = False
    hurried: bool = field(init=False, default=False)
    epoch: Epoch = field(init=False)
    server: FrontServer = field(init=False)
    sockets: WebSockets = field(init=False)
    deposits: Deposits = field(init=False, default_factory=Deposits)
    _proofs: Proofs = field(init=False)
    _open: dict[Request, RequestRecord] = field(init=False, default_factory=dict)
    """Requests under way, and what is known of each so far."""
    _cut: bool = field(init=False, default=False)
    _idle: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self, first: Setup) -> None:
        self.epoch = Epoch(first)
        self.server = FrontServer(self.handle)
        self.sockets = WebSockets(self.metrics, self.finished, self.limiting)
        self._proofs = Proofs(self.pool)

    @property
    def setup(self) -> Setup:
        """What new requests are served with."""
        return self.epoch.setup

    def begin(self, setup: Setup) -> None:
        """Begin an epoch. Requests under way go on, but for those of callers who may no longer call.

        Those end at once, whatever they are doing: with an error, or where their answer has begun with the protocol's
        error event and a broken connection; a WebSocket with the protocol's error message and a close frame.
        """
        self.epoch = Epoch(setup)
        objection = setup.authentication.objection
        for request in list(self._open):
            admitted = request.connection.admission
            if type(admitted) is not Admitted:
                continue
            ends, provider = request.connection, admitted.route.provider
            error = objection(admitted.caller, request.head.headers, ends.peer, provider, own=ends.own)
            if error is not None:
                request.stop(error)

    @property
    def running(self) -> list[RequestRecord]:
        """Of requests below a mount that are under way: what is known so far."""
        return [record for record in self._open.values() if record.provider]

    def use_lane(self, on: bool) -> None:
        """Whether the front's requests are served here at once, or all by `outside`, which may bring them back."""
        self.server.handler = self.handle if on else partial(self.handle, lane=False)

    async def handle(self, request: Request, *, lane: bool = True) -> Answer | Sent:
        """Serve one request. Runs as its turn."""
        epoch = self.epoch
        setup = epoch.setup
        target = request.head.target
        path = target.partition("?")[0][:TOLD]
        now = time.time()
        own = new_id(now)
        record = RequestRecord(own, now, request.head.method, path, request_id(request.head.headers, own))
        started = time.perf_counter()
        provider: Provider | None = None
        outside = False
        answer: Answer | Sent
        self._open[request] = record
        try:
            found = setup.mounts.find(target) if lane else None
            if found is None:
                outside = True
                answer = await self.outside(request)
            else:
                mount, below = found
                if (preflight := setup.cors.preflight(request.head.method, request.head.headers)) is not None:
                    outside = True
                    return preflight
                record.provider = mount.provider
                route = setup.routes[mount.provider]
                provider = route.provider
                admitted = request.connection.admission
                if type(admitted) is not Admitted or admitted.epoch is not epoch:
                    admitted = request.connection.admission = epoch.admit(request, route, mount, below)
                answer = await self._serve(request, setup, admitted, record, started)
        except GatewayError as error:
            error.request_id = record.request_id
            error.message = mask(error.message)  # a provider may have worded it
            record.error = record.error or error.kind.name.lower()
            close = self.draining or isinstance(error, BodyError)
            if isinstance(error, Astray):
                provider = error.provider
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
            del self._open[request]
            if self.draining and not self._open:
                self._idle.set()
            record.duration = time.perf_counter() - started
            if record.error == DONE:
                record.error = ""
            if not outside:
                if not record.status and record.error not in {"client_gone", "shutdown"}:
                    assert isinstance(answer, Answer)
                    record.status = answer.status
                    record.ttfb = record.duration
                self.finished(record)
        if isinstance(answer, Answer) and not outside and (told := setup.cors.answer_headers(request.head.headers)):
            answer = replace(answer, headers={**answer.headers, **told})
        return answer

    def _why_cancelled(self, request: Request) -> str:
        return "client_gone" if request.connection.lost and not self._cut else "shutdown"

    async def drained(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until no request is open, at most `timeout` seconds. Call with `draining` set."""
        patience = time.monotonic() + min(ARRIVAL_SECONDS, timeout)
        while self.server.awaits_requests and time.monotonic() < patience:  # noqa: ASYNC110 - 30 looks at the very end
            await asyncio.sleep(0.01)
        if self._open:
            if not self.hurried:
                self._idle.clear()
            self.sockets.drain()
            if not self.hurried:
                log.info("waiting for %s, at most %g s; a second signal cuts off what is left", self._waited(), timeout)
            try:
                await asyncio.wait_for(self._idle.wait(), timeout)
            except TimeoutError:
                log.warning("%d requests did not end within %g s and are cut off", len(self._open), timeout)
            if self._open:
                self._cut = True
                self.sockets.cut()

    def hurry(self) -> None:
        """Wait no longer: what is open is cut off, and has its record."""
        self.hurried = True
        self._idle.set()

    def _waited(self) -> str:
        """What is open, for a person."""
        now, told = time.time(), []
        for record in list(self._open.values())[:TOLD_WAITED]:
            who = f" of {record.user}" if record.user else ""
            told.append(f"{record.method} {record.path}{who}, {now - record.time:.0f} s old")
        more = len(self._open) - len(told)
        return f"{len(self._open)} open requests ({'; '.join(told)}{f'; {more} more' if more else ''})"

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
        upgrade = (
            handshake(request, provider, head, largest=setup.max_websocket_message, draining=self.draining)
            if "upgrade" in headers
            else None
        )
        raw = request.whole(setup.max_body_size) if upgrade is None else b""
        if raw is None:
            raw = await request.read(setup.max_body_size)
        record.bytes_in = len(raw)
        body = Body(raw, headers.get("content-encoding", ""))
        # Where the model decides something, it has to be the one that the upstream takes the request for.
        bound = caller.access is not None and caller.access.allowance is not None
        decisive = bound or not setup.models.empty or self.limiting.limits.by_model
        skimmed = await self._skimmed(request, admitted, body, decisive=decisive) if is_large(body) else None
        seen = body if skimmed is None else skimmed.summary
        if raw and decisive:
            record.model = seen.routed_model if skimmed is None else skimmed.model
        elif raw:
            record.model = seen.model
        # A socket names its models later, and then it has its account.
        routed = upgrade is None and caller.own is None
        targets = setup.models.targets(record.model, provider.instance) if routed else (Target(route),)
        if bound:
            targets = within_bounds(caller, targets, provider.instance, record.model if raw else None, upgrade)
        # One account needs no stickiness, which can cost parsing the body.
        choice = (raw or upgrade) and (len(targets) > 1 or len(targets[0].route.accounts.accounts) > 1)
        conversation = conversation_of(provider, head, seen) if choice else None
        record.conversation = conversation or admitted.sender.conversation
        selection = Selection(
            record.model,
            f"{caller.name}\0{conversation}" if conversation else None,
            groups=caller.access.groups if caller.access is not None else None,
            pinned=_pinned(headers, caller) if "x-aimux-account" in headers else None,
        )
        references = self._references(admitted, seen, skimmed) if caller.own is None else ()
        if references and (place := self.deposits.place_of(references, targets)) is not None:
            targets, account = place
            if selection.pinned is None:
                selection = selection._replace(pinned=account)
        if admitted.asks_usage and caller.own is None:
            return self._usage(admitted, selection, record, started)
        restraint = None
        if admitted.counted and self.limiting.concerns(admitted.who):
            restraint = self.limiting.admit(record, admitted.who, text_size(raw))
        if skimmed is not None and any(target.model is not None for target in targets):
            body = await request.turn.apart(skimmed.changeable(body))
        call = Call(admitted, body, record, targets, selection, upgrade, request.turn, restraint)
        patience = setup.patience(streamed=upgrade is not None or asks_for_stream(body))
        attempt = await self._attempt(call, patience)
        # An open stream needs its request no more: with 1,000 of them these are 60 MB.
        call.body = body = NO_BODY
        del raw
        try:
            if upgrade is not None and attempt.head.status == 101:
                return await self.sockets.relay(request, call, attempt, upgrade, started)
            if head.method == "GET":
                names = {} if setup.models.empty else setup.models.names(provider.instance)
                if (listed := await model_list(call, attempt, names)) is not None:
                    record.status = 200
                    record.ttfb = time.perf_counter() - started
                    shown = {"content-type": "application/json", "x-request-id": record.request_id}
                    if (etag := attempt.head.get("etag")) and attempt.head.status == 200:
                        shown["etag"] = etag  # Codex compares it with each answer's, and asks again where it differs
                    return Answer(200, shown, listed)
            if attempt.head.status >= 400 and (told := await explained(attempt)) is not None:
                limits = self.limiting.told(record, attempt.route.provider, attempt.shared)
                record.status, record.ttfb = attempt.head.status, time.perf_counter() - started
                return Answer(record.status, as_headers(head_lines(call, attempt, limits, setup.cors)), told)
            return await self._relay(request, call, attempt, started)
        finally:
            attempt.end()

    async def _attempt(self, call: Call, patience: float) -> Attempt:
        if (own := call.admitted.caller.own) is not None:
            return await own_login.send(call, self.pool, own, patience)
        attempts = Attempts(call, self.pool, self._proofs, patience)
        attempt = await attempts.run()
        if attempts.sought and attempt.head.status < 400:
            self.deposits.keep(attempt.account, attempts.sought, None)
        return attempt

    async def _skimmed(self, request: Request, admitted: Admitted, body: Body, *, decisive: bool) -> Skimmed | None:
        """None: nobody asks for more of it than the model, and it begins with that."""
        stores = self.deposits.has(admitted.caller.name)
        sticky = len(admitted.route.accounts.accounts) > 1 and not admitted.sender.conversation
        if not (decisive or stores or sticky) and body.leading_model:
            return None
        work = skim(body, admitted.head, admitted.route.provider if stores else None)
        return await request.turn.apart(work)

    def _references(self, admitted: Admitted, body: Body, skimmed: Skimmed | None) -> tuple[str, ...]:
        """What the request refers to, where anything is known of what it may mean."""
        if not self.deposits:
            return ()
        if skimmed is not None:
            return skimmed.references
        # Looking through 100 kB takes 0.1 to 0.5 ms: a body is read for those alone who have stored something.
        known = self.deposits.has(admitted.caller.name)
        return admitted.route.provider.refers_to(admitted.head, body if known else NO_BODY)

    def _usage(self, admitted: Admitted, selection: Selection, record: RequestRecord, started: float) -> Answer:
        """How much of their own limits a caller has used, and how much of the accounts' is."""
        route, now = admitted.route, time.time()
        standings = self.limiting.limits.standings(admitted.who, now, provider=route.provider.instance)
        windows = self.limiting.windows(route.accounts.candidates(selection), admitted.who, now)
        record.status, record.ttfb = 200, time.perf_counter() - started
        told = route.provider.usage(states(standings), windows)
        return Answer(200, {"content-type": "application/json", "x-request-id": record.request_id}, told)

    async def _relay(self, request: Request, call: Call, attempt: Attempt, started: float) -> Sent:
        """Stream the answer. From here on the client has bytes, and nothing is tried again."""
        record, exchange, answer, provider = call.record, attempt.exchange, attempt.head, attempt.route.provider
        connection, http11 = request.connection, request.head.http11
        if self.draining:
            request.keep_alive = False
        limits = self.limiting.told(record, provider, attempt.shared)
        lines = head_lines(call, attempt, limits, self.setup.cors)
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
                if meter.stored and call.admitted.caller.own is None:
                    self.deposits.learn(call, attempt, meter.stored)
                if meter.consumes:
                    record.usage = meter.usage
                if meter.limits:
                    attempt.account.observe(meter.limits, time.time())
        if (failure := exchange.error) is not None:
            record.error = failure.told.kind.name.lower() if isinstance(failure, Stopped) else "upstream_lost"
            log.warning("%s: %s account %s: %s", record.request_id, record.provider, attempt.account.name, failure)
            request.keep_alive = False
        return SENT


def _pinned(headers: Headers, caller: Caller) -> str:
    if caller.user is None or not caller.user.pin_accounts:
        raise GatewayError(
            ErrorKind.FORBIDDEN, "You may not choose the account: leave `x-aimux-account` out.", retry=False
        )
    return headers["x-aimux-account"]
