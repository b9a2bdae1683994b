"""What a new version does with the state folder of an older one, and an older one with that of a newer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp

from aimux.simulator import Simulator, credential_file
from tests.e2e.process import TOKEN, Process, config_of, serving, write_config

MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}


async def test_the_state_folder_of_an_older_version_works(sim: Simulator, folder: Path) -> None:
    """There were logins in files, and a state of the accounts, before there was a database."""
    state = folder / "state"
    login = state / "claude" / ".credentials.json"
    login.parent.mkdir(parents=True, exist_ok=True)
    for made in (state, login.parent):
        made.chmod(0o700)
    login.write_bytes(credential_file(sim.accounts["claude"]))
    login.chmod(0o600)
    known = {"claude": {"default": {"last_used": 1.0, "of another": 5}, "gone": {"disabled": True}}}
    (state / "accounts.json").write_text(json.dumps({"accounts": known, "more": [1]}))
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
        async with session.post(f"{aimux.claude}/v1/messages", json=MESSAGE, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
    kept = json.loads((state / "accounts.json").read_bytes())
    assert kept["version"] == 1
    assert kept["more"] == [1]
    assert kept["accounts"]["claude"]["default"]["of another"] == 5
    assert kept["accounts"]["claude"]["default"]["last_used"] > 1
    with closing(sqlite3.connect(state / "aimux.db")) as database:
        assert database.execute("SELECT count(*) FROM requests").fetchone() == (1,)


async def test_that_of_a_newer_is_refused_with_the_version_to_use(sim: Simulator, folder: Path) -> None:
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
        async with session.post(f"{aimux.claude}/v1/messages", json=MESSAGE, headers=headers) as answer:
            await answer.read()
    file = folder / "state" / "aimux.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE alembic_version SET version_num = '0999'")
        database.execute("INSERT INTO migrations (version, aimux) VALUES ('0999', '9.8.7')")
        database.commit()
    before = await asyncio.to_thread(file.read_bytes)
    config = write_config(folder, config_of(sim, folder))
    older = await Process.start(folder, "serve", "--config", str(config))
    assert await older.end() == 1
    assert "was written by a newer aimux" in older.output
    assert "install aimux 9.8.7 or a newer one" in older.output
    assert await asyncio.to_thread(file.read_bytes) == before
