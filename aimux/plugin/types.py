"""The small frozen types that pass between the core and a provider. Times are unix seconds, fractions are 0 to 1.

Those made for every request are named tuples, which cost a third of what a frozen dataclass does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from collections.abc import Mapping

Headers = CIMultiDictProxy[str] | CIMultiDict[str]
"""Header fields: names in any case, and `getall` where one may be there more than once."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A parsed credential: what a request needs, and what the account's state shows. Secrets are out of its repr.

    `kind` is `oauth` (renewable or not), or `api_key`. `expires_at` None means that it does not say.
    `organization` names whoever owns the limits: accounts that share it share them.
    """

    kind: str
    secret: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    account_id: str | None = None
    organization: str | None = None
    email: str | None = None
    plan: str | None = None
    scopes: tuple[str, ...] = ()

    @property
    def renewable(self) -> bool:
        return self.refresh_token is not None

    def expires_within(self, seconds: float, now: float) -> bool:
        return self.expires_at is not None and self.expires_at - now <= seconds


class RequestHead(NamedTuple):
    """A client's request as it arrived. `target` is the raw path and query below the mount, beginning with `/`.

    `headers` are the client's own, its aimux token included: the core drops that one (and cookies, forwarding and
    hop-by-hop headers) whatever a provider does.
    """

    method: str
    target: str
    headers: Headers

    def __repr__(self) -> str:
        return f"RequestHead(method={self.method!r}, target={self.target!r})"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


class Upstream(NamedTuple):
    """Where a request goes and how its headers change: `Provider.prepare`'s answer.

    `base_url` comes from the settings (scheme, host, optional base path), `target` is appended to it.
    `set_headers` replace the client's headers of the same name; `drop_headers` are lower case names that do not pass.
    """

    base_url: str
    target: str
    set_headers: Mapping[str, str] = MappingProxyType({})
    drop_headers: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Upstream(base_url={self.base_url!r}, target={self.target!r})"


class Hints(NamedTuple):
    """What a client says about a request beside the request itself; "" where it says nothing."""

    request_class: str = ""
    """What it is for, in the client's own words: `main`, `subagent`, `compaction`, …"""
    agent: str = ""
    """The agent that asks, where a client runs several, and the one that started it."""
    parent_agent: str = ""


NO_HINTS = Hints()


class Action(StrEnum):
    """What an upstream's answer means for the request and the account."""

    RELAY = "relay"
    """Hand the answer to the client; the account is fine. Also for the caller's own faults (400, 404, 413)."""
    BACK_OFF = "back_off"
    """The upstream is overloaded: try elsewhere or a moment later; the account stays healthy."""
    COOL_DOWN = "cool_down"
    """The account (or one model on it) is limited until `Verdict.until`."""
    REFRESH = "refresh"
    """The credential was not accepted: read it again, renew it once, retry once."""
    MISSING = "missing"
    """What the request refers to lies with another account: the others are asked, whose answers may say the same."""
    PARK = "park"
    """The account can't serve until a person acts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`Provider.classify`'s answer. `until`: unix seconds. `model`: the limit holds for this model only."""

    action: Action
    reason: str = ""
    until: float | None = None
    model: str | None = None
    remedy: str = ""


RELAY = Verdict(Action.RELAY)


@dataclass(frozen=True, slots=True)
class LimitWindow:
    """One limit of an account as the upstream last told it, e.g. `5h` or `7d`. `used` is a fraction (None: not told).

    `status` is `allowed`, `warning` or `rejected`. `scope` names what it holds for when that is not the whole account.
    """

    name: str
    used: float | None = None
    resets_at: float | None = None
    status: str = "allowed"
    scope: str | None = None


class LimitState(NamedTuple):
    """A limit that aimux itself sets a user for a calendar window, and how much of it is used.

    `unit` is `tokens` or `usd`, `period` is `day`, `week` or `month`. `used` may be above `amount`. `shared`: the
    members of a group use it together.
    """

    unit: str
    period: str
    amount: float
    used: float
    resets_at: float
    shared: bool = False

    @property
    def part(self) -> float:
        """Of the amount: 0 is unused, 1 is used up, a thousand times that the most that is told. A limit of 0 is used
        up from the start."""
        return min(self.used / self.amount, 1000.0) if self.amount > 0 else 1.0


@dataclass(slots=True)
class Usage:
    """What one request consumed. `input_tokens` excludes cached ones, whatever the upstream's own convention."""

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    """The part of `cache_write_tokens` that was written with the one-hour lifetime (it costs more)."""
    reasoning_tokens: int = 0
    """The part of `output_tokens` that was spent on reasoning."""
    server_tools: int = 0
    """Searches and other tools that the upstream ran itself, by the request."""
    tier: str = ""
    """The service tier that the upstream says it served with, in its own word ("" where it says nothing)."""
    estimated: bool = False
    """The upstream did not tell all of it: a part is an estimate."""
    beside: tuple[Usage, ...] = ()
    """What of all this was sampled beside the answer and is priced by itself, perhaps as another model's."""
    requests: int = 1
    """How many requests took it together: where long ones cost more a token, their average length counts."""

    @property
    def total_input(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def add(self, other: Usage) -> None:
        """Count another turn in; the model is the last one's."""
        self.model = other.model or self.model
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_tokens += other.cache_write_tokens
        self.cache_write_1h_tokens += other.cache_write_1h_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.server_tools += other.server_tools
        self.tier = other.tier or self.tier
        self.estimated = self.estimated or other.estimated
        self.beside += other.beside

    def put_beside(self, sampled: tuple[Usage, ...]) -> None:
        """Count these in, instead of those that were."""
        for sign, counted in ((-1, self.beside), (1, sampled)):
            for one in counted:
                self.input_tokens += sign * one.input_tokens
                self.output_tokens += sign * one.output_tokens
                self.cache_read_tokens += sign * one.cache_read_tokens
                self.cache_write_tokens += sign * one.cache_write_tokens
                self.cache_write_1h_tokens += sign * one.cache_write_1h_tokens
        self.beside = sampled


BATCH: Final = "batch"
"""The service tier of whatever is priced at half because it is part of a batch."""


class Over(NamedTuple):
    """What something took that went on behind an answer (`Meter.begun`), as a later answer tells. `id` is its own;
    there is one `usage` for each model and price, always in the same order. `whole` False: it took so much at least."""

    id: str
    usage: tuple[Usage, ...]
    whole: bool = True


MAX_MODEL = 256
"""What is longer is no model's name: who asks for one could fill the memory with it, and the log."""
_LEADING_MODEL = re.compile(rb'\s*\{\s*"model"\s*:\s*"([^"\\]{1,%d})"' % MAX_MODEL)


class Body:
    """A request's body, kept for replay, and what can be read from it. Unreadable or non-JSON bodies read as `{}`.

    `raw` is what the client sent, to the byte; `encoding` its `content-encoding`.
    """

    __slots__ = ("_json", "encoding", "raw")

    def __init__(self, raw: bytes, encoding: str = "") -> None:
        self.raw = raw
        self.encoding = encoding
        self._json: dict[str, Any] | None = None

    @property
    def leading_model(self) -> str:
        """The `model` with which the body begins; "" where it doesn't, or where that can't be seen."""
        match = None if self.encoding else _LEADING_MODEL.match(self.raw)
        return match[1].decode("utf-8", "replace") if match else ""

    @property
    def model(self) -> str:
        """The body's `model`; "" where it has none, or one beyond MAX_MODEL.

        Both vendors' CLIs put it first: one regular expression then spares parsing 60 kB (about 150 µs). JSON may
        repeat a key, and then the last one counts upstream; who decides anything by the model asks `json()`.
        """
        return self.leading_model or self._parsed_model()

    @property
    def routed_model(self) -> str:
        """The model that the upstream will take it for, where something is decided by it: a repeated key's last value.

        The leading one is it, unless the name stands once more or could be written with escapes (30 µs to look through
        60 kB, against 150 to parse them).
        """
        plain = not self.encoding and self.raw.count(b'"model"') == 1 and b"\\u006" not in self.raw
        return (self.leading_model if plain else "") or self._parsed_model()

    def _parsed_model(self) -> str:
        model = self.json().get("model")
        return model if isinstance(model, str) and len(model) <= MAX_MODEL else ""

    def json(self) -> dict[str, Any]:
        """The body as a JSON object, parsed once; `{}` where it isn't one or is compressed in an unknown way."""
        if self._json is None:
            text = self.text()
            try:
                data = json.loads(text) if text is not None else None
            except (ValueError, RecursionError):
                data = None
            self._json = data if isinstance(data, dict) else {}
        return self._json

    def text(self) -> str | None:
        """The body decompressed and decoded; None where it is no text or compressed in an unknown way."""
        raw = self.decoded()
        try:
            return raw.decode("utf-8") if raw is not None else None
        except UnicodeDecodeError:
            return None

    def decoded(self) -> bytes | None:
        """The body decompressed; None where it is compressed in an unknown way."""
        from aimux.plugin.codings import DecodeError, decode

        try:
            return decode(self.raw, self.encoding) if self.encoding else self.raw
        except DecodeError:
            return None
