"""Records as rows of the ledger, what they are counted under, and the line that each has in the spill file."""

from __future__ import annotations

import json
from collections import defaultdict
from hashlib import blake2b
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aimux.metering.calendar import Calendar

    Values = tuple[Any, ...]
    """A `Row`."""

NOT_FAILED = frozenset({"", "client_gone"})
NANO = 10**9
"""A dollar, as costs are counted."""
TOTAL = 0
"""The key of the sum of everything."""
(
    ID,
    NUMBER,
    AT,
    NODE,
    CONVERSATION,
    METHOD,
    PATH,
    STATUS,
    ERROR,
    DURATION,
    TTFB,
    BYTES_IN,
    BYTES_OUT,
    INPUT,
    OUTPUT,
    CACHE_READ,
    CACHE_WRITE,
    CACHE_WRITE_1H,
    REASONING,
    SERVER_TOOLS,
    COST,
    ESTIMATED,
    REQUEST_ID,
    UPSTREAM_ID,
    DETAIL,
    KEY,
) = range(26)
"""The places in a row: the columns of `requests`, of which `key` is the NUMBER of the KEY behind them."""
_json = json.JSONEncoder(separators=(",", ":")).encode
"""Like `json.dumps`, which makes an encoder for each text unless its defaults are used."""


class Key(NamedTuple):
    """What a request is counted under; the columns of `usage_keys`, in their order, between `id` and `served`."""

    user: str
    token: str
    groups: tuple[str, ...]
    provider: str
    account: str
    mount: str
    model: str
    request_class: str
    client: str
    asked: str = ""
    """The model that was asked for; "": `model`, which is the one that the upstream says it served."""

    @property
    def limited(self) -> str:
        """The model by which limits count it."""
        return self.asked or self.model

    def hash(self) -> int:
        """63 bits, the same on every node and as it was before there was `asked`; never TOTAL."""
        digest = blake2b(json.dumps(self if self.asked else self[:-1]).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1 or 1

    def served(self) -> Key:
        """The same without the sender: there are few of these, however many people there are."""
        return self._replace(user="", token="", groups=(), mount="", asked="")


class Row(tuple[Any, ...]):
    """One request: the columns of `requests`, in their order, and its key behind them.

    Whole batches of them are plain tuples: making each an instance of this class and reading it by name takes as long
    as everything else that is done with it.
    """

    __slots__ = ()

    @property
    def id(self) -> str:
        return str(self[ID])

    @property
    def at(self) -> int:
        return int(self[AT])

    @property
    def key(self) -> Key:
        key: Key = self[KEY]
        return key

    @property
    def tokens(self) -> int:
        """Tokens of every kind, each counted once."""
        return sum(self[INPUT:CACHE_WRITE_1H])

    @property
    def output(self) -> int:
        """Those of them that were made."""
        return int(self[OUTPUT])

    @property
    def cost(self) -> int | None:
        """Nanodollars; None if no price is known."""
        cost: int | None = self[COST]
        return cost


class Part(NamedTuple):
    """What one request adds to the sums that it belongs to."""

    at: int
    key: int
    served: int
    """The key's `served`."""
    conversation: str | None
    user: str
    measures: tuple[int, ...]
    """`storage.schema.ledger.MEASURES`, in their order."""


def part_of(row: Values) -> Part:
    key: Key = row[KEY]
    return Part(row[AT], row[NUMBER], key.served().hash(), row[CONVERSATION], key.user, _measured([row]))


def _measured(rows: Sequence[Values]) -> tuple[int, ...]:
    """The measures of rows, column by column: for many rows at once it takes 0.2 µs each."""
    if len(rows) == 1:
        row = rows[0]
        cost = row[COST]
        failed = row[STATUS] >= 400 or row[ERROR] not in NOT_FAILED
        return (1, int(failed), int(cost is None), row[ESTIMATED], *row[INPUT:COST], cost or 0, row[DURATION])
    columns = [*zip(*rows, strict=True)]
    statuses, errors, costs = columns[STATUS], columns[ERROR], columns[COST]
    broken = unpriced = 0
    if statuses.count(200) != len(rows) or any(errors):
        broken = sum(status >= 400 or error not in NOT_FAILED for status, error in zip(statuses, errors, strict=True))
    try:
        cost = sum(costs)
    except TypeError:
        unpriced = costs.count(None)
        cost = sum(cost for cost in costs if cost)
    estimated, counts, seconds = sum(columns[ESTIMATED]), map(sum, columns[INPUT:COST]), sum(columns[DURATION])
    return (len(rows), broken, unpriced, estimated, *counts, cost, seconds)


def sums(rows: Sequence[Values], first: int, last: int, calendar: Calendar) -> list[tuple[int, ...]]:
    """Rows of `usage_hours` to be added: start, key, measures; sorted, so that two nodes never wait for each other.

    `first`, `last`: the first and the last time of the rows.
    """
    hours: defaultdict[int, list[Values]] = defaultdict(list)
    if calendar.hour(first) == calendar.hour(last):
        hours[calendar.hour(first)] += rows
    else:
        for row in rows:
            hours[calendar.hour(row[AT])].append(row)
    found: list[tuple[int, ...]] = []
    for hour, those in hours.items():
        keys: defaultdict[int, list[Values]] = defaultdict(list)
        for row in those:
            keys[row[NUMBER]].append(row)
        added = [(hour, number, *_measured(alike)) for number, alike in keys.items()]
        found += added
        found.append((hour, TOTAL, *map(sum, [*zip(*added, strict=True)][2:])))
    return sorted(found)


def sums_of_parts(parts: Iterable[Part], calendar: Calendar) -> list[tuple[int, ...]]:
    """The same of parts."""
    return add_up(((calendar.hour(part.at), key), part.measures) for part in parts for key in (part.key, TOTAL))


def add_up(parts: Iterable[tuple[tuple[Any, ...], Iterable[int]]]) -> list[tuple[Any, ...]]:
    """Measures with the same place in a table, added up, each after its place."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for where, added in parts:
        add_to(found, where, added)
    return [(*where, *what) for where, what in sorted(found.items())]


def add_to(found: dict[Any, list[int]], where: Any, sums: Iterable[int]) -> None:
    """Add sums to the existing ones."""
    known = found.get(where)
    if known is None:
        found[where] = [*sums]
    else:
        known[:] = map(add, known, sums)


# --- lines of the spill file ------------------------------------------------------------------------------------------


def encode(row: Values) -> bytes:
    """One line."""
    return _json((row[:KEY], row[KEY])).encode() + b"\n"


def decode(line: bytes) -> Values | None:
    """None for a line that is not a row, or one of another version's."""
    try:
        values, key = json.loads(line)
        row = (*values, Key(*key)._replace(groups=tuple(key[2])))
    except (ValueError, TypeError, IndexError, RecursionError):
        return None
    return row if len(row) == KEY + 1 else None
