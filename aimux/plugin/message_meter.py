"""The meter of a WebSocket: what its messages say of the turns that are under way on it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar

from aimux.plugin.meters import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.plugin.sse_meter import SSEMeter
    from aimux.plugin.usage import Usage


class MessageMeter(Meter):
    """For a WebSocket whose messages are the data of the events that the same protocol streams.

    Several turns may be under way: in one lane they are answered one after the other, and lanes go on side by side.
    `usage` sums the turns that ended. `complete` says that no turn is under way: then a socket may be closed. `last` is
    the meter of the turn that the last message belongs to, and `ended` whether that message ended it. Whoever reads
    `limits` and `verdict` resets them.
    """

    ended = False
    unasked = False
    """The upstream's last message began a turn, see `begins_unasked`."""
    most_told: ClassVar[int] = 100
    """Lanes whose last turn is remembered: the client names them."""

    def __init__(self, turn: Callable[[], SSEMeter]) -> None:
        """`turn` makes the meter of one turn."""
        super().__init__()
        self.complete = True
        self._make = turn
        self._lanes: dict[str, deque[SSEMeter]] = {}
        """The turns that are under way, in the order in which they began."""
        self._told: dict[str, Usage] = {}
        """What the last whole turn of each lane took."""
        self._named = False
        """The upstream has named a lane."""
        self._between = self.last = turn()

    def begins(self, message: bytes) -> bool:
        """Whether this message of the client's begins a turn."""
        return self.complete

    def tells_nothing(self, message: bytes) -> bool:
        """Whether this message of the upstream's holds nothing of an answer: a client that has no more than such ones
        may ask again elsewhere."""
        return False

    def goes_on(self, message: bytes) -> bool:
        """Whether the turn that this message begins goes on from the one before it in its lane."""
        return False

    def begins_unasked(self, message: bytes) -> bool:
        """Whether this message of the upstream's begins a turn though no message of the client's did: one that goes on
        from the turn before it. Asked where none is under way in the message's lane."""
        return False

    def lane(self, message: bytes) -> str:
        """The lane that a message of either side is in."""
        return ""

    def asked(self, message: bytes) -> None:
        lane = self.lane(message)
        if self.begins(message):
            self._begin(lane, goes_on=bool(self._told) and self.goes_on(message))
        else:
            self.last = self._turn(lane)
        self.last.asked(message)

    def feed(self, data: bytes) -> None:
        """The upstream sent a message."""
        lane = self.lane(data)
        self._named = self._named or bool(lane)
        # Without a lane it may be of any turn that is under way, unless the upstream names the other lanes.
        known = lane or (self._named and lane in self._told)
        rests = not (self._lanes.get(lane) if known else self._lanes)
        self.unasked = rests and self.begins_unasked(data)
        if self.unasked:
            self._begin(lane, goes_on=True)
        turn = self.last = self._turn(lane)
        turn.feed(b"data:%b\n\n" % data.replace(b"\n", b" "))
        if turn.limits:
            self.limits, turn.limits = turn.limits, ()
        self.ended = turn.complete
        if turn.complete:
            self.verdict = turn.verdict
            self.usage.add(turn.usage)
            if turn.usage.total_input and (lane in self._told or len(self._told) < self.most_told):
                self._told[lane] = turn.usage
            self._forget(turn)

    def _begin(self, lane: str, *, goes_on: bool) -> None:
        self.complete = False
        self.last = self._make()
        if goes_on:
            self.last.before = self._told.get(lane)
        self._lanes.setdefault(lane, deque()).append(self.last)

    def _turn(self, lane: str) -> SSEMeter:
        """The turn that is answered now in a lane. An upstream may leave the lane out: then the one that waits longest.
        Between turns it may tell of limits."""
        if turns := self._lanes.get(lane):
            return turns[0]
        return next((turns[0] for turns in self._lanes.values()), self._between)

    def _forget(self, turn: SSEMeter) -> None:
        if turn is self._between:
            self._between = self._make()
        for lane, turns in self._lanes.items():
            if turns[0] is turn:
                turns.popleft()
                if not turns:
                    del self._lanes[lane]
                break
        self.complete = not self._lanes
