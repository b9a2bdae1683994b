"""From a start to an end, in this process."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

from aimux.config import load_config
from tests.control.conftest import PLUGINS
from tests.inprocess import serving


async def test_what_runs_beside_it_ends_before_the_database_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"listen": f"unix:{tmp_path}/socket", "state_dir": str(tmp_path / "state")}))
    file.chmod(0o600)
    load = partial(load_config, file, environ={}, providers=PLUGINS.providers)
    begun, ended = asyncio.Event(), []
    async with serving(load, PLUGINS, tmp_path / "log") as app:

        async def work() -> None:
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                async with app.database.write("a topic"):
                    ended.append("written")

        app.run(work())
        await begun.wait()
    assert ended == ["written"]
