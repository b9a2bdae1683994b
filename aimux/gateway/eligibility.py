"""Which accounts may serve a request: not those that need paid extra usage, nor what is others' fair share of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.accounts.quota import FULL
from aimux.gateway.unserved import when
from aimux.plugin.errors import LimitReached

if TYPE_CHECKING:
    from datetime import tzinfo

    from aimux.accounts import Account
    from aimux.limits import FairShare, Who


class Eligibility:
    """Of the accounts that could serve one request: `forbids` is asked about each that was chosen."""

    def __init__(self, who: Who, weight: float, fair: FairShare | None, zone: tzinfo, *, no_overage: bool) -> None:
        """`zone` is for the times in messages. `fair` None: accounts are not shared. `no_overage`: accounts whose
        included usage is used up must not be used."""
        self._who = who
        self._weight = weight
        self._fair = fair
        self._zone = zone
        self._no_overage = no_overage
        self._spent_model = ""
        """What had no included usage left, if that was not everything."""
        self._until: dict[str, float] = {}
        """By reason: when the earliest of the windows that stood in the way begins anew."""

    def forbids(self, account: Account, model: str, now: float) -> bool:
        """Whether the account must not be used for a request to `model`. If it may be, this user has a share of it from
        now on."""
        quota = account.quota
        if self._no_overage and (until := quota.spent_until(model, now)):
            if not quota.spent_until("", now):
                self._spent_model = model
            return self._forbid("overage", until, now)
        if self._fair is not None:
            name, weight = self._who.user, self._weight
            for share in self._fair.shares(quota, name, weight, now):
                if share.room <= 0.0 and (share.window.used or 0.0) < FULL:  # a full one is the vendor's to refuse
                    self._fair.asked(quota, name, weight, now)
                    return self._forbid("share", share.window.resets_at, now)
            self._fair.asked(quota, name, weight, now)
        return False

    @property
    def forbade(self) -> bool:
        """Any account."""
        return bool(self._until)

    @property
    def error(self) -> str:
        """The error in the record of a request that no account was left for."""
        return "share_used_up" if "share" in self._until else "overage_forbidden"

    def refusal(self, name: str, now: float) -> LimitReached:
        """What to tell a client of the provider `name` where no account was left."""
        until = min(self._until.values())
        again = when(until, now, self._zone)
        if "share" in self._until:
            message = (
                f"Your fair share of the {name} accounts is used up while others are working. You have what they "
                f"leave, and everything begins anew {again}."
            )
        else:
            which = f" for {self._spent_model}" if self._spent_model else ""
            message = (
                f"What is included in the {name} accounts{which} is used up, and you may not go on with paid extra "
                f"usage; there is room again {again}."
            )
        return LimitReached(message, until=until)

    def _forbid(self, why: str, until: float | None, now: float) -> bool:
        until = now + 60.0 if until is None else until
        self._until[why] = min(until, self._until.get(why, until))
        return True
