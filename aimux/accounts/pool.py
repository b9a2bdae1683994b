"""All accounts of one provider instance: found in the vault, chosen from, kept apart from the others."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aimux.accounts.account import Account
from aimux.accounts.conversations import Conversations, Stay
from aimux.accounts.credentials import parse_credential
from aimux.accounts.echoed import Echoed
from aimux.accounts.index import Index
from aimux.accounts.lacking import Lacking
from aimux.accounts.organizations import Organizations
from aimux.accounts.renewal import Renewer
from aimux.accounts.resources import Resources
from aimux.accounts.selection import NO_GROUPS, admits
from aimux.accounts.state import adopt, restore, snapshot
from aimux.accounts.vault import Missing, VaultError
from aimux.plugin.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aimux.accounts.selection import Selection
    from aimux.accounts.state import LiveState
    from aimux.accounts.vault import Vault
    from aimux.plugin.http import Http
    from aimux.plugin.provider import Provider
    from aimux.plugin.settings import AccountSettings
    from aimux.plugin.types import Credential

log = logging.getLogger(__name__)

CACHE_SECONDS = 300.0
"""How long vendors keep a prompt's beginning cached after its last use."""
AGAIN_SECONDS = 300.0
"""How long a limit is believed to last, whatever was told, where no account is left to ask."""
FIXED = "api-key"
"""The account that `api_key` in the configuration makes."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Seconds, and what the pool works with."""

    refresh_before_expiry: float = 300.0
    state: LiveState | None = None
    """Where cooldowns, limits, parked and disabled accounts outlive a restart."""
    clock: Callable[[], float] = time.time
    on_renewal: Callable[[Account, str], None] | None = None
    """Called with `renewed`, `adopted`, `rejected` or `unavailable` (for the metrics)."""


class AccountPool:
    """`select` and its kin are synchronous and cheap; only `load`, `reconfigure` and `close` do I/O."""

    def __init__(self, provider: Provider, vault: Vault, http: Http, *, options: PoolOptions | None = None) -> None:
        self.accounts: dict[str, Account] = {}
        self.options = options or PoolOptions()
        self._resources = Resources(
            provider,
            vault,
            http,
            margin=self.options.refresh_before_expiry,
            clock=self.options.clock,
            on_outcome=self.options.on_renewal,
        )
        self._tags: dict[str, str] = {}
        self._loading = asyncio.Lock()
        self._conversations = Conversations()
        self._organizations = Organizations()
        self.lacking = Lacking()
        self.faltering: set[Account] = set()
        """Accounts whose last answer was of no use, though nothing is known to be wrong with them. None is asked less
        for that, but where one has failed, those that have served since come before these."""
        self.echoed = Echoed()
        self._index = Index()
        self._reserved = NO_GROUPS
        self._rearrange = False
        self._loaded = False

    @property
    def provider(self) -> Provider:
        return self._resources.provider

    # --- the choice --------------------------------------------------------------------------------------------------

    def select(self, selection: Selection, now: float) -> Account | None:
        """The account for this request, or None if none can serve it now.

        A conversation stays where it was: see `_for_conversation`. With 1,000 accounts a call takes
        3.0 µs (10 accounts: 2.7), with the bookkeeping that a request's begin and end leave to the next call 3.6, after
        two excluded attempts 7 (timeit, CPython 3.11, one shared core).
        """
        if self._rearrange:
            self._arrange()
        if len(self.accounts) == 1:
            (only,) = self.accounts.values()
            if selection.pinned not in {None, only.name} or not self._serves(only, selection, now):
                return None
            only.last_used = now
            return only
        self._index.settle(now)
        conversation = selection.conversation
        if selection.pinned is not None:
            account = self.accounts.get(selection.pinned)
            if account is not None and self._serves(account, selection, now):
                account.last_used = now
                return account
            return None
        if conversation is not None:
            account = self._for_conversation(conversation, selection, now)
        else:
            account = self._index.choose(selection, now)
        if account is not None:
            account.last_used = now
        return account

    def served(self, selection: Selection, account: Account, credential: Credential) -> None:
        """An upstream has answered a request with this account."""
        account.has_served(credential)
        if selection.conversation is not None:
            self._conversations.served(selection.conversation, account.name)

    def leave(self, account: Account, model: str, selection: Selection, now: float, *, wary: bool = False) -> bool:
        """Have a socket's conversation go on with an account that can serve this model, which its handshake does not
        name; with `wary`, with none that falters. False: there is none, or nobody knows which conversation it is."""
        if selection.conversation is None:
            return False
        exclude = self.lacking.names(model, now) | {account.name}
        if wary:
            exclude |= {other.name for other in self.faltering}
        other = self.select(replace(selection, model=model, conversation=None, exclude=exclude), now)
        if other is None:
            return False
        self._conversations.put(selection.conversation, Stay(other.name, now))
        return True

    def home(self, selection: Selection, now: float) -> str | None:
        """The account that the conversation is at home on, whether it can serve or not."""
        stay = None if selection.conversation is None else self._conversations.get(selection.conversation, now)
        return None if stay is None else stay.home

    def last_resort(self, selection: Selection, now: float) -> Account | None:
        """If none can serve: the account to get the real upstream's answer from. That is the one that is free soonest;
        but each that was not asked for AGAIN_SECONDS comes first, as vendors begin limits anew before their time."""
        model = selection.model
        able = [
            (told if told <= now - AGAIN_SECONDS else math.inf, free_at, account.name)
            for account in self.candidates(selection)
            if account.name not in selection.exclude and (free_at := account.free_at(model)) < math.inf
            for told in (account.told_of_limit(model, now),)
        ]
        return self.accounts[min(able)[2]] if able else None

    def retry_after(self, selection: Selection, now: float) -> float | None:
        """Seconds until an account is free (0: one is free now); None if waiting doesn't help. `exclude` is ignored."""
        free_at = min((account.free_at(selection.model) for account in self.candidates(selection)), default=math.inf)
        return None if free_at == math.inf else max(0.0, free_at - now)

    def ready(self, now: float) -> bool:
        """Whether any account can serve."""
        return any(account.free_at("") <= now for account in self.accounts.values())

    def candidates(self, selection: Selection) -> Iterator[Account]:
        """The accounts that may serve such a request, whatever their state is now."""
        for account in self.accounts.values():
            if selection.pinned in {None, account.name} and self.admits(selection, account):
                yield account

    def admits(self, selection: Selection, account: Account) -> bool:
        """Whether its groups let it serve such a request."""
        return admits(selection.groups, account.settings, self._reserved)

    def _serves(self, account: Account, selection: Selection, now: float) -> bool:
        return (
            account.name not in selection.exclude
            and account.free_at(selection.model) <= now
            and admits(selection.groups, account.settings, self._reserved)
        )

    def _for_conversation(self, conversation: str, selection: Selection, now: float) -> Account | None:
        """The account that the conversation is on. While that can't serve for a moment, another one is lent to it; it
        moves only if its home is out of service, or away for longer than the prompt cache there lives."""
        stay = self._conversations.get(conversation, now)
        home = self.accounts.get(stay.home) if stay is not None else None
        if stay is None or home is None or self._is_left(home, selection, now):
            account = self._index.choose(selection, now)
            if account is not None:
                self._conversations.put(conversation, Stay(account.name, now))
            return account
        if self._serves(home, selection, now):
            self._conversations.put(conversation, Stay(stay.home, now, stay.served))
            return home
        host = self.accounts.get(stay.host)
        if host is None or not self._serves(host, selection, now):
            host = self._index.choose(selection, now)
        self._conversations.put(conversation, Stay(stay.home, now, stay.served, host.name if host is not None else ""))
        return host

    def _is_left(self, home: Account, selection: Selection, now: float) -> bool:
        away = home.free_at(selection.model) > now + CACHE_SECONDS
        return away or not admits(selection.groups, home.settings, self._reserved)

    # --- the accounts ------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Find the accounts, or look again: new, removed and changed ones. Cheap when nothing changed.

        An account whose credential can't be read is included, parked with the reason. Raises VaultError if the folder
        itself can't be read; the accounts then stay as they are.
        """
        async with self._loading:
            self._load_fixed()
            tags = await self._resources.scan()
            if FIXED in tags and self.provider.settings.api_key is not None:
                del tags[FIXED]
            for name in [name for name in self.accounts if name not in tags and self.accounts[name].renewer]:
                self._remove(name)
            for name, tag in sorted(tags.items()):
                if self._tags.get(name) != tag:
                    await self._load(name, tag)
            self._loaded = True
            if self._rearrange:
                self._arrange()

    def distrust(self, now: float) -> None:
        """The clock may have been set back: cooldowns and pauses that it began when it was wrong are over."""
        wrong = [account.name for account in self.accounts.values() if account.distrust(now)]
        if wrong:
            log.warning(
                "%s: the clock was set back: cooldowns from a time yet to come are over (%s)",
                self.provider.instance,
                ", ".join(wrong),
            )

    def reconfigure(self, provider: Provider) -> None:
        """Take new settings; call `load` afterwards. Live state, requests under way and conversations stay."""
        self._resources.provider = provider
        for account in self.accounts.values():
            self._settle(account)
        self._rearrange = True

    def reserve(self, groups: frozenset[str]) -> None:
        """Make the accounts in these groups serve only their members, even when every other account is limited."""
        if groups != self._reserved:
            self._reserved = groups
            self._rearrange = True

    def assign(self, name: str, settings: AccountSettings) -> None:
        """Weight, priority and groups from now on, if the configuration does not mention the account."""
        account = self.accounts[name]
        account.assigned = settings
        self._settle(account)
        self._changed()

    def configured(self, name: str) -> bool:
        """Whether the configuration says what the account's weight, priority and groups are."""
        return name in self.provider.settings.accounts

    async def rename(self, name: str, new: str) -> None:
        """Another name for an account; requests, conversations and a renewal under way go on. Raises VaultError."""
        async with self._loading:
            account = self._own(name)
            assert account.renewer is not None
            await account.renewer.move(new)
            del self.accounts[name]
            self.accounts[new] = account
            self._tags[new] = self._tags.pop(name, "")
            self._conversations.rename(name, new)
            self.echoed.rename(name, new)
            self._settle(account)
            self._rearrange = True
            self._changed()

    async def remove(self, name: str) -> None:
        """Delete an account's credential, after a renewal under way. Requests under way go on. Raises VaultError."""
        async with self._loading:
            self._own(name)
            await self._resources.vault.delete(self.provider.instance, name, self.provider.credential_file)
            self._remove(name)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The state of each account that has to outlive a restart; `{}` if there is none."""
        now = self.options.clock()
        return {name: snapshot(account, now) for name, account in self.accounts.items()}

    def adopt(self, name: str, entry: object) -> None:
        """Take over what another node wrote about an account."""
        if (account := self.accounts.get(name)) is not None:
            adopt(account, entry, self.options.clock())
            self._settle(account)

    def secrets(self) -> Iterator[str]:
        """Every secret of their credentials."""
        for account in self.accounts.values():
            if (credential := account.credential) is not None:
                yield credential.secret
                yield credential.refresh_token or ""

    def _own(self, name: str) -> Account:
        """An account whose credential lies in the vault. Raises VaultError for any other."""
        instance = self.provider.instance
        account = self.accounts.get(name)
        if account is None:
            raise Missing(f"there is no account {instance}/{name}")
        if account.renewer is None:
            raise VaultError(
                f"{instance}/{name} comes from the configuration", remedy=f"change providers.{instance}.api_key there"
            )
        return account

    async def close(self) -> None:
        """Wait for renewals under way. Nothing is cancelled: a rotated token has to reach the disk."""
        await self._resources.close()
        for account in self.accounts.values():
            if account.renewer is not None:
                await account.renewer.close()
        if self.options.state is not None:
            self._changed()
            await self.options.state.flush(now=True)

    async def _load(self, name: str, tag: str) -> None:
        known = self.accounts.get(name)
        account = known or Account(name, self.provider.instance, margin=self.options.refresh_before_expiry)
        renewer = account.renewer or Renewer(account, self._resources)
        if known is None:
            account.renewer, account.on_publish = renewer, self._published
        if await renewer.reload():
            self._tags[name] = tag
        if known is None:
            self._add(account)

    def _load_fixed(self) -> None:
        key = self.provider.settings.api_key
        account = self.accounts.get(FIXED)
        if key is None:
            if account is not None and account.renewer is None:
                self._remove(FIXED)
            return
        if account is None or account.renewer is not None:
            if account is not None:
                self._organizations.leave(account)
            account = Account(FIXED, self.provider.instance)
            self._add(account)
        try:
            credential = parse_credential(self.provider, self.provider.api_key_file(key.get_secret_value()))
        except CredentialError as error:
            where = f"providers.{self.provider.instance}.api_key"
            account.park(f"{where} {error}", f"set {where} to a key of this provider", unreadable=True)
        else:
            account.publish(credential, self.options.clock())

    def _add(self, account: Account) -> None:
        self.accounts[account.name] = account
        if self.options.state is not None:
            saved = self.options.state.entry(account.provider, account.name)
            if saved is not None or not self._loaded:  # nothing can have been saved about an account that came later
                restore(account, saved, self.options.clock())
        self._settle(account)
        self._rearrange = True
        self._changed()

    def _remove(self, name: str) -> None:
        account = self.accounts.pop(name)
        self._organizations.leave(account)
        self.lacking.forget(account)
        self.faltering.discard(account)
        self._tags.pop(name, None)
        self._rearrange = True
        self._changed()
        log.info("%s account %s is gone: its credential was removed", self.provider.instance, name)

    def _published(self, account: Account, before: Credential | None) -> None:
        self.lacking.forget(account)
        if self._organizations.place(account, before, self.options.clock()):
            self._rearrange = True

    def _arrange(self) -> None:
        self._rearrange = False
        self._index.arrange(self.accounts.values(), self.provider.settings.strategy, self._changed, self._reserved)

    def _settle(self, account: Account) -> None:
        """Put the settings in force that hold for it now."""
        settings = self.provider.settings.accounts.get(account.name) or account.assigned
        if settings != account.settings:
            account.settings, self._rearrange = settings, True

    def _changed(self) -> None:
        if self.options.state is not None:
            self.options.state.changed(self.provider.instance, self)
