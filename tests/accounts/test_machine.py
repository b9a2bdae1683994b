"""Pool, cooldown and stickiness against a model that is written as plainly as the rules, in virtual time."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aimux.accounts import Account, AccountPool, PoolOptions, Selection
from aimux.accounts.conversations import Stay
from aimux.accounts.pool import AGAIN_SECONDS, CACHE_SECONDS
from aimux.accounts.quota import CEILING
from aimux.accounts.selection import choose
from aimux.plugin import AccountSettings, Action, LimitWindow, Verdict
from tests.accounts.support import Clock, TokenServer, credential_file, provider

NAMES = ["a", "b", "c", "d", "e", "f"]
ORGANIZATION = {"a": "red", "b": "red", "c": "blue", "d": "blue"}
ACCOUNTS = {
    "b": AccountSettings(weight=2, groups=("team",)),
    "c": AccountSettings(priority=1),
    "d": AccountSettings(priority=1),
    "e": AccountSettings(groups=("team", "other"), weight=0.5),
}
MODELS = ["", "big", "small"]

names = st.sampled_from(NAMES)
models = st.sampled_from(MODELS)
seconds = st.sampled_from([0.0, 0.3, 1.0, 7.0, 45.0, 61.0, 600.0, 3500.0, 4000.0, 90_000.0])
groups = st.sampled_from([None, frozenset(), frozenset({"team"}), frozenset({"other", "none"})])
exclusions = st.frozensets(names, max_size=5)


class Memory:
    """As much of a vault as a pool needs to find its accounts."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def scan(self, instance: str, file_name: str) -> dict[str, str]:
        return {name: raw.decode() for name, raw in self.files.items()}

    async def read(self, instance: str, account: str, file_name: str) -> bytes:
        return self.files[account]


@dataclass
class Known:
    """What the model knows of one account."""

    disabled: bool = False
    parked: bool = False
    in_flight: int = 0


@dataclass
class Limits:
    """What the model knows of an organization, or of an account without one."""

    until: dict[str, float] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.known = {name: Known() for name in NAMES}
        self.limits: dict[str, Limits] = {}
        self.homes: dict[str, Stay] = {}
        self.logins = 0

    @initialize(strategy=st.sampled_from(["least_used", "round_robin", "priority"]))
    def begin(self, strategy: Any) -> None:
        self.vault = Memory()
        for name in NAMES:
            self._login(name)
        self.strategy = strategy
        demo = provider(strategy=strategy, accounts=ACCOUNTS)
        vault: Any = self.vault
        self.pool = AccountPool(demo, vault, TokenServer(self.clock), options=PoolOptions(clock=self.clock))
        asyncio.run(self.pool.load())

    def _login(self, name: str) -> None:
        self.logins += 1
        raw = credential_file(f"access-{self.logins}", expires_at=None, organization=ORGANIZATION.get(name))
        self.vault.files[name] = raw

    # --- the model ---------------------------------------------------------------------------------------------------

    def _limits(self, name: str) -> Limits:
        return self.limits.setdefault(ORGANIZATION.get(name, name), Limits())

    def _free_at(self, name: str, model: str) -> float:
        if self.known[name].disabled or self.known[name].parked:
            return math.inf
        until = self._limits(name).until
        return max(until.get("", 0.0), until.get(model, 0.0) if model else 0.0)

    def _may(self, name: str, selection: Selection) -> bool:
        belongs = ACCOUNTS.get(name, AccountSettings()).groups
        return selection.groups is None or not belongs or bool(selection.groups & set(belongs))

    def _able(self, selection: Selection) -> set[str]:
        return {
            name
            for name in NAMES
            if self._free_at(name, selection.model) <= self.clock()
            and self._may(name, selection)
            and name not in selection.exclude
            and selection.pinned in {None, name}
        }

    def _is_left(self, home: str, selection: Selection) -> bool:
        away = self._free_at(home, selection.model) > self.clock() + CACHE_SECONDS
        return away or not self._may(home, selection)

    # --- what happens ------------------------------------------------------------------------------------------------

    @rule(duration=seconds)
    def time_passes(self, duration: float) -> None:
        self.clock.pass_(duration)

    @rule(
        model=models,
        conversation=st.sampled_from([None, "one", "two"]),
        exclude=exclusions,
        groups=groups,
        pinned=st.sampled_from([None, None, None, *NAMES]),
    )
    def a_request_comes(
        self, model: str, conversation: str | None, exclude: frozenset[str], groups: Any, pinned: str | None
    ) -> None:
        selection = Selection(model, conversation, exclude, groups, pinned)
        now, able = self.clock(), self._able(selection)
        stay = self.homes.get(conversation or "") if pinned is None else None
        if stay is not None and (now - stay.used > 3600 or self._is_left(stay.home, selection)):
            stay = None
        self._settle()
        expected = choose(self.pool._index._slots, selection, self.strategy, now)
        account = self.pool.select(selection, now)
        assert (account is None) == (not able)
        if stay is not None and conversation is not None:
            host = "" if account is None or stay.home in able else account.name
            self.homes[conversation] = Stay(stay.home, now, host=host)
        if account is None:
            return
        assert account.name in able
        assert account.last_used == now
        if pinned is None:
            if stay is not None and stay.home in able:
                assert account.name == stay.home, "the conversation stays"
            elif stay is not None and stay.host in able:
                assert account.name == stay.host, "it is lent to one and the same"
            else:
                assert expected is not None
                assert account in expected.accounts, "the index decides as the pure function does"
                best = min(ACCOUNTS.get(name, AccountSettings()).priority for name in able)
                assert account.settings.priority == best
            if conversation is not None and stay is None:
                self.homes[conversation] = Stay(account.name, now)
        account.load(1)
        self.known[account.name].in_flight += 1

    @rule()
    def requests_come(self) -> None:
        """Most of what happens are plain requests, and mistakes show in them."""
        for _ in range(3):
            self.a_request_comes("", None, frozenset(), None, None)

    @rule()
    def the_configuration_is_read_again(self) -> None:
        self.pool.reconfigure(self.pool.provider)
        asyncio.run(self.pool.load())

    def _settle(self) -> None:
        if self.pool._rearrange:
            self.pool._arrange()
        self.pool._index.settle(self.clock())

    @precondition(lambda self: any(known.in_flight for known in self.known.values()))
    @rule(data=st.data())
    def a_request_ends(self, data: st.DataObject) -> None:
        busy = [name for name in NAMES if self.known[name].in_flight]
        name = data.draw(st.sampled_from(busy))
        self.known[name].in_flight -= 1
        self.pool.accounts[name].load(-1)

    @rule(name=names, model=models, wait=st.sampled_from([None, -5.0, 0.02, 1.0, 30.0, 600.0, 86_400.0, 1e9]))
    def upstream_limits(self, name: str, model: str, wait: float | None) -> None:
        now = self.clock()
        account = self.pool.accounts[name]
        until = self._limits(name).until
        windows = () if model else account.limits.values()
        resets = [w.resets_at for w in windows if w.resets_at is not None and w.resets_at > now]
        account.apply(Verdict(Action.COOL_DOWN, "limited", None if wait is None else now + wait, model or None), now)
        if wait is None and until.get(model, 0.0) > now:
            return
        wanted = now + (30.0 if wait is None else wait)
        until[model] = max(now + 1, min(wanted, max(resets, default=math.inf), now + CEILING))

    @rule(name=names, used=st.sampled_from([None, 0.0, 0.5, 0.52, 1.0]), lasts=st.sampled_from([None, 50.0, 5000.0]))
    def an_answer_has_room(self, name: str, used: float | None, lasts: float | None) -> None:
        """Windows without a rejected one: the model forgets a cooldown of the account where they prove it wrong."""
        now = self.clock()
        account = self.pool.accounts[name]
        before = account.limits.get("5h")
        was_full = before is not None and before.status == "rejected" and (before.resets_at or math.inf) > now
        cooldown = account.quota.cooldowns.get("")
        account.observe([LimitWindow("5h", used, None if lasts is None else now + lasts)], now)
        if cooldown is not None and now - cooldown.since >= (1 if was_full else 60):
            self._limits(name).until.pop("", None)

    @rule(name=names, lasts=st.sampled_from([5.0, 5000.0]))
    def an_answer_is_at_the_limit(self, name: str, lasts: float) -> None:
        now = self.clock()
        self.pool.accounts[name].observe([LimitWindow("5h", 1.0, now + lasts, status="rejected")], now)

    @rule(name=names, action=st.sampled_from([Action.RELAY, Action.BACK_OFF, Action.REFRESH]))
    def upstream_says_something_about_the_request(self, name: str, action: Action) -> None:
        self.pool.accounts[name].apply(Verdict(action, "whatever"), self.clock())

    @rule(name=names)
    def upstream_refuses_for_good(self, name: str) -> None:
        self.pool.accounts[name].apply(Verdict(Action.PARK, "revoked"), self.clock())
        self.known[name].parked = True

    @rule(name=names)
    def a_person_disables(self, name: str) -> None:
        self.pool.accounts[name].disable()
        self.known[name].disabled = True

    @rule(name=names)
    def a_person_enables(self, name: str) -> None:
        self.pool.accounts[name].enable(self.clock())
        self._limits(name).until.clear()
        self.known[name].disabled = self.known[name].parked = False

    @rule(name=names)
    def a_person_logs_in(self, name: str) -> None:
        self._login(name)
        asyncio.run(self.pool.load())
        self.known[name].parked = False

    # --- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def states_are_told_as_they_are(self) -> None:
        now = self.clock()
        for name, account in self._accounts().items():
            known, limited = self.known[name], self._limits(name).until.get("", 0.0)
            status = (
                "disabled"
                if known.disabled
                else "parked"
                if known.parked
                else "cooling"
                if limited > now
                else "healthy"
            )
            state = account.state(now)
            assert state.status == status
            assert state.until == (limited if status == "cooling" else None)
            assert account.in_flight == known.in_flight

    @invariant()
    def the_last_resort_and_retry_after_follow_from_them(self) -> None:
        if not self._accounts():
            return
        now = self.clock()
        for model in MODELS:
            free = {name: self._free_at(name, model) for name in NAMES}
            soonest = min(free.values())
            last = self.pool.last_resort(Selection(model), now)
            wait = self.pool.retry_after(Selection(model), now)
            if soonest == math.inf:
                assert last is None
                assert wait is None
            else:
                assert last is not None
                if last.told_of_limit(model, now) > now - AGAIN_SECONDS:
                    assert max(now, free[last.name]) == max(now, soonest)
                assert wait == max(0.0, soonest - now)
        assert self.pool.ready(now) == any(self._free_at(name, "") <= now for name in NAMES)

    @invariant()
    def the_index_stays_bounded(self) -> None:
        if not self._accounts():
            return
        index = self.pool._index
        assert len(index._wakes) <= 4 * len(index._slots) + 64
        for ranking in index._rankings.values():
            assert len(ranking._heap) <= 4 * len(NAMES) + 65
        for slot in index._slots:
            assert slot.in_flight == sum(account.in_flight for account in slot.accounts)

    def _accounts(self) -> dict[str, Account]:
        return self.pool.accounts if hasattr(self, "pool") else {}


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=50)
