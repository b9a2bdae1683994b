"""The live state of accounts that several nodes share: each publishes its changes and takes over those of others."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from aimux.accounts.state import DEBOUNCE
from aimux.storage import Conflict, StorageError
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.accounts.state import Accounts
    from aimux.storage import Database
    from aimux.storage.engine import Connection

log = logging.getLogger(__name__)

TOPIC = "account_states"
Entry = dict[str, Any]
Place = tuple[str, str]
"""Instance and account."""
_BY_CHANCE = ("last_used", "limits")
"""What changes with nearly every answer, and can wait for the next round."""


class DatabaseState:
    """Rows of `account_states`. Made by `open`.

    `flush` is called every two seconds by the keeper: it takes over what other nodes wrote, and writes what is new
    here, merged field by field, so that a node that disables an account and one that learns of a limit don't undo each
    other's change. How far limits are used is written only every ten seconds.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._written_at = -DEBOUNCE
        self._known: dict[Place, Entry] = {}
        """As they were last read or written."""
        self._pools: dict[str, Accounts] = {}
        self._held: set[Place] = set()
        """The accounts of the last look: one that is gone since was removed."""
        self._changed = False
        self._news = 0
        self.trouble = ""
        self._flushing = asyncio.Lock()
        database.subscribe(TOPIC, self._heard)

    @classmethod
    async def open(cls, database: Database) -> DatabaseState:
        """Raises StorageError."""
        state = cls(database)
        async with database.read() as connection:
            state._known = await _rows(connection)
        return state

    def entry(self, instance: str, account: str) -> object:
        return self._known.get((instance, account), {})

    def entries(self) -> dict[Place, Any]:
        return dict(self._known)

    async def put(self, entries: Mapping[Place, Any]) -> None:
        async with self._database.write(TOPIC) as connection:
            there = await _rows(connection, update=True)
            for place, entry in entries.items():
                await _put(connection, place, entry, there=place in there)

    def changed(self, instance: str, accounts: Accounts) -> None:
        self._pools[instance] = accounts
        self._changed = True

    async def flush(self, *, now: bool = False) -> None:
        async with self._flushing:
            try:
                if self._news:
                    await self._take_over()
                    self.trouble = ""
                if self._changed and await self._write(now=now):
                    self.trouble = ""
            except StorageError as error:
                if not self.trouble:
                    log.warning("the state of accounts is not shared for now: %s", error)
                self.trouble = error.reason

    def _heard(self) -> None:
        self._news += 1

    async def _take_over(self) -> None:
        news = self._news
        async with self._database.read() as connection:
            theirs = await _rows(connection)
        ours = self._snapshots()
        for place in theirs.keys() | self._known.keys():
            told, known = theirs.get(place, {}), self._known.get(place, {})
            if told != known and place in ours:
                self._adopt(place, merged(known, ours[place], told))
        self._known = theirs
        self._news -= news

    async def _write(self, *, now: bool) -> bool:
        """Whether the others may know all of it now; False: it waits for a better moment."""
        ours = self._snapshots()
        new = {place: entry for place, entry in ours.items() if entry != self._known.get(place, {})}
        removed = {place for place in self._held - ours.keys() if place in self._known}
        pressing = removed or any(_pressing(entry) != _pressing(self._known.get(p, {})) for p, entry in new.items())
        if not pressing and not now and self._clock() - self._written_at < DEBOUNCE:
            return False
        self._changed = False
        self._written_at = self._clock()
        self._held = set(ours)
        if not new and not removed:
            return True
        try:
            async with self._database.write(TOPIC) as connection:
                theirs = await _rows(connection, update=True)
                told = {place: theirs.get(place, {}) for place in new}
                result = {place: merged(self._known.get(place, {}), new[place], told[place]) for place in new}
                for place, entry in (result | {place: {} for place in removed}).items():
                    await _put(connection, place, entry, there=place in theirs)
        except StorageError as error:
            self._changed = True
            if isinstance(error, Conflict):
                return False  # another node wrote the same account at the same moment: next time its row is there
            raise
        self._news -= 1  # our own
        current = self._snapshots()
        for place, entry in result.items():
            if entry != new[place] and place in current:
                self._adopt(place, merged(new[place], current[place], entry))
            self._known[place] = entry
        for place in removed:
            self._known.pop(place, None)
        return True

    def _snapshots(self) -> dict[Place, Entry]:
        taken = {}
        for instance, accounts in self._pools.items():
            for account, entry in accounts.snapshot().items():
                # One that can't be read here may well be read elsewhere.
                if "parked" in entry and entry["parked"].get("fingerprint") is None:
                    del entry["parked"]
                taken[instance, account] = entry
        return taken

    def _adopt(self, place: Place, entry: Entry) -> None:
        self._pools[place[0]].adopt(place[1], entry)


def merged(base: Entry, ours: Entry, theirs: Entry) -> Entry:
    """The changes of both sides to `base`, merged. If both changed the same field, ours counts: it is written later."""
    result = _merged(base, ours, theirs)
    for name, keyed in (("cooldowns", dict), ("limits", _by_name)):
        one = _merged(*(keyed(entry.get(name, ())) for entry in (base, ours, theirs)))
        result[name] = list(one.values()) if name == "limits" else one
    result["last_used"] = max((e["last_used"] for e in (ours, theirs) if e.get("last_used")), default=None)
    return {name: value for name, value in result.items() if value not in (None, [], {}, False)}


def _merged(base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for key in {**ours, **theirs, **base}:  # in this order, which people see: a set would have another in each process
        source = theirs if ours.get(key) == base.get(key) else ours
        if key in source:
            result[key] = source[key]
    return result


def _by_name(limits: list[Entry]) -> dict[str, Entry]:
    return {limit["name"]: limit for limit in limits}


def _pressing(entry: Entry) -> Entry:
    return {name: value for name, value in entry.items() if name not in _BY_CHANCE}


async def _rows(connection: Connection, *, update: bool = False) -> dict[Place, Entry]:
    from aimux.storage.schema.accounts import account_states as t

    query = t.select().with_only_columns(t.c.instance, t.c.account, t.c.entry).order_by(t.c.instance, t.c.account)
    rows = await connection.execute(query.with_for_update() if update else query)
    return {(row.instance, row.account): row.entry for row in rows}


async def _put(connection: Connection, place: Place, entry: Entry, *, there: bool) -> None:
    from aimux.storage.schema.accounts import account_states as t

    this = (t.c.instance == place[0], t.c.account == place[1])
    if not entry:
        await connection.execute(t.delete().where(*this))
    elif there:
        await connection.execute(t.update().where(*this).values(entry=entry, updated_at=now()))
    else:
        await connection.execute(t.insert().values(instance=place[0], account=place[1], entry=entry, updated_at=now()))
