"""A WebSocket that is open: the records of its turns, what its messages say of its account, and when it may close."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from websockets.frames import CloseCode

from aimux.gateway.answers import UPSTREAM_FAILED
from aimux.gateway.handshakes import RESTARTING
from aimux.gateway.large_bodies import message_model
from aimux.http.websocket import close_reason
from aimux.metering.record import TURN, RequestRecord, new_id
from aimux.plugin.errors import ErrorKind, GatewayError, RateLimited
from aimux.plugin.meters import Meter
from aimux.plugin.types import Action

if TYPE_CHECKING:
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.deposits import Key
    from aimux.gateway.limiting import Limiting
    from aimux.gateway.vendor_storage import VendorStorage
    from aimux.metering.estimates import Estimates
    from aimux.metering.record import RecordSink
    from aimux.plugin.types import Verdict
    from aimux.relay.tunnel import Pipe

log = logging.getLogger("aimux.gateway")

ELSEWHERE = "connect again to continue with another account"
MOST_TURNS = 100
"""Of one socket at the same time."""


class OpenSocket:
    """What a socket's messages mean: usage, limits of its account, and when the socket may be closed."""

    pipe: Pipe

    def __init__(
        self,
        call: Call,
        attempt: Attempt,
        finished: RecordSink,
        limiting: Limiting,
        storage: VendorStorage,
        estimates: Estimates,
    ) -> None:
        self._call = call
        self._finished = finished
        self._limiting = limiting
        self._storage = storage
        self._estimates = estimates
        self._attempt = attempt
        self._route = attempt.route
        self._account = attempt.account
        self._meter = attempt.route.provider.websocket_meter(call.head)
        self._turns: dict[Meter, RequestRecord] = {}
        """Of the turns that are under way."""
        self._admitted: RequestRecord | None = None
        """Of the turn that the message begins which goes on now."""
        self._model = ""
        """Of the turn that was over last."""
        self._begun = 0
        """Turns so far."""
        self._held: deque[bytes] = deque()
        """Messages that wait until it is known whose that is what the first of them names."""
        self._looking: asyncio.Task[None] | None = None
        self._draining = False
        self._answering = False
        """The client has received a part of the answers to the turns that are under way."""

    @property
    def at_rest(self) -> bool:
        """No turn is under way, as far as the meter knows."""
        return self._meter is not None and self._meter.complete

    def drain(self) -> None:
        self._draining = True
        if self.at_rest:
            self.pipe.close(CloseCode.GOING_AWAY, RESTARTING)

    def stop(self, error: GatewayError) -> None:
        """Close it, whatever is under way: the client is told `error`."""
        self._call.record.error = error.kind.name.lower()
        self._say(error)
        self.pipe.close(CloseCode.POLICY_VIOLATION, close_reason(error.message))

    def _say(self, error: GatewayError) -> None:
        try:
            words = self._route.provider.websocket_error(error, self._call.head)
        except Exception:  # a plugin's fault: what is refused or ended is so all the same
            log.exception("%s: %s can't word an error", self._call.record.request_id, self._route.provider.instance)
            return
        self.pipe.client.say(words)

    def admits(self, message: bytes) -> bool:
        """Whether a client's message is passed on as it comes: it may name nothing of another user's, and one that
        begins a turn needs room. The socket stays open. What it names may have to be looked up, see `_look_up`."""
        if self._held:
            self._held.append(message)
            return False
        refused, unknown = self._others(message)
        if unknown:
            self._held.append(message)
            self.pipe.client.stop()
            self._looking = asyncio.create_task(self._look_up(unknown))
            return False
        return self._admit(message, refused)

    def _others(self, message: bytes) -> tuple[GatewayError | None, list[Key]]:
        """Why a message is refused for what it names, or what of that nothing is known about here."""
        if self._call.shared:
            return None, []
        try:
            return None, self._storage.refuse_others(self._call, message)
        except GatewayError as error:
            return error, []

    async def _look_up(self, unknown: list[Key]) -> None:
        """Ask the database whose that is what the first message names that is held, and go on with all that are."""
        pipe, held = self.pipe, self._held
        while held:
            if unknown:
                await self._storage.look_up(unknown)
            if pipe.done.done() or not pipe.upstream.codec.open:
                held.clear()
                return
            message = held[0]
            refused, _ = self._others(message)
            if self._admit(message, refused):
                self.asked(message)
                pipe.upstream.say(message)
            held.popleft()
            unknown = self._others(held[0])[1] if held else []
        pipe.upstream.flush()
        pipe.client.flush()
        pipe.client.let_go()

    def _admit(self, message: bytes, refused: GatewayError | None) -> bool:
        call, limiting = self._call, self._limiting
        begins = self._begins(message)
        if begins and self._moves():
            return False
        turn = self._begin() if begins else None
        try:
            if refused is not None:
                raise refused
            if turn is not None and len(self._turns) >= MOST_TURNS:
                text = f"{MOST_TURNS} turns are under way on this socket: wait until one of them is over."
                raise GatewayError(ErrorKind.RATE_LIMITED, text)
            if turn is not None and limiting.concerns(call.admitted):
                self._find_room(turn, message)
        except GatewayError as error:
            if turn is not None:
                turn.status, turn.error = error.status, turn.error or error.kind.name.lower()
                turn.attempts, turn.bytes_in = 0, len(message)
                self._finished(turn)
            self._say(error)
            return False
        self._admitted = turn
        return True

    def _moves(self) -> bool:
        """Whether the socket is closed instead of passing on a message that begins a turn: another account serves that,
        because this one is switched off, gone or kept for others meanwhile, or found limited by their requests."""
        account, pool, selection, now = self._account, self._route.accounts, self._call.selection, time.time()
        if self._turns or self._call.admitted.caller.own is not None:
            return False
        out = account.disabled or pool.accounts.get(account.name) is not account or not pool.admits(selection, account)
        if not out and (account.free_at("") <= now or pool.select(selection, now) is None):
            return False
        log.info("%s: %s serves no more; the client connects again", self._call.record.request_id, account.name)
        self.pipe.close(CloseCode.SERVICE_RESTART, ELSEWHERE)
        return True

    def _find_room(self, turn: RequestRecord, message: bytes) -> None:
        """Raises GatewayError."""
        limiting = self._limiting
        turn.model = turn.model or message_model(message, decisive=limiting.limits.policy.by_model)
        eligibility = limiting.admit(turn, self._call.admitted, message, turn.time)
        if eligibility is not None and eligibility.forbids(self._account, turn.model, turn.time):
            turn.error = eligibility.error
            raise eligibility.refusal(turn.provider, turn.time)

    def _begins(self, message: bytes) -> bool:
        if self._meter is None:
            return False
        try:
            return self._meter.begins(message)
        except Exception as error:  # a meter's fault must not reach the socket
            self._drop(error)
            return False

    def asked(self, message: bytes) -> None:
        meter, (turn, self._admitted) = self._meter, (self._admitted, None)
        if meter is None:
            return
        try:
            meter.asked(message)
        except Exception as error:  # as above
            self._admitted = turn
            self._drop(error)
            return
        if turn is not None:
            self._answering = bool(self._turns) and self._answering
            self._turns[meter.last] = turn
        if (under_way := self._turns.get(meter.last)) is not None:
            under_way.bytes_in += len(message)

    def answered(self, message: bytes) -> bytes | None:
        """Called before the message is passed on: a socket that is closed here does not send it. A message about the
        account's limits is replaced by one about the caller's own, if there are any: that is returned."""
        meter, own = self._meter, None
        if meter is None:
            return None
        try:
            meter.feed(message)
        except Exception as error:  # as above
            self._drop(error)
            return None
        if meter.unasked:
            self._begin_unasked(meter.last)
        if (turn := self._turns.get(meter.last)) is not None:
            turn.bytes_out += len(message)
            if turn.ttfb is None:
                turn.ttfb = time.time() - turn.time
        verdict, meter.verdict = meter.verdict, None
        if meter.ended:
            failed = UPSTREAM_FAILED if meter.last.failed else ""
            self._over(meter.last, str(verdict.action) if verdict is not None else failed)
            if verdict is None and not failed:
                self._route.accounts.faltering.discard(self._account)
        if verdict is not None:
            self._judge(verdict)
        if meter.limits:
            self._account.observe(meter.limits, time.time())
            meter.limits = ()
            who, provider = self._call.admitted.who, self._route.provider
            own = self._limiting.told_as_event(who, provider, self._attempt.shared) or None
        elif not self._answering:
            self._answering = not meter.tells_nothing(message)
        if self._draining and meter.complete:
            asyncio.get_running_loop().call_soon(self.drain)  # behind the message
        return own

    def ended(self, error: str) -> None:
        """The socket is closed; `error` says what ended the turns that were under way."""
        if self._admitted is not None:
            self._turns[Meter()], self._admitted = self._admitted, None
        for meter in list(self._turns):
            self._over(meter, error)

    def _begin(self) -> RequestRecord:
        socket, now = self._call.record, time.time()
        self._begun += 1
        return RequestRecord(
            new_id(now),
            now,
            TURN,
            socket.path,
            f"{socket.request_id}.{self._begun}",
            socket.user,
            socket.sender,
            socket.provider,
            socket.account,
            socket.conversation,
            status=200,
            attempts=1,
        )

    def _begin_unasked(self, meter: Meter) -> None:
        """The upstream goes on from the turn before with what its client has steered it by. Whoever has used up a
        budget meanwhile is told so, and the socket ends: nothing else ends this turn."""
        turn = self._turns[meter] = self._begin()
        turn.model = self._model
        self._answering = True  # the other account would know nothing of it
        if not self._limiting.concerns(self._call.admitted):
            return
        try:
            self._find_room(turn, b"")
        except RateLimited:
            return  # a matter of seconds
        except GatewayError as error:
            self.stop(error)

    def _over(self, meter: Meter, error: str) -> None:
        if (turn := self._turns.pop(meter, None)) is not None:
            turn.duration, self._model = time.time() - turn.time, turn.model
            turn.usage = self._estimates.usage(turn, meter)
            if meter.stored and self._call.admitted.caller.own is None:
                self._storage.deposits.learn(self._call, self._attempt, meter)
            turn.error = error
            self._finished(turn)

    def _judge(self, verdict: Verdict) -> None:
        """The account ran into a limit or has too much to do, or its credential is refused. While the client has
        nothing of this turn, another account may serve it, or the same one with a fresh credential.

        An open socket can't change its account. But a client that is told to reconnect does so at once, without
        bothering its user (Codex: 0.3 s), while the error would end the user's work although other accounts have room.
        The next handshake finds out about the credential, as every request does.
        """
        account, call, now, pool = self._account, self._call, time.time(), self._route.accounts
        if verdict.action is Action.MISSING:
            if verdict.model:
                pool.lacking.note(account, verdict.model, now)
        elif verdict.action is Action.RELAY:
            return
        elif verdict.action is Action.BACK_OFF:
            pool.faltering.add(account)
        account.apply(verdict, now)
        call.note(account.name, 101, verdict.action, verdict.reason)
        if call.admitted.caller.own is not None or self._answering or self._turns:
            return  # there is no other one, it would come too late, or others' turns would be cut off
        if verdict.action is Action.REFRESH:
            another = True
        elif verdict.model or verdict.action in {Action.MISSING, Action.BACK_OFF}:
            # Where all are overloaded, the client must hear of it, and not go round among them.
            wary = verdict.action is Action.BACK_OFF
            another = pool.leave(account, verdict.model or "", call.selection, now, wary=wary)
        else:
            another = pool.select(call.selection, now) is not None
        if another:
            log.info("%s: %s: %s; the client connects again", call.record.request_id, account.name, verdict.reason)
            self.pipe.close(CloseCode.SERVICE_RESTART, ELSEWHERE)

    def _drop(self, error: Exception) -> None:
        self.ended("unmetered")
        self._meter = None
        name = self._account.provider
        log.warning("usage of a %s socket can't be read: %s: %s", name, type(error).__name__, error)
