"""Guesses at tokens: how many of them are looked at, by address and in all.

A token that was right before, from the same address, is always looked at, and so is one of aimux's own form, which
nobody guesses. Any other token uses up a look: an address has ten, and then four a second. If none is left, the latest
to come gets the next one, at most a quarter of a second later, and the one who waited before is told that the token was
not looked at. So guessing faster gains nothing, and an honest newcomer at the guesser's own address hardly notices.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import OrderedDict
from typing import NamedTuple

from aimux.plugin.errors import ErrorKind, GatewayError

log = logging.getLogger("aimux.gateway")

FREE, EACH_SECOND = 10, 4.0
"""Looks of an address: this many at once, and then this many a second."""
FREE_IN_ALL, IN_ALL_EACH_SECOND = 200, 40.0
MAX_ADDRESSES = 10_000
MAX_RIGHT = 20_000
TELL_EVERY = 60.0
"""Seconds between two log lines about an address."""
REMEMBERED = 10
"""Wrong tokens remembered for an address: the same one again is not a guess, and gets the reason each time."""


class NotLookedAt(GatewayError):
    """Nobody knows whether the token is right. `address` is whose looks are used up."""

    def __init__(self, address: str) -> None:
        super().__init__(
            ErrorKind.RATE_LIMITED,
            "Too many wrong tokens came from your address, and this one was not looked at: try again in a second.",
            retry=True,
            retry_after=1,
        )
        self.address = address


def slowed_down(wrong: GatewayError) -> GatewayError:
    """The error for a wrong token that had to wait: 429, so that its sender slows down."""
    if wrong.kind is not ErrorKind.UNAUTHORIZED:
        return wrong
    message = f"{wrong.message} Many wrong tokens came from your address: each takes its time."
    return GatewayError(ErrorKind.RATE_LIMITED, message, retry=False, retry_after=1)


class _Seen(NamedTuple):
    level: float
    since: float
    wrong: tuple[bytes, ...]
    told: float = -TELL_EVERY
    """When the log last named it."""


_NOTHING = _Seen(0.0, 0.0, ())


class Guesses:
    """Times are the monotonic clock's. `shown` is the digest of the token."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._right: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._all = _NOTHING
        self._waiting: dict[str, asyncio.Future[bool]] = {}

    def __len__(self) -> int:
        return len(self._seen) + len(self._right)

    def knows(self, address: str, shown: bytes) -> bool:
        """Whether it is not a guess, because it was shown from there before."""
        short = shown[:8]
        if (address, short) in self._right:
            return True
        seen = self._seen.get(_network(address)) if self._seen else None
        return seen is not None and short in seen.wrong

    def look(self, address: str, now: float) -> None:
        """Take a look. Raises NotLookedAt where there is none left."""
        place = _network(address)
        seen, of_all = self._seen.get(place, _NOTHING), self._all
        level = max(0.0, seen.level - (now - seen.since) * EACH_SECOND)
        level_of_all = max(0.0, of_all.level - (now - of_all.since) * IN_ALL_EACH_SECOND)
        if level > FREE - 1 and now - seen.told >= TELL_EVERY:
            log.warning("many wrong tokens come from %s: most of them are not looked at", place or "a local socket")
            self._keep(place, seen._replace(told=now))
        if level > FREE - 1 or level_of_all > FREE_IN_ALL - 1:
            raise NotLookedAt(address)
        self._keep(place, seen._replace(level=level + 1, since=now))
        self._all = _Seen(level_of_all + 1, now, ())

    def right(self, address: str, shown: bytes, *, looked: bool) -> None:
        """It is right, so not a guess: give back the look that was taken for it."""
        key = address, shown[:8]
        if key in self._right:
            return
        self._right[key] = None
        if len(self._right) > MAX_RIGHT:
            self._right.popitem(last=False)
        place = _network(address)
        if looked and (seen := self._seen.get(place)) is not None:
            self._keep(place, seen._replace(level=max(0.0, seen.level - 1)))
            self._all = self._all._replace(level=max(0.0, self._all.level - 1))

    def wrong(self, address: str, shown: bytes) -> None:
        """It is wrong."""
        place = _network(address)
        seen = self._seen.get(place, _NOTHING)
        if shown[:8] in seen.wrong:
            return
        self._keep(place, seen._replace(wrong=(*seen.wrong, shown[:8])[-REMEMBERED:]))

    async def turn(self, address: str) -> bool:
        """Wait until one more may be looked at. False: somebody who came later got the turn."""
        place, loop = _network(address), asyncio.get_running_loop()
        before = self._waiting.get(place)
        if before is not None and not before.done():
            before.set_result(False)
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting[place] = turn
        timer = loop.call_later(1 / EACH_SECOND, _come, turn)
        try:
            return await turn
        finally:
            timer.cancel()
            if self._waiting.get(place) is turn:
                del self._waiting[place]

    def _keep(self, place: str, seen: _Seen) -> None:
        self._seen[place] = seen
        self._seen.move_to_end(place)
        if len(self._seen) > MAX_ADDRESSES:
            self._seen.popitem(last=False)


def _come(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(True)


def _network(address: str) -> str:
    """Whoever has one IPv6 address has the 2^64 beside it as well."""
    if ":" not in address:
        return address
    try:
        ip = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip.ipv4_mapped or ipaddress.IPv6Address(int(ip) >> 64 << 64))
