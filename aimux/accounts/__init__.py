"""Accounts: where credentials lie, which account serves a request, and how credentials stay fresh."""

from aimux.accounts.account import Account, AccountState
from aimux.accounts.file_vault import FileVault
from aimux.accounts.http import ControlHttp
from aimux.accounts.keeper import Keeper
from aimux.accounts.pool import AccountPool, PoolOptions
from aimux.accounts.selection import Selection
from aimux.accounts.state import LiveState, StateFile
from aimux.accounts.stores import Stores, stores, stores_in
from aimux.accounts.vault import Conflict, Missing, Unsafe, Vault, VaultError

__all__ = [
    "Account",
    "AccountPool",
    "AccountState",
    "Conflict",
    "ControlHttp",
    "FileVault",
    "Keeper",
    "LiveState",
    "Missing",
    "PoolOptions",
    "Selection",
    "StateFile",
    "Stores",
    "Unsafe",
    "Vault",
    "VaultError",
    "stores",
    "stores_in",
]
