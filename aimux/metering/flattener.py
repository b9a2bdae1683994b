"""Makes the ledger's rows of records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aimux.metering.rows import AT, COST, DETAIL, INPUT, KEY, Key
from aimux.plugin.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aimux.metering.prices import Prices
    from aimux.metering.record import RequestRecord, Sender, Step
    from aimux.metering.rows import Values

MAX_TEXT = 256
"""Characters of a foreign text (a model's name, a conversation's) that the ledger keeps."""
MAX_VALUES = 200
"""Clients, classes and models that a process distinguishes: each is a row for ever, and clients choose the names."""
MOST_KEYS = 50_000
"""Keys that are remembered; a conversation's name may be among what tells senders apart."""
OTHER = "other"
_NO_USAGE = Usage()
_json = json.JSONEncoder(separators=(",", ":")).encode
"""Like `json.dumps`, which makes an encoder for each text unless its defaults are used."""


class Flattener:
    """Makes rows of records: 1 µs each, off the hot path."""

    def __init__(self, node: str, prices: Prices) -> None:
        self.node = node
        self._prices = prices
        self._seen: dict[str, set[str]] = {"client": set(), "class": set(), "model": set(), "asked": set()}
        self._keys: dict[tuple[str, Sender, str, str, str, str, str, bool], tuple[Key, int, str | None]] = {}

    def rows(self, records: Iterable[RequestRecord]) -> list[Values]:
        """`Row`s, as plain tuples."""
        # One function, because a call takes a tenth of a row's time.
        rows, keys, models, node, priced = [], self._keys, self._seen["model"], self.node, self._prices.of_record
        for record in records:
            usage, steps = record.usage or _NO_USAGE, record.steps
            input_, output = usage.input_tokens, usage.output_tokens
            read, written = usage.cache_read_tokens, usage.cache_write_tokens
            asked = record.model
            served = usage.model or asked
            charged = bool(output or input_ or read or written) or usage.anything
            if not charged and served not in models:
                served = ""  # a model without any charge may be a name that the client made up
            under = (record.user, record.sender, record.provider, record.account, served, asked, usage.tier, charged)
            try:
                key, number, detail = keys[under]
            except KeyError:
                key, number, detail = self._new_key(*under)
            upstream_id: str | None = None
            if (
                record.attempts != 1
                or len(steps) != 1
                or steps[0].action != "relay"
                or record.limit is not None
                or usage.beside
                or usage.seconds
                or usage.characters
                or usage.unknown
            ):
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
                    priced(record) if cost is None else cost,  # limits have worked it out already
                    1 if usage.estimated else 0,  # sqlite3 looks for an adapter of each bool
                    named if named != own and named else None,
                    upstream_id or None,
                    detail,
                    key,
                )
            )
        return rows

    def priced(self, row: Values) -> Values:
        """The same with a cost, if there is a price now."""
        if row[COST] is not None:
            return row
        key, detail = row[KEY], row[DETAIL]
        usage = usage_of(key.model, row[INPUT:COST], json.loads(detail) if detail else {})
        cost = self._prices.cost(key.provider, key.account, key.model, usage, row[AT])
        return (*row[:COST], cost, *row[COST + 1 :])

    def _new_key(
        self,
        user: str,
        sender: Sender,
        provider: str,
        account: str,
        served: str,
        asked: str,
        tier: str,
        charged: bool,
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
            self._bounded("asked", asked) if charged and asked != served else "",
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
        self._keys[user, sender, provider, account, served, asked, tier, charged] = found
        return found

    def _bounded(self, kind: str, value: str) -> str:
        seen = self._seen[kind]
        if value not in seen:
            value = _text(value)
            if len(seen) >= MAX_VALUES:
                return OTHER
            seen.add(value)
        return value


def usage_of(model: str, counts: Sequence[Any], detail: Mapping[str, Any]) -> Usage:
    """What a request took, of its row: as far as its price depends on it."""
    usage = Usage(model, *counts)
    usage.tier, usage.requests = detail.get("tier", ""), detail.get("requests", 1)
    usage.beside = tuple(Usage(*one) for one in detail.get("beside", ()))
    usage.seconds, usage.characters = detail.get("seconds", 0), detail.get("characters", 0)
    usage.unknown = detail.get("unknown", False)
    return usage


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
    """What is worth keeping if it is not as usual."""
    steps = record.steps
    detail = json.loads(usual) if usual else {}
    if record.attempts != 1:
        detail["attempts"] = record.attempts
    if len(steps) > 1 or (len(steps) == 1 and steps[0].action != "relay"):
        detail["steps"] = _told(steps)
    if (usage := record.usage) is not None:
        if usage.requests != 1:
            detail["requests"] = usage.requests
        for name in ("seconds", "characters", "unknown"):
            if value := getattr(usage, name):
                detail[name] = value
        if usage.beside:  # has a price of its own
            detail["beside"] = [
                (
                    _text(one.model),
                    one.input_tokens,
                    one.output_tokens,
                    one.cache_read_tokens,
                    one.cache_write_tokens,
                    one.cache_write_1h_tokens,
                    one.reasoning_tokens,
                    one.server_tools,
                    one.tier,
                )
                for one in usage.beside
            ]
    if record.limit is not None:
        detail["limit"] = record.limit
    return _json(detail) if detail else None
