"""What is running and what ended lately, here and at the other nodes; the nodes tell each other once a second."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.storage import MOST_TOLD, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aimux.metering.journal import Journal
    from aimux.metering.record import RequestRecord
    from aimux.storage import Database

log = logging.getLogger(__name__)

EVERY = 1.0
RECENT = 30.0
"""Seconds over which ended requests are counted."""
BELIEVED = 5.0
"""Seconds after which a silent node is forgotten: it was killed, or has lost the database."""
NAME = 100
"""Characters of a name that are shared: clients choose some names."""


class Open(NamedTuple):
    """A request under way."""

    id: str
    user: str
    model: str
    provider: str
    account: str
    client: str
    seconds: float
    streaming: bool


class NodeActivity(NamedTuple):
    """What a node is doing."""

    node: str
    """Its host."""
    running: int
    tokens_per_second: float
    """Output of the requests that ended in the last 30 s."""
    requests_per_minute: float
    items: list[Open]
    """The longest-running first; of another node those that fit into a notice, some thirty."""


class Activity:
    """The activity of one node, and what the others report of theirs."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        running: Callable[[], Iterable[RequestRecord]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`running` gives the requests under way."""
        self._database = database
        self._journal = journal
        self._running = running
        self._clock = clock
        self._others: dict[str, tuple[float, NodeActivity]] = {}
        self._told_some = False
        database.hear(self._heard)

    def own(self) -> NodeActivity:
        now = time.time()
        items = [_open(record, now) for record in sorted(self._running(), key=lambda record: record.time)]
        # What ended ahead of the clock did so by one that was wrong.
        ended = list(takewhile(lambda r: abs(now - r.time - r.duration) < RECENT, self._journal.latest()))
        tokens = sum(record.usage.output_tokens for record in ended if record.usage is not None)
        rates = (round(tokens / RECENT, 1), round(len(ended) * 60 / RECENT, 1))
        return NodeActivity(socket.gethostname(), len(items), *rates, items)

    def others(self) -> list[NodeActivity]:
        """The activities of nodes that do something. Empty while the database is unavailable."""
        since = self._clock() - BELIEVED
        self._others = {node: told for node, told in self._others.items() if told[0] > since}
        return sorted((told for _, told in self._others.values()), key=lambda told: told.node)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.tell()

    async def tell(self) -> None:
        """Tell the others what is running, and once that nothing is left."""
        own = self.own()
        busy = _busy(own)
        if busy or self._told_some:
            try:
                await self._database.tell(_notice(own))
                self._told_some = busy
            except StorageError as error:
                log.debug("the other nodes are not told what runs here: %s", error)

    def _heard(self, node: str, text: str) -> None:
        if not text.startswith("["):
            return  # it is about something else
        try:
            *sums, items = json.loads(text)
            activity = NodeActivity._make([*sums, [Open._make(item) for item in items]])
        except (ValueError, TypeError) as error:
            log.debug("a node of another version tells what this one does not understand: %s", error)
            return
        self._others.pop(node, None)
        if _busy(activity):
            self._others[node] = (self._clock(), activity)


def _busy(activity: NodeActivity) -> bool:
    return activity.running > 0 or activity.requests_per_minute > 0


def _open(record: RequestRecord, now: float) -> Open:
    return Open(
        record.request_id,
        record.user,
        record.model,
        record.provider,
        record.account,
        record.sender.client,
        round(max(0.0, now - record.time), 3),
        record.ttfb is not None,
    )


def _notice(activity: NodeActivity) -> str:
    """All sums, and as many requests as fit."""
    sums = json.dumps(activity[:-1])[:-1] + ", ["
    items = [json.dumps([_cut(value) for value in item]) for item in activity.items]
    return sums + ", ".join(_fitting(items, MOST_TOLD - len(sums) - 2)) + "]]"


def _fitting(items: Iterable[str], most: int) -> Iterator[str]:
    for item in items:
        most -= len(item) + 2
        if most < 0:
            return
        yield item


def _cut(value: Any) -> Any:
    return value[:NAME] if isinstance(value, str) else value
