"""What a start loads of the database: nothing heavy where nothing lies in it that has to be known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aimux.metering.price_book import store
from aimux.people import Actor, Configured, People, User, users
from aimux.storage import Database

ROOT = Path(__file__).parents[2]
START = """
import asyncio, pathlib, sys
from aimux.config import parse_config
from aimux.plugin.loader import load_plugins
from tests.inprocess import serving

async def main(folder):
    plugins = load_plugins()
    config = {"listen": f"unix:{folder}/socket", "state_dir": f"{folder}/state"}
    load = lambda: parse_config(config, environ={}, providers=plugins.providers)
    async with serving(load, plugins, pathlib.Path(folder, "log")):
        await asyncio.sleep(0.5)
        print(*({"sqlalchemy", "alembic", "asyncpg"} & set(sys.modules)))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("holds", [None, "tables", "ledger", "people", "prices"])
async def test_a_start_loads_nothing_heavy(tmp_path: Path, holds: str | None) -> None:
    if holds is not None:
        database = await Database.open(None, tmp_path / "state")
        async with database.write(*([holds] if holds == "ledger" else [])):
            pass
        if holds == "people":
            await users.add(People(database, Configured()), Actor("admin"), User("ann"))
        if holds == "prices":
            await store(database, [(("claude", "claude-x"), None)], "a list")
        await database.close()
    done = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
    assert (tmp_path / "state" / "aimux.db").exists() == (holds is not None)
