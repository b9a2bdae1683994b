"""One request's way, from the parsed head to the access log."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aimux.front.answer import SENT, Answer, Sent
from aimux.front.request import BodyError, Request
from aimux.front.server import FrontServer
from aimux.gateway import own_login
from aimux.gateway.answers import DONE, UPSTREAM_FAILED, ClientSink, error_answer
from aimux.gateway.attempts import Attempts
from aimux.gateway.credential_checks import CredentialChecks
from aimux.gateway.epoch import NO_BODY, Admitted, Epoch, asks_for_stream, path_of
from aimux.gateway.exposed_tokens import WITHHELD, exposed
from aimux.gateway.guesses import NotLookedAt, slowed_down
from aimux.gateway.handshakes import handshake
from aimux.gateway.large_bodies import plain
from aimux.gateway.limiting import Limiting, states
from aimux.gateway.meter_feed import MeterFeed, show_request
from aimux.gateway.open_requests import OpenRequests
from aimux.gateway.relayed import JSON, as_headers, explained, head_lines, note_echoed
from aimux.gateway.routing import Routing
from aimux.gateway.websockets import WebSockets
from aimux.gateway.whole_answers import model_list, with_own_addresses
from aimux.gateway.wrong_mount import WrongMount
from aimux.http.head import CONTENT_ENCODING, CONTENT_TYPE, coding_of
from aimux.metering.estimates import Estimates
from aimux.metering.record import RequestRecord, new_id
from aimux.plugin.body import Body
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.reading import media_type
from aimux.redaction import mask
from aimux.relay.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aimux.accounts import Selection
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.mounts import Mount
    from aimux.gateway.route import Route
    from aimux.gateway.setup import Setup
    from aimux.gateway.vendor_storage import VendorStorage
    from aimux.metering.metrics import Metrics
    from aimux.metering.record import RecordSink
    from aimux.plugin.meters import Meter
    from aimux.plugin.provider import Provider
    from aimux.relay.pool import Pool

log = logging.getLogger("aimux.gateway")


class Gateway:
    """Serves requests. `outside` serves everything outside the mounts (/health, /api, …)."""

    def __init__(
        self,
        first: Setup,
        pool: Pool,
        metrics: Metrics,
        finished: RecordSink,
        outside: Callable[[Request], Awaitable[Sent]],
        limiting: Limiting,
        storage: VendorStorage,
    ) -> None:
        """`finished` takes the record of each finished request below a mount, however it ended; `outside` serves
        everything that is below no mount, and makes its records."""
        self.pool = pool
        self.metrics = metrics
        self.finished = finished
        self.outside = outside
        self.limiting = limiting
        self.storage = storage
        self.epoch = Epoch(first)
        self.server = FrontServer(self.handle)
        self.estimates = Estimates()
        self.sockets = WebSockets(metrics, finished, limiting, storage, self.estimates)
        self.routing = Routing(limiting, storage)
        self.open = OpenRequests()
        self._checks = CredentialChecks(pool)

    @property
    def setup(self) -> Setup:
        """What new requests are served with."""
        return self.epoch.setup

    def begin(self, setup: Setup) -> None:
        """Begin an epoch. Requests under way go on, except those of callers who may no longer call.

        These end at once: with an error, or, if their answer has begun, with the protocol's error event and a broken
        connection; a WebSocket ends with the protocol's error message and a close frame.
        """
        self.epoch = Epoch(setup)
        for request in list(self.open):
            admitted = request.connection.admission
            if type(admitted) is Admitted and (error := self._objection(request, admitted)) is not None:
                request.stop(error)

    def _objection(self, request: Request, admitted: Admitted) -> GatewayError | None:
        """Why a request that was admitted in an earlier epoch may not go on."""
        ends, objection = request.connection, self.setup.authentication.objection
        return objection(
            admitted.caller, request.head.headers, ends.peer, admitted.route.provider, reached=ends.reached
        )

    @property
    def running(self) -> list[RequestRecord]:
        """What is known so far of the requests below a mount that are under way."""
        return [record for record in self.open.values() if record.provider]

    def use_lane(self, on: bool) -> None:
        """Whether the front's requests are served here at once, or all by `outside`, which may bring them back."""
        self.server.handler = self.handle if on else partial(self.handle, lane=False)

    async def handle(self, request: Request, *, lane: bool = True) -> Answer | Sent:
        """Serve one request. Runs as its turn."""
        epoch = self.epoch
        setup = epoch.setup
        target = request.head.target
        now = time.time()
        own = new_id(now)
        admitted, exposes = request.connection.admission, False
        if lane and type(admitted) is Admitted and admitted.epoch is epoch:
            path, name = admitted.path, admitted.request_id or own
        else:
            admitted, exposes = None, epoch.exposes_token(target)
            path = WITHHELD if exposes else path_of(target)
            name = epoch.request_id(request.head.headers, own)
        record = RequestRecord(own, now, request.head.method, path, name)
        started = time.perf_counter()
        provider: Provider | None = None
        outside = False
        answer: Answer | Sent = SENT
        self.open[request] = record
        try:
            if admitted is None:
                found = setup.mounts.find(target) if lane else None
                if exposes:
                    provider = setup.routes[found[0].provider].provider if found is not None else None
                    raise exposed()
                if found is None:
                    outside = True
                    return await self.outside(request)
                if (preflight := setup.cors.preflight(request.head.method, request.head.headers)) is not None:
                    outside = True
                    return preflight
                mount, below = found
                record.provider = mount.provider
                route = setup.routes[mount.provider]
                provider = route.provider
                try:
                    admitted = request.connection.admission = await self._admit(epoch, request, route, mount, below)
                except GatewayError:
                    refusal = setup.cors.refusal(request.head.method, request.head.headers)
                    if refusal is None:
                        raise
                    raise refusal from None
            provider = admitted.route.provider
            record.provider = provider.instance
            answer = await self._serve(request, setup, admitted, record, started)
        except GatewayError as error:
            error.request_id = record.request_id
            error.message = mask(error.message)  # a provider may have worded it
            record.error = record.error or error.kind.name.lower()
            close = self.open.draining or isinstance(error, BodyError)
            if isinstance(error, WrongMount):
                provider = error.provider
            answer = error_answer(error, provider, record.request_id, close=close)
        except asyncio.CancelledError:
            if not record.error:
                record.error = self.open.why_cancelled(request)
            raise
        except Exception:
            log.exception("%s: a fault in aimux itself", record.request_id)
            record.error = "internal"
            fault = GatewayError(
                ErrorKind.INTERNAL, f"aimux failed; its log has the details under {record.request_id}."
            )
            answer = error_answer(fault, provider, record.request_id, close=True)
        finally:
            self.open.end(request)
            record.duration = time.perf_counter() - started
            if record.error == DONE:
                record.error = ""
            if not outside:
                if not record.status and record.error not in {"client_gone", "shutdown"}:
                    assert isinstance(answer, Answer)
                    record.status = answer.status
                    record.ttfb = record.duration
                if isinstance(answer, Answer) and request.head.method != "HEAD":
                    record.bytes_out = len(answer.body)
                self.finished(record)
        if isinstance(answer, Answer) and not outside and (told := setup.cors.answer_headers(request.head.headers)):
            answer = replace(answer, headers={**answer.headers, **told})
        return answer

    async def drained(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until no request is open, at most `timeout` seconds. Call with `open.draining` set."""
        await self.open.drained(timeout, self.server, self.sockets)

    async def _admit(self, epoch: Epoch, request: Request, route: Route, mount: Mount, below: str) -> Admitted:
        try:
            return epoch.admit(request, route, mount, below)
        except NotLookedAt as refused:
            address = refused.address
        if not await request.turn.apart(epoch.setup.authentication.guesses.turn(address)):
            raise NotLookedAt(address)
        try:
            admitted = epoch.admit(request, route, mount, below)
        except GatewayError as wrong:
            raise slowed_down(wrong) from None
        # Who was not admitted yet when another epoch began was not asked there whether he still may.
        if self.epoch is not epoch and (error := self._objection(request, admitted)) is not None:
            raise error
        return admitted

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
            handshake(request, provider, head, largest=setup.max_websocket_message, draining=self.open.draining)
            if "upgrade" in headers or "sec-websocket-key" in headers
            else None
        )
        raw = request.whole(setup.max_body_size) if upgrade is None else b""
        there = record.time
        if raw is None:
            raw, there = await request.read(setup.max_body_size), time.time()
        record.bytes_in = len(raw)
        body = Body(raw, coding_of(headers) if CONTENT_ENCODING in headers else "")
        call, skimmed = await self.routing.route(request, setup, admitted, record, body, upgrade)
        if admitted.asks_usage and caller.own is None:
            return self._usage(admitted, call.selection, record, started)
        if admitted.counted:
            call.eligibility = self.limiting.admit(record, admitted, raw, there)
        if skimmed is not None and any(target.model is not None for target in call.targets):
            call.body = body = await request.turn.apart(skimmed.changeable(body))
        elif body.encoding and not all(target.route.provider.takes_packed for target in call.targets):
            call.body = body = await request.turn.apart(plain(body))
        patience = setup.patience(streamed=upgrade is not None or asks_for_stream(body))
        if head.method == "GET" and upgrade is None and not call.shared and self.storage.lists(admitted):
            found = await self.storage.own_list(call, setup.cors, partial(self._attempt, patience=patience))
            if isinstance(found, Answer):
                record.status, record.ttfb = found.status, time.perf_counter() - started
                return found
            attempt = found
        else:
            attempt = await self._attempt(call, patience)
        try:
            upgraded = upgrade is not None and attempt.head.status == 101
            meter = None
            if not upgraded:
                meter = attempt.route.provider.meter(head, attempt.head.status, attempt.head.headers)
                if meter is not None and meter.reads_request:
                    show_request(meter, body, provider.instance)
            # An open stream no longer needs its request: with 1,000 streams that is 60 MB.
            call.body = body = NO_BODY
            del raw, skimmed
            if upgrade is not None and upgraded:
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
                if (changed := await with_own_addresses(call, attempt, self.storage.deposits)) is not None:
                    return self._changed(call, attempt, setup, changed, started=started)
            if attempt.head.status >= 400 and (told := await explained(attempt)) is not None:
                return self._changed(call, attempt, setup, *told, started=started)
            return await self._relay(request, call, attempt, meter, started)
        finally:
            attempt.end()

    def _changed(
        self, call: Call, attempt: Attempt, setup: Setup, body: bytes, content_type: str = JSON, *, started: float
    ) -> Answer:
        """The upstream's answer with another body."""
        record, ended = call.record, time.perf_counter()
        limits = self.limiting.told(call, attempt.route.provider, attempt.shared, ended)
        record.status, record.ttfb = attempt.head.status, ended - started
        return Answer(record.status, as_headers(head_lines(call, attempt, limits, setup.cors), content_type), body)

    def _attempt(self, call: Call, patience: float) -> Awaitable[Attempt]:
        if (own := call.admitted.caller.own) is not None:
            return own_login.send(call, self.pool, own, patience)
        zone = self.limiting.limits.zone
        return Attempts(call, self.pool, self._checks, self.storage.deposits, patience, zone).run()

    def _usage(self, admitted: Admitted, selection: Selection, record: RequestRecord, started: float) -> Answer:
        """Answer how much of their own limits a caller has used, and how much of the accounts' limits is used."""
        route, now = admitted.route, time.time()
        standings = self.limiting.limits.standings(admitted.who, now, provider=route.provider.instance)
        windows = self.limiting.windows(route.accounts.candidates(selection), admitted.who, now)
        record.status, record.ttfb = 200, time.perf_counter() - started
        told = route.provider.usage(states(standings), windows)
        return Answer(200, {"content-type": "application/json", "x-request-id": record.request_id}, told)

    async def _relay(self, request: Request, call: Call, attempt: Attempt, meter: Meter | None, started: float) -> Sent:
        """Stream the answer. From here on the client has bytes, and nothing is tried again."""
        record, exchange, answer, provider = call.record, attempt.exchange, attempt.head, attempt.route.provider
        connection, http11 = request.connection, request.head.http11
        if self.open.draining:
            request.keep_alive = False
        now = time.perf_counter()
        record.ttfb = now - started
        limits = self.limiting.told(call, provider, attempt.shared, now)
        lines = head_lines(call, attempt, limits, self.epoch.setup.cors)
        if provider.echoed_header:
            note_echoed(attempt)
        outlet = exchange.outlet(http11=http11)
        if outlet.header:
            lines.append(outlet.header)
        if not request.keep_alive:
            lines.append(b"connection: close")
        head = b"HTTP/1.1 %d %b\r\n%b\r\n\r\n" % (answer.status, answer.reason, b"\r\n".join(lines))

        coding = answer.coding if CONTENT_ENCODING in answer.headers else ""  # without a call for most
        served_by = record.provider
        feed = MeterFeed(meter, coding, record.provider) if meter is not None else None
        plain_stream = not coding and media_type(answer.headers.get(CONTENT_TYPE, "")) == "text/event-stream"
        # An error event can't be put into a compressed stream or a JSON body: there, breaking the connection must do.
        error_event = partial(provider.stream_error, request=call.head) if plain_stream else None
        sink = ClientSink(connection.transport, feed, error_event)

        record.status = answer.status
        self.metrics.opened(served_by)
        try:
            connection.flow = exchange
            whole = exchange.begin(outlet, sink, head, paused=connection.full)
            head, lines = b"", []  # an open stream would keep them, 2 kB
            if not whole:
                await exchange.rest()
        except asyncio.CancelledError:
            # Codex hangs up right after the last event, before the body's end: that is no abort.
            if feed is None or meter is None or not feed.complete:
                record.error = self.open.why_cancelled(request)
            else:
                record.error = UPSTREAM_FAILED if meter.failed else DONE
            raise
        finally:
            connection.flow = None
            self.metrics.closed(served_by)
            record.bytes_out = outlet.bytes_out
            if meter is not None:
                if (meter.stored or not meter.consumes) and call.admitted.caller.own is None:
                    self.storage.deposits.learn(call, attempt, meter, whole=exchange.error is None)
                    if meter.begun:
                        self.limiting.later(record)
                if meter.consumes:
                    record.usage = self.estimates.usage(record, meter)
                if meter.limits:
                    attempt.account.observe(meter.limits, time.time())
                if meter.verdict is not None:
                    attempt.account.apply(meter.verdict, time.time())
        if (failure := exchange.error) is not None:
            record.error = failure.told.kind.name.lower() if isinstance(failure, Stopped) else "upstream_lost"
            log.warning("%s: %s account %s: %s", record.request_id, record.provider, attempt.account.name, failure)
            request.keep_alive = False
        elif meter is not None and meter.failed:
            record.error = UPSTREAM_FAILED
        return SENT
