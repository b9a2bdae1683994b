"""SIGHUP takes the configuration again, but for what takes a restart."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from aimux.app import AFTER_RESTART
from tests.tools import ROOT

from .conftest import Start

DOCUMENTED = re.search(r"changes nothing\.\n(.*) need a restart", (ROOT / "docs/configuration.md").read_text())


@pytest.mark.parametrize("name", [*AFTER_RESTART, "tls.enabled"])
async def test_what_takes_a_restart_is_named_and_stays(start: Start, name: str) -> None:
    aimux = await start()
    file, other = aimux.folder / "config.json", aimux.folder / "other"
    changes: dict[str, Any] = {
        "listen": "127.0.0.1:1",
        "state_dir": str(other),
        "database": {"encryption_key": "0f" * 32},
        "tls": {"enabled": True, "self_signed": True},
    }
    section = name.partition(".")[0]
    file.write_text(json.dumps(json.loads(file.read_text()) | {section: changes.get(section, "1m")}))
    before = aimux.app.config
    assert await aimux.app.reload()
    assert re.findall(r"`([\w.]+)` changed: that needs a restart", aimux.log) == [name]
    assert [getattr(aimux.app.config, each) for each in AFTER_RESTART] == [
        getattr(before, each) for each in AFTER_RESTART
    ]
    assert not other.exists()
    assert DOCUMENTED is not None
    assert f"`{name}`" in DOCUMENTED[1]
