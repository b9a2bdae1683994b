"""The accounts of every provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.accounts import AccountPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aimux.accounts import Account
    from aimux.accounts.quota import Quota
    from aimux.plugin import Provider


class Pools(dict[str, AccountPool]):
    """By the name of their provider."""

    async def adopt(self, providers: Mapping[str, Provider], made: Callable[[Provider], AccountPool]) -> None:
        """Have a pool for each of these. Accounts of a pool that existed before keep their live state."""
        for name in [name for name in self if name not in providers]:
            await self.pop(name).close()
        for name, provider in providers.items():
            if name in self:
                self[name].reconfigure(provider)
            else:
                self[name] = made(provider)

    async def close(self) -> None:
        for pool in self.values():
            await pool.close()
        self.clear()

    def reserve(self, groups: frozenset[str]) -> None:
        """Make the accounts in these groups serve only their members."""
        for pool in self.values():
            pool.reserve(groups)

    @property
    def providers(self) -> dict[str, Provider]:
        return {name: pool.provider for name, pool in self.items()}

    def accounts(self) -> Iterator[Account]:
        for pool in self.values():
            yield from pool.accounts.values()

    def quota(self, provider: str, name: str) -> Quota | None:
        """What is left of an account; None if there is no such account any more."""
        pool = self.get(provider)
        account = pool.accounts.get(name) if pool is not None else None
        return account.quota if account is not None else None

    def secrets(self) -> Iterator[str]:
        """Every secret of their credentials."""
        for pool in self.values():
            yield from pool.secrets()
