"""One account: its credential and its state. Changes go through methods, so that the ranking learns of them."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from aimux.accounts.parked import Cooldown, Parked
from aimux.accounts.quota import Quota
from aimux.plugin.errors import RefreshRejected
from aimux.plugin.settings import AccountSettings
from aimux.plugin.types import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aimux.plugin.types import Credential, LimitWindow, Verdict

log = logging.getLogger(__name__)

REFUSALS = 3
"""Requests in a row that are refused with a credential that has served, until others are served first …"""
REFUSED_PAUSE = 300.0
"""… for this many seconds."""
GIVEN_UP, GIVEN_UP_AFTER = 10, 3600.0
"""Such refusals, and seconds in which there was nothing else, until it is parked: a vendor whose sign-in fails for some
minutes must not leave each key to be enabled by hand."""
LOGIN_ENDS_SOON = 3 * 86400.0
"""Seconds before the end of a login from which on the account says so."""

Status = Literal["healthy", "cooling", "parked", "disabled"]


@dataclass(frozen=True, slots=True)
class AccountState:
    """What a person is shown. `until`: unix seconds, for a cooling account."""

    status: Status
    reason: str = ""
    remedy: str = ""
    until: float | None = None


HEALTHY = AccountState("healthy")


class Renewal(Protocol):
    """What keeps an account's credential fresh: see renewal.py."""

    @property
    def trouble(self) -> tuple[str, str]: ...

    @property
    def refused(self) -> bool: ...

    def due(self, now: float, within: float) -> bool: ...

    async def renew(self, rejected: Credential | None = None) -> Credential: ...

    async def keep(self, within: float) -> None: ...

    def distrust(self, now: float) -> bool: ...

    async def move(self, new: str) -> None: ...

    async def put_back(self) -> bool: ...

    async def reload(self) -> bool: ...

    async def close(self) -> None: ...


def fingerprint(credential: Credential) -> str:
    """Tells credentials apart without keeping them."""
    secrets = f"{credential.secret}\0{credential.refresh_token or ''}"
    return hashlib.sha256(secrets.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Account:
    """The name is unique in its pool; `provider` is the instance's name. Made by the pool alone."""

    __slots__ = (
        "_refusals",
        "_refused_since",
        "_stale_at",
        "assigned",
        "credential",
        "disabled",
        "fingerprint",
        "hold",
        "in_flight",
        "last_used",
        "margin",
        "name",
        "on_change",
        "on_load",
        "on_publish",
        "parked",
        "provider",
        "quota",
        "renewer",
        "served",
        "settings",
    )

    def __init__(self, name: str, provider: str, *, margin: float = 300.0) -> None:
        self.name = name
        self.provider = provider
        self.margin = margin
        self.settings = AccountSettings()
        """The settings in force."""
        self.assigned = AccountSettings()
        """What was set while aimux ran; in force if the configuration does not mention the account."""
        self.credential: Credential | None = None
        self.fingerprint: str | None = None
        self.served = False
        """An upstream has answered a request with this credential: refusing a single request no longer parks the
        account."""
        self.last_used: float | None = None
        self.disabled = False
        self.parked: Parked | None = None
        self.hold: Cooldown | None = None
        """A cooldown of this account alone: its credential has run out and can't be renewed for now."""
        self.quota = Quota()
        self.renewer: Renewal | None = None
        """None: the credential is fixed in the configuration."""
        self.on_change: Callable[[], None] = _nothing
        """Called when the account's place in the choice may have changed."""
        self.in_flight = 0
        """Requests under way: `load` changes it."""
        self.on_load: Callable[[int], None] = _nothing
        """Called with the difference when `in_flight` changes."""
        self.on_publish: Callable[[Account, Credential | None], None] = _nothing
        """Called after a credential replaced another (None: there was none)."""
        self._stale_at = -math.inf
        self._refusals = 0
        self._refused_since = 0.0

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """`oauth` or `api_key`; "" while no credential could be read."""
        return self.credential.kind if self.credential else ""

    @property
    def plan(self) -> str | None:
        return self.credential.plan if self.credential else None

    @property
    def organization(self) -> str | None:
        return self.credential.organization if self.credential else None

    @property
    def renewable(self) -> bool:
        """Whether its credential is renewed before it ends: it can be, and its refresh token was not refused."""
        dead = self.parked is not None and self.parked.dead
        refused = self.renewer is not None and self.renewer.refused
        return self.credential is not None and self.credential.renewable and not dead and not refused

    @property
    def limits(self) -> dict[str, LimitWindow]:
        """The windows as last told, by name; shared with the other accounts of its organization."""
        return self.quota.windows

    def load(self, difference: int) -> None:
        """This many more requests are under way: 1, and -1 when one is over, however it ended."""
        self.in_flight += difference
        self.on_load(difference)

    def state(self, now: float) -> AccountState:
        """For people, metrics and health; the choice asks `free_at`."""
        if self.disabled:
            return AccountState("disabled", "switched off", f"aimux accounts enable {self.provider}/{self.name}")
        if self.parked is not None:
            return AccountState("parked", self.parked.reason, self.parked.remedy)
        cooldown = max((c for c in (self.hold, self.quota.cooling(now)) if c), key=lambda c: c.until, default=None)
        if cooldown is not None and cooldown.until > now:
            remedy = ""
            if cooldown == self.hold:
                trouble = self.renewer.trouble[1] if self.renewer is not None else ""
                remedy = self.another() if self._refusals >= REFUSALS else trouble
            return AccountState("cooling", cooldown.reason, remedy, cooldown.until)
        if (ended := self._ended_for_good(now)) is not None:
            return ended
        told = [f"{model}: {c.reason}" for model, c in self.quota.cooldowns.items() if c.until > now]
        trouble, remedy = self.renewer.trouble if self.renewer is not None else ("", "")
        if trouble:
            told.append(trouble)
        ends = self.credential.login_ends_at if self.credential is not None else None
        if not trouble and ends is not None and ends - now <= LOGIN_ENDS_SOON:
            verb = "ends" if ends > now else "ended"
            told.append(f"its login {verb} on {time.strftime('%Y-%m-%d', time.gmtime(ends))}")
            remedy = f"log in again: aimux login {self.provider} --account {self.name}"
        return AccountState("healthy", "; ".join(told), remedy) if told else HEALTHY

    def _ended_for_good(self, now: float) -> AccountState | None:
        """A credential that has expired and can't be renewed: the first request would park the account."""
        credential = self.credential
        if credential is None or credential.renewable or not credential.expires_within(0, now):
            return None
        remedy = f"log in again: aimux login {self.provider} --account {self.name}"
        day = time.strftime("%Y-%m-%d", time.gmtime(credential.expires_at))
        return AccountState("parked", f"its credential expired on {day} and can't be renewed", remedy)

    def addressed(self, remedy: str) -> str:
        """A provider's remedy, with this account added to its login command: providers know no account names."""
        command = rf"aimux login {re.escape(self.provider)}(?![\w-]| --account)"
        return re.sub(command, rf"\g<0> --account {self.name}", remedy)

    def ready_at(self) -> float:
        """When the account itself, limits aside, can serve: infinity while a person has to act first."""
        if self.disabled or self.parked is not None:
            return math.inf
        return self.hold.until if self.hold is not None else 0.0

    def free_at(self, model: str) -> float:
        """When it can serve this model, unix seconds; in the past if it can now."""
        ready = self.ready_at()
        return max(ready, self.quota.free_at(model)) if self.quota.cooldowns else ready

    def told_of_limit(self, model: str, now: float) -> float:
        """When the upstream last said that this model is limited, unix seconds; infinity: no limit is what it waits
        for."""
        return self.quota.told_at(model, now) if self.ready_at() <= now else math.inf

    # --- its credential ----------------------------------------------------------------------------------------------

    def usable(self, now: float) -> Credential | None:
        """The credential as it is, or None: call `renew` first."""
        return self.credential if now < self._stale_at else None

    async def renew(self, rejected: Credential | None = None) -> Credential:
        """A credential that should work now; `rejected` is one that upstream just refused.

        One renewal at a time for all tasks and processes. Raises RefreshRejected (the account is parked then), or
        RefreshUnavailable (it cools down until the next try, unless the old credential still lasts and is returned).
        """
        if self.renewer is not None:
            return await self.renewer.renew(rejected)
        if rejected is None and self.credential is not None:
            return self.credential
        reason, remedy = "the API key from the configuration was not accepted", f"set providers.{self.provider}.api_key"
        self.park(reason, remedy)
        raise RefreshRejected(reason, remedy=remedy)

    def publish(self, credential: Credential, now: float, *, renewed: bool = False) -> None:
        """Use this credential from now on. `renewed`: it comes from our own renewal, not from a login."""
        mark = fingerprint(credential)
        if mark == self.fingerprint:
            self.credential = credential
            if self.parked is not None and self.parked.fingerprint is None:
                self._unpark()
            return
        before = self.credential
        self.credential, self.fingerprint, self.hold, self.served = credential, mark, None, False
        self._refusals = 0
        self._stale_at = self._stale_from(credential, now, young=before is not None)
        parked = self.parked
        if parked is not None and parked.fingerprint != mark:
            if renewed and parked.fingerprint is not None and not parked.dead:
                # A renewal does not cure what the upstream has against the account; a new login may.
                self.parked = Parked(parked.reason, parked.remedy, mark)
            else:
                self._unpark()
        self.on_publish(self, before)
        self.on_change()

    def defer(self, until: float) -> None:
        """Don't ask for a renewal before then: the last one failed, and the credential still lasts."""
        self._stale_at = max(self._stale_at, until)

    def _stale_from(self, credential: Credential, now: float, *, young: bool) -> float:
        if credential.expires_at is None:
            return math.inf
        if not credential.renewable:
            return credential.expires_at
        margin = self.margin
        if young:
            # A token that lives for less than the margin would otherwise be renewed at every request.
            margin = min(margin, max(0.0, credential.expires_at - now) / 2)
        return credential.expires_at - margin

    def has_served(self, credential: Credential) -> None:
        """The upstream has answered a request that went up with this one."""
        # Not the same object: its file may have been read again meanwhile.
        if self.credential is not None and credential.secret == self.credential.secret:
            self.served = True
            if self._refusals:
                self._refusals = 0
                if self.hold is not None:
                    self.hold = None
                    self.on_change()

    def refused(self, reason: str, now: float) -> None:
        """A request was refused with its credential, which has served and can't be renewed, and so was the provider's
        cheapest one. That is no proof: a key may lack the scope for either. Where it goes on so, with nothing served in
        between, the other accounts come first for a while; in the end it is parked."""
        self._refusals += 1
        if self._refusals == 1:
            self._refused_since = now
        if self._refusals >= GIVEN_UP and now - self._refused_since >= GIVEN_UP_AFTER:
            since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self._refused_since))
            again = f"if it is good, aimux accounts enable {self.provider}/{self.name}"
            self.park(f"{reason}, since {since}", f"{self.another()}; {again}")
        elif self._refusals >= REFUSALS:
            self.keep_off(now + REFUSED_PAUSE, now, reason)

    def another(self) -> str:
        """What to do where its credential was taken back at its vendor."""
        if self.renewer is None:
            return f"if it was revoked, set providers.{self.provider}.api_key to another"
        how = " --api-key" if self.kind == "api_key" else ""
        return f"if it was revoked, put in another: aimux login {self.provider} --account {self.name}{how}"

    # --- how it fares ------------------------------------------------------------------------------------------------

    def observe(self, limits: Sequence[LimitWindow], now: float) -> None:
        """Windows from an answer's headers. Call it before `apply` of the same answer's verdict."""
        self.quota.observe(limits, now)

    def apply(self, verdict: Verdict, now: float) -> None:
        """Carry out what a verdict says about the account; one that speaks only of the request changes nothing."""
        if verdict.action is Action.COOL_DOWN:
            self.quota.cool(now, until=verdict.until, reason=verdict.reason, model=verdict.model or "")
        elif verdict.action is Action.PARK:
            self.park(verdict.reason, verdict.remedy)

    def keep_off(self, until: float, now: float, reason: str) -> None:
        """Cool down this account alone."""
        self.hold = Cooldown(until, now, reason)
        self.on_change()

    def distrust(self, now: float) -> bool:
        """Forget what was noted at a time in the future: the clock was wrong then. True if there was anything."""
        wrong = self.quota.distrust(now)
        if self.hold is not None and self.hold.since > now:
            self.hold, wrong = None, True
            self.on_change()
        if self.renewer is not None and self.renewer.distrust(now):
            wrong = True
        return wrong

    def park(self, reason: str, remedy: str = "", *, dead: bool = False, unreadable: bool = False) -> None:
        """Take it out of the choice until its credential changes, or `enable`."""
        mark = None if unreadable else self.fingerprint
        before = self.parked
        if before is not None and before.fingerprint == mark:
            dead = dead or before.dead
        self.parked = Parked(reason, self.addressed(remedy), mark, dead)
        if self.parked != before:
            remedy = self.parked.remedy
            log.warning("%s account %s is parked: %s%s", self.provider, self.name, reason, remedy and f" ({remedy})")
            self.on_change()

    def _unpark(self) -> None:
        log.info("%s account %s is back: its credential changed", self.provider, self.name)
        self.parked = None
        self.on_change()

    def enable(self, now: float | None = None) -> None:
        """Take it back into the choice, whatever took it out: a person, a verdict, or a limit that is said to last
        longer."""
        self.disabled = False
        if self.credential is not None:
            self.parked = None
        self.hold, self._refusals = None, 0
        self.quota.end_cooldowns(time.time() if now is None else now)
        self.on_change()

    def disable(self) -> None:
        """Take it out of the choice. Its credential is still renewed."""
        self.disabled = True
        self.on_change()


def _nothing(*_: object) -> None:
    """Until a pool listens."""
