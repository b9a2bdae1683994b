"""Records as rows of the ledger, what they are counted under, and the line that each has in the spill file."""

from __future__ import annotations

import json
from collections import defaultdict
from hashlib import blake2b
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.plugin.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aimux.metering.calendar import Calendar
    from aimux.metering.prices import Prices
    from aimux.metering.record import RequestRecord, Sender, Step

    Values = tuple[Any, ...]
    """A `Row`."""

MAX_TEXT = 256
"""Characters of a foreign text (a model's name, a conversation's) that the ledger keeps."""
MAX_VALUES = 200
"""Clients, classes and models that a process tells apart: each is a row for ever, and clients choose the names."""
MOST_KEYS = 50_000
"""Keys that are remembered; a conversation's name may be among what tells senders apart."""
OTHER = "other"
NOT_FAILED = frozenset({"", "client_gone"})
NANO = 10**9
"""A dollar, as costs are counted."""
TOTAL = 0
"""The key of the sum of everything."""
ID, NUMBER, AT, COST, KEY = 0, 1, 2, 20, 25
"""Where they stand in a row."""
_NO_USAGE = Usage()
_json = json.JSONEncoder(separators=(",", ":")).encode
"""As `json.dumps`, which makes an encoder for each text that is not in its own way."""


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

    def hash(self) -> int:
        """63 bits, the same on every node; never TOTAL."""
        digest = blake2b(json.dumps(self).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1 or 1

    def served(self) -> Key:
        """The same without who sent it: of these there are few, however many people there are."""
        return self._replace(user="", token="", groups=(), mount="")


class Row(tuple[Any, ...]):
    """One request: the columns of `requests`, in their order, and its key behind them.

    Whole batches of them are plain tuples: to make each one of this class, and to ask it by name, takes as long as all
    else that is done with it.
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
        """Of every kind, each once."""
        return sum(self[13:17])

    @property
    def cost(self) -> int | None:
        """Nanodollars; None where no price is known."""
        cost: int | None = self[COST]
        return cost


class Flattener:
    """Makes rows of records: 1 µs each, off the hot path."""

    def __init__(self, node: str, prices: Prices) -> None:
        self.node = node
        self._prices = prices
        self._seen: dict[str, set[str]] = {"client": set(), "class": set(), "model": set()}
        self._keys: dict[tuple[str, Sender, str, str, str, str, str], tuple[Key, int, str | None]] = {}

    def rows(self, records: Iterable[RequestRecord]) -> list[Values]:
        """`Row`s, as plain tuples."""
        # One function, as a call takes as long as a tenth of a row.
        rows, keys, models, node, priced = [], self._keys, self._seen["model"], self.node, self._prices.of_record
        for record in records:
            usage, steps = record.usage or _NO_USAGE, record.steps
            input_, output = usage.input_tokens, usage.output_tokens
            read, written = usage.cache_read_tokens, usage.cache_write_tokens
            asked = record.model
            served = usage.model or asked
            if not (output or input_ or read or written) and served not in models:
                served = ""  # a model that nothing was charged for is a name that the client made up
            under = (record.user, record.sender, record.provider, record.account, served, asked, usage.tier)
            try:
                key, number, detail = keys[under]
            except KeyError:
                key, number, detail = self._new_key(*under)
            upstream_id: str | None = None
            if record.attempts != 1 or len(steps) != 1 or steps[0].action != "relay" or record.limit is not None:
                detail, upstream_id = _detail(record, detail), _upstream_id(steps)
            elif upstream_id := steps[0].upstream_id:
                upstream_id = _text(upstream_id)
            ttfb, own, path, talk = record.ttfb, record.id, record.path, record.conversation
            both = path + talk
            if not both.isascii() or len(both) > MAX_TEXT or "\0" in both:
                path, talk = _text(path), _text(talk)
            cost, named = record.cost, record.request_id
            rows.append(
                (
                    own,
                    number,
                    int(record.time * 1000),
                    node,
                    talk or None,
                    record.method,
                    path,
                    record.status,
                    record.error,
                    int(record.duration * 1000 + 0.5),
                    None if ttfb is None else int(ttfb * 1000 + 0.5),
                    record.bytes_in,
                    record.bytes_out,
                    input_,
                    output,
                    read,
                    written,
                    usage.cache_write_1h_tokens,
                    usage.reasoning_tokens,
                    usage.server_tools,
                    priced(record) if cost is None else cost,  # limits have asked for it already
                    1 if usage.estimated else 0,  # sqlite3 looks for an adapter of each bool
                    named if named != own and named else None,
                    upstream_id or None,
                    detail,
                    key,
                )
            )
        return rows

    def priced(self, row: Values) -> Values:
        """The same with a cost, where there is a price by now."""
        if row[COST] is not None:
            return row
        key, detail = row[KEY], row[KEY - 1]
        tier = (json.loads(detail) if detail else {}).get("tier", "")
        usage = Usage(key.model, *row[13:COST])
        usage.tier = tier
        cost = self._prices.cost(key.provider, key.account, key.model, usage, row[AT])
        return (*row[:COST], cost, *row[COST + 1 :])

    def _new_key(
        self, user: str, sender: Sender, provider: str, account: str, served: str, asked: str, tier: str
    ) -> tuple[Key, int, str | None]:
        """The key, its number, and the detail of a request that was served at once: made once for all alike."""
        key = Key(
            user,
            sender.token,
            sender.groups,
            provider,
            account,
            sender.mount,
            self._bounded("model", served),
            self._bounded("class", sender.request_class),
            self._bounded("client", sender.client),
        )
        if len(self._keys) >= MOST_KEYS:
            self._keys.clear()
        usual = {
            "asked": "" if asked == key.model else _text(asked),
            "tier": tier,
            "agent": sender.agent,
            "parent_agent": sender.parent_agent,
        }
        said = {name: value for name, value in usual.items() if value}
        found = key, key.hash(), _json(said) if said else None
        self._keys[user, sender, provider, account, served, asked, tier] = found
        return found

    def _bounded(self, kind: str, value: str) -> str:
        seen = self._seen[kind]
        if value not in seen:
            value = _text(value)
            if len(seen) >= MAX_VALUES:
                return OTHER
            seen.add(value)
        return value


def _text(value: str) -> str:
    """Fit for a column of either database."""
    if value.isascii() and len(value) <= MAX_TEXT and "\0" not in value:  # nearly all: told without a look at each
        return value
    return value[:MAX_TEXT].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _upstream_id(steps: Sequence[Step]) -> str | None:
    for step in reversed(steps):
        if step.upstream_id:
            return _text(step.upstream_id)
    return None


def _told(steps: Sequence[Step]) -> list[Step]:
    return [
        step._replace(
            reason=_text(step.reason),
            seconds=round(step.seconds, 3),
            model=_text(step.model),
            upstream_id=_text(step.upstream_id),
        )
        for step in steps
    ]


def _detail(record: RequestRecord, usual: str | None) -> str | None:
    """What is worth keeping where it is not as usual."""
    steps = record.steps
    detail = json.loads(usual) if usual else {}
    if record.attempts != 1:
        detail["attempts"] = record.attempts
    if len(steps) > 1 or (len(steps) == 1 and steps[0].action != "relay"):
        detail["steps"] = _told(steps)
    if record.limit is not None:
        detail["limit"] = record.limit
    return _json(detail) if detail else None


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
    return Part(row[AT], row[NUMBER], key.served().hash(), row[4], key.user, _measured([row]))


def _measured(rows: Sequence[Values]) -> tuple[int, ...]:
    """The measures of rows, column by column: of many rows at once it is 0.2 µs each."""
    if len(rows) == 1:
        row = rows[0]
        cost = row[COST]
        failed = row[7] >= 400 or row[8] not in NOT_FAILED
        return (1, int(failed), int(cost is None), row[21], *row[13:COST], cost or 0, row[9])
    columns = [*zip(*rows, strict=True)]
    statuses, errors, costs = columns[7], columns[8], columns[COST]
    broken = unpriced = 0
    if statuses.count(200) != len(rows) or any(errors):
        broken = sum(status >= 400 or error not in NOT_FAILED for status, error in zip(statuses, errors, strict=True))
    try:
        cost = sum(costs)
    except TypeError:
        unpriced = costs.count(None)
        cost = sum(cost for cost in costs if cost)
    return (len(rows), broken, unpriced, sum(columns[21]), *map(sum, columns[13:COST]), cost, sum(columns[9]))


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
    """Measures with the same place in a table, added; each behind its place."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for where, added in parts:
        known = found.get(where)
        if known is None:
            found[where] = [*added]
        else:
            known[:] = map(add, known, added)
    return [(*where, *what) for where, what in sorted(found.items())]


# --- lines of the spill file ------------------------------------------------------------------------------------------


def encode(row: Values) -> bytes:
    """One line."""
    return _json((row[:KEY], row[KEY])).encode() + b"\n"


def decode(line: bytes) -> Values | None:
    """None for a line that is no row: the last one before a crash may be half there."""
    try:
        values, key = json.loads(line)
        return (*values, Key(*key)._replace(groups=tuple(key[2])))
    except (ValueError, TypeError, IndexError):
        return None
