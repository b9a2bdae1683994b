from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Aimux = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def aimux(tmp_path: Path) -> Aimux:
    """Run the real command in a folder and a home of its own: `aimux("check-config", AIMUX_LISTEN=":1")`."""

    def aimux(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIMUX_", "XDG_"))}
        return subprocess.run(
            [sys.executable, "-m", "aimux.cli.main", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=clean | {"HOME": str(tmp_path), "COLUMNS": "100"} | environ,
            timeout=60,
            check=False,
        )

    return aimux
