"""`aimux accounts` and `aimux why`: with a running server, and without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aimux.simulator.demo import credential_file
from tests.cli.support import Commands
from tests.control.conftest import put
from tests.control.live import Live, running


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with running(tmp_path) as served:
        yield served


def commands(live: Live, **environ: str) -> Commands:
    return Commands(live, {"HOME": str(live.folder), "AIMUX_CONFIG": str(live.config), **environ})


@pytest.fixture
def served(live: Live) -> Commands:
    """Commands with a server to talk to."""
    return commands(live)


@pytest.fixture
def unserved(tmp_path: Path) -> Iterator[Commands]:
    """Commands with files only; the same accounts."""
    with running(tmp_path, serve=False) as live:
        for provider in ("claude", "chatgpt"):
            put(live.state_dir, provider, credential_file(live.sim.accounts[provider]))
        yield commands(live)


@pytest.fixture(params=["served", "unserved"])
def aimux(request: pytest.FixtureRequest) -> Commands:
    found: Commands = request.getfixturevalue(request.param)
    return found
