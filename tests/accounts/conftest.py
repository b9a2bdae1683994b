from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aimux.accounts import AccountPool, FileVault, PoolOptions
from tests.accounts.support import Clock, TokenServer, provider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> TokenServer:
    return TokenServer(clock)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def vault(state_dir: Path) -> FileVault:
    return FileVault(state_dir, lock_timeout=10)


@pytest.fixture
def make_pool(vault: FileVault, server: TokenServer, clock: Clock) -> Callable[..., AccountPool]:
    def make(**settings: object) -> AccountPool:
        return AccountPool(provider(**settings), vault, server, options=PoolOptions(clock=clock))

    return make


@pytest.fixture
def pool(make_pool: Callable[..., AccountPool]) -> AccountPool:
    return make_pool()
