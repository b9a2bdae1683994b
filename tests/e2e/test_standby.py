"""A primary and its standby, both real: the primary crashes under load, the standby takes its place."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.e2e.load import KINDS, Load, under_load
from tests.e2e.process import Aimux, config_of, serving
from tests.postgresql import Server, running

MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def primary() -> Iterator[Server]:
    with running(synchronous_commit="on") as server:
        yield server


@pytest.fixture
def standby(primary: Server) -> Iterator[Server]:
    """What the primary has committed from now on, it has."""
    with running(of=primary) as server:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        yield server


async def test_a_standby_takes_the_place_of_a_primary_that_crashes(
    sim: Simulator, folder: Path, primary: Server, standby: Server
) -> None:
    """Every request is served, sums are equal to the harness's own count, and what was changed before still holds."""
    name = await asyncio.to_thread(primary.create)
    url = f"postgresql://aimux@/{name}?host={primary.folder},{standby.folder}&target_session_attrs=read-write"
    config = config_of(sim, folder, database={"url": url, "encryption_key": "11" * 32})
    config["limits"] = {"default": {"tokens_per_month": 10**9}}
    config["providers"]["claude"]["api_key"] = sim.accounts["claude-key"].api_key
    load = Load()
    async with serving(folder, config) as aimux, aiohttp.ClientSession() as session:
        before = await api(session, aimux, folder, "POST", "/tokens", user="ann", label="before")
        async with under_load(aimux, load):
            await load.answers(20)
            primary.stop(signal.SIGQUIT)
            await writable(session, aimux, False)
            await load.answers(20)
            await asyncio.to_thread(standby.execute, "SELECT pg_promote()")
            await writable(session, aimux, True)
            await load.answers(20)
        after = await api(session, aimux, folder, "POST", "/tokens", user="ann", label="after")
        for token in (before, after):
            headers = {"authorization": f"Bearer {token['token']}", "anthropic-version": "2023-06-01"}
            async with session.post(f"{aimux.claude}/v1/messages", json=MESSAGE, headers=headers) as answer:
                usage = (await answer.json())["usage"]
                load.answered[token["id"]] = (0.0, {kind: usage[kind] for kind in KINDS})
        own = load.used()
        async with asyncio.timeout(30):
            while True:
                total = (await api(session, aimux, folder, "GET", "/usage?since=1d"))["total"]
                if total["requests"] >= own["requests"]:
                    break
                await asyncio.sleep(0.05)
        assert total["requests"] == own["requests"]
        assert (total["input_tokens"], total["output_tokens"]) == (own["input_tokens"], own["output_tokens"])
        limits = await api(session, aimux, folder, "GET", "/limits/user/ann/usage")
        assert [one["used"] for one in limits["items"]] == [sum(own[kind] for kind in KINDS)]


async def writable(session: aiohttp.ClientSession, aimux: Aimux, wanted: bool) -> None:
    """Until the ledger's database takes writes, or does no longer."""
    async with asyncio.timeout(30):
        while True:
            async with session.get(f"{aimux.address}/ready") as answer:
                if ("reason" not in (await answer.json()).get("ledger", {})) == wanted:
                    return
            await asyncio.sleep(0.05)


async def api(session: aiohttp.ClientSession, aimux: Aimux, folder: Path, method: str, path: str, **body: Any) -> Any:
    headers = {"authorization": f"Bearer {(folder / 'state' / 'admin.key').read_text().strip()}"}
    async with session.request(method, f"{aimux.address}/api/v1{path}", json=body or None, headers=headers) as answer:
        assert answer.status < 300, await answer.text()
        return await answer.json()
