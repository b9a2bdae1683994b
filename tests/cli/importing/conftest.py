"""Fixtures of the tests of `aimux import`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Commands
from tests.control.live import Live, running


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("import"), serve=False) as live:
        yield live


@pytest.fixture
def aimux(nobody: Live, tmp_path: Path) -> Commands:
    """Commands that work on files; home and state folder are their own."""
    environ = {"HOME": str(tmp_path), "AIMUX_CONFIG": str(nobody.config), "AIMUX_STATE_DIR": str(tmp_path / "state")}
    return Commands(nobody, environ)
