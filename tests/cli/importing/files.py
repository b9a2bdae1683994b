"""Files that `aimux import` is given or finds."""

from __future__ import annotations

import json
import time
from pathlib import Path

from aimux.simulator.demo import credential_file
from tests.cli.support import Commands

LATER = int(time.time()) + 8 * 3600
SECRET = "sk-ant-oat01-a-login-for-these-tests"


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(raw)
    return path


def vendors_logins(aimux: Commands, home: Path | None = None) -> tuple[Path, Path]:
    """Claude Code's and Codex's logins in a home."""
    home, sim = home or Path(aimux.home), aimux.live.sim
    return (
        write(home / ".claude" / ".credentials.json", credential_file(sim.accounts["claude"])),
        write(home / ".codex" / "auth.json", credential_file(sim.accounts["chatgpt"])),
    )
