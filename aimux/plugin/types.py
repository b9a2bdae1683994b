"""The small frozen types that pass between the core and a provider. Times are unix seconds, fractions are 0 to 1.

Those made for every request are named tuples, which cost a third of what a frozen dataclass does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.plugin.usage import Usage

Headers = CIMultiDictProxy[str] | CIMultiDict[str]
"""Header fields: names in any case, and `getall` for those that may occur more than once."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A parsed credential: what a request needs, and what the account's state shows. Secrets are out of its repr.

    `kind` is `oauth` (renewable or not), or `api_key`. `expires_at` None means that it does not say. `organization`
    names the owner of the limits: accounts of one organization share them. `login_ends_at`: from then on no renewal
    helps, and a person has to log in again; None: it does not say.
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
    login_ends_at: float | None = None

    @property
    def renewable(self) -> bool:
        return self.refresh_token is not None

    def expires_within(self, seconds: float, now: float) -> bool:
        return self.expires_at is not None and self.expires_at - now <= seconds


_MAKE_NOTHING = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


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

    @property
    def makes_nothing(self) -> bool:
        """Whether its method makes nothing. Some servers take any other one (PUT, QUERY) for POST."""
        return self.method in _MAKE_NOTHING


class Upstream(NamedTuple):
    """Where a request goes and how its headers change: `Provider.prepare`'s answer.

    `base_url` comes from the settings (scheme, host, optional base path); `target` is appended to it.
    `set_headers` replace the client's headers of the same name; `drop_headers` are lower case names that do not pass.
    """

    base_url: str
    target: str
    set_headers: Mapping[str, str] = MappingProxyType({})
    drop_headers: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Upstream(base_url={self.base_url!r}, target={self.target!r})"


class Hints(NamedTuple):
    """What a client says about a request besides the request itself; "" if it says nothing."""

    request_class: str = ""
    """What it is for, in the client's own words: `main`, `subagent`, `compaction`, …"""
    agent: str = ""
    """The agent that asks, if a client runs several, and the one that started it."""
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
    """Another account has what the request refers to, or can read it, or has `Verdict.model`, or is not of
    `Verdict.kind`: the others are asked, and may answer the same."""
    PARK = "park"
    """The account can't serve until a person acts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`Provider.classify`'s answer. `until`: unix seconds. `model`: the limit holds for this model only. `kind`: no
    account whose `Credential.kind` this is would answer otherwise."""

    action: Action
    reason: str = ""
    until: float | None = None
    model: str | None = None
    remedy: str = ""
    kind: str = ""


RELAY = Verdict(Action.RELAY)


@dataclass(frozen=True, slots=True)
class LimitWindow:
    """One limit of an account as the upstream last reported it, e.g. `5h` or `7d`. `used` is a fraction (None:
    unknown).

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
        """The used part of the amount: 0 is unused, 1 is used up; it is at most 1000. A limit of 0 is used up from the
        start."""
        return min(self.used / self.amount, 1000.0) if self.amount > 0 else 1.0


BATCH: Final = "batch"
"""The service tier of what costs half because it is part of a batch."""
FAST: Final = "fast"
"""The tier of what was made at a higher speed: where no list has its price, it has none, as it costs several times as
much as usual."""
REGIONAL: Final = "+region"
"""Ends the tier of what was made in a region of the customer's choice: its tokens cost a tenth more."""


class Over(NamedTuple):
    """What something took that went on after an answer (`Meter.begun`), as a later answer reports it. `id` is its own;
    there is one `usage` for each model and price, always in the same order. `whole` False: it took at least this
    much. `total`: its one `usage` is all of it, whatever model that names, or none."""

    id: str
    usage: tuple[Usage, ...]
    whole: bool = True
    total: bool = False
