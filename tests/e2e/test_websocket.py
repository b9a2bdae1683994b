"""Codex's WebSocket through a real aimux to the simulator, as Codex speaks it."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sqlite3
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aimux.simulator import Simulator
from tests.certificates.certificates import Issued
from tests.e2e.process import TOKEN, Aimux, config_of, put_account, serving
from tests.relay.sockets import raw

PROMPT = {
    "type": "response.create",
    "model": "gpt-5.5",
    "instructions": "You are Codex. " * 3000,
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "say hi"}]}],
    "store": False,
    "stream": True,
    "prompt_cache_key": "0199-thread",
}


def codex(aimux: Aimux, mount: str = "chatgpt/v1/responses", *, simulator: str = "", **options: Any) -> connect:
    headers = {
        "authorization": f"Bearer {TOKEN}",
        "openai-beta": "responses_websockets=2026-02-06",
        "session-id": "0199-thread",
        **({"x-simulator": simulator} if simulator else {}),
    }
    url = f"{aimux.address.replace('http', 'ws', 1)}/{mount}"
    return connect(url, additional_headers=headers, ping_interval=None, max_size=None, proxy=None, **options)


async def turn(client: ClientConnection, **changed: Any) -> list[dict[str, Any]]:
    """The events of one turn."""
    await client.send(json.dumps(PROMPT | changed))
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not events or events[-1]["type"] not in {"response.completed", "response.failed", "error"}:
            events.append(json.loads(await client.recv()))
    return events


@asynccontextmanager
async def running(folder: Path, *others: str, **settings: Any) -> AsyncIterator[tuple[Simulator, Aimux]]:
    """aimux with the account `default`, and `others` that come after it."""
    async with Simulator() as sim:
        config = config_of(sim, folder, **settings)
        config["providers"]["chatgpt"] |= {
            "strategy": "priority",
            "accounts": {name: {"priority": 1} for name in others},
        }
        put_account(folder / "state", sim.accounts["chatgpt"])
        for name in others:
            put_account(folder / "state", sim.add_account(name, "openai", "oauth"), name)
        async with serving(folder, config) as aimux:
            yield sim, aimux


async def logged(aimux: Aimux, method: str, count: int) -> list[dict[str, str]]:
    """The access log's lines of sockets (GET) or of turns (TURN), once there are `count`."""

    def lines() -> list[dict[str, str]]:
        return [line for line in aimux.requests if line["method"] == method]

    await aimux.until(lambda: len(lines()) >= count)
    return lines()


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_a_session_of_codex(tmp_path: Path, compression: str | None) -> None:
    async with running(tmp_path) as (sim, aimux):
        async with codex(aimux, compression=compression, simulator="encode" if compression else "ok") as client:
            assert client.response is not None
            told = client.response.headers
            assert {"x-codex-primary-used-percent", "x-codex-turn-state", "openai-model"} <= {n.lower() for n in told}
            warm = await turn(client, generate=False)
            previous = warm[-1]["response"]["id"]
            used = [warm[-1]["response"]["usage"]]
            for _ in range(3):
                events = await turn(client, previous_response_id=previous)
                assert [event["sequence_number"] for event in events if "sequence_number" in event]
                assert "say hi" in json.dumps(events[-1]["response"]["output"])
                previous = events[-1]["response"]["id"]
                used.append(events[-1]["response"]["usage"])
            huge = await turn(client, input=[{"role": "user", "content": "x" * 917_000}])
            used.append(huge[-1]["response"]["usage"])
            pong = await client.ping()
            await pong
        (line_of_socket,) = await logged(aimux, "GET", 1)
        each = await logged(aimux, "TURN", 5)
        for line, usage in zip(each, used, strict=True):
            cached = usage["input_tokens_details"]["cached_tokens"]
            assert line["tokens"] == f"{usage['input_tokens'] - cached}+{cached}+0/{usage['output_tokens']}"
            assert (line["status"], line["error"], line["model"]) == ("200", "-", "gpt-5.5")
        assert (line_of_socket["status"], line_of_socket["error"]) == ("101", "-")
        metrics = (await asyncio.to_thread(urllib.request.urlopen, f"{aimux.address}/metrics")).read().decode()
        assert re.search(r'limit_used_ratio{account="default",provider="chatgpt",window="5h"} 0\.', metrics), metrics
        assert TOKEN not in aimux.output
        assert sim.accounts["chatgpt"].access_token not in aimux.output


async def test_claude_has_no_websocket_and_says_so_in_its_own_words(tmp_path: Path) -> None:
    async with running(tmp_path) as (sim, aimux):
        for mount in ("claude/v1/messages", "chatgpt/v1/chat/completions", "chatgpt/v1/models"):
            with pytest.raises(InvalidStatus) as refused:
                async with codex(aimux, mount):
                    pass
            assert refused.value.response.status_code == 426
            error = json.loads(refused.value.response.body or b"")
            assert error["type"] == "error" if mount.startswith("claude") else "message" in error["error"]
        assert not sim.requests


async def test_a_token_that_expired_is_renewed_during_the_handshake(tmp_path: Path) -> None:
    async with running(tmp_path) as (sim, aimux):
        sim.accounts["chatgpt"].expire()
        async with codex(aimux) as client:
            assert (await turn(client))[-1]["type"] == "response.completed"
        (line,) = await logged(aimux, "GET", 1)
        assert line["attempts"] == "2"


async def test_a_limit_is_met_with_another_account_before_and_within_a_socket(tmp_path: Path) -> None:
    async with running(tmp_path, "second", "third") as (sim, aimux):
        sim.accounts["chatgpt"].script("429:3600")
        async with codex(aimux) as client:
            assert (await turn(client))[-1]["type"] == "response.completed"
            sim.accounts["second"].exhaust("primary", time.time() + 3600)
            with pytest.raises(ConnectionClosed):
                await turn(client)
            assert client.close_code == 1012
        async with codex(aimux) as client:
            assert (await turn(client))[-1]["type"] == "response.completed"
            sim.accounts["third"].exhaust("primary", time.time() + 3600)
            last = (await turn(client))[-1]
            assert (last["status"], last["error"]["type"]) == (429, "usage_limit_reached")
        with pytest.raises(InvalidStatus) as refused:
            async with codex(aimux, simulator="429:3600"):
                pass
        assert refused.value.response.status_code == 429
        assert "retry-after" in refused.value.response.headers
        assert [line["account"] for line in (await logged(aimux, "GET", 3))[:2]] == ["second", "third"]


@pytest.mark.parametrize("scenario", ["reset:3", "cut:3", "stale"])
async def test_an_upstream_that_breaks_off_breaks_the_clients_socket(tmp_path: Path, scenario: str) -> None:
    async with running(tmp_path) as (_, aimux):
        async with codex(aimux, simulator=scenario) as client:
            with pytest.raises(ConnectionClosed):
                await turn(client)
                await client.recv()
            assert client.close_code == 1006
        (line,) = await logged(aimux, "GET", 1)
        assert line["error"] == "upstream_lost"


async def test_a_close_frame_in_the_middle_of_a_turn_crosses(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, aimux), codex(aimux, simulator="end:3") as client:
        with pytest.raises(ConnectionClosed):
            await turn(client)
        assert client.close_code == 1000


@pytest.mark.parametrize("scenario", ["tiny:400", "split", "interim:3", "tiny:400,encode"])
async def test_however_the_upstream_sends_its_events(tmp_path: Path, scenario: str) -> None:
    async with running(tmp_path) as (_, aimux), codex(aimux, simulator=scenario) as client:
        assert (await turn(client))[-1]["type"] == "response.completed"


async def test_a_restart_waits_for_the_turn_and_not_for_the_socket(tmp_path: Path) -> None:
    async with running(tmp_path) as (sim, aimux), codex(aimux) as idle, codex(aimux, simulator="hold:4") as busy:
        await turn(idle)
        asked = asyncio.create_task(turn(busy))
        await sim.wait_for_held()
        stopping = asyncio.create_task(aimux.stop())
        await idle.wait_closed()
        assert idle.close_code == 1001
        sim.release()
        assert (await asked)[-1]["type"] == "response.completed"
        await busy.wait_closed()
        assert busy.close_code == 1001
        assert await stopping == 0


@asynccontextmanager
async def running_with_tls(folder: Path) -> AsyncIterator[tuple[Aimux, ssl.SSLContext]]:
    """aimux with TLS on both sides, and what its client has to trust."""
    issued = Issued()
    files = folder / "cert.pem", folder / "key.pem"
    for file, content in zip(files, (issued.pem, issued.key_pem()), strict=True):
        file.write_bytes(content)
        file.chmod(0o600)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    async with Simulator(host="localhost", tls=context) as sim:
        config = config_of(sim, folder, tls={"enabled": True, "cert_path": str(files[0]), "key_path": str(files[1])})
        put_account(folder / "state", sim.accounts["chatgpt"])
        async with serving(folder, config, environ={"SSL_CERT_FILE": str(files[0])}) as aimux:
            aimux.address = aimux.address.replace("127.0.0.1", "localhost")
            yield aimux, ssl.create_default_context(cafile=str(files[0]))


async def test_over_tls_on_both_sides(tmp_path: Path) -> None:
    async with running_with_tls(tmp_path) as (aimux, trust):
        async with codex(aimux, ssl=trust) as client:
            for size in (10, 917_000):
                events = await turn(client, instructions="x" * 100_000, input=[{"role": "user", "content": "x" * size}])
                assert events[-1]["type"] == "response.completed"
        async with codex(aimux, ssl=trust) as client:
            client.transport.write(raw(3, b"a reserved opcode") + raw(1, bytes(300_000)))
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1002
        async with codex(aimux, ssl=trust) as client:
            client.transport.abort()
        assert [line["error"] for line in await logged(aimux, "GET", 3)] == ["-", "bad_request", "-"]


def written(database: Path) -> bool:
    """Whether the ledger has a request."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return bool(connection.execute("SELECT count(*) FROM requests").fetchone()[0])
    except sqlite3.OperationalError:  # the tables are not there yet
        return False
    finally:
        connection.close()


async def grown(aimux: Aimux, state: Path, count: int, **options: Any) -> int:
    """By how many bytes aimux grows with `count` idle sockets that have each had a turn."""
    if not Path("/proc/self/status").exists():
        pytest.skip("reads /proc")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))

    async with codex(aimux, **options) as client:
        await turn(client)
    database = state / "aimux.db"
    async with asyncio.timeout(30):
        while not (database.exists() and written(database)):  # which loads, once, what writes to the database
            await asyncio.sleep(0.05)
    before = aimux.memory
    sockets = [await codex(aimux, **options) for _ in range(count)]
    for client in sockets:
        await turn(client)
    after = aimux.memory
    for client in sockets:
        client.transport.abort()
    return after - before


async def test_idle_sockets_are_cheap(tmp_path: Path) -> None:
    """1,000 of them, a turn behind each, may cost 60 MB; a fifth of them is enough to see it."""
    async with running(tmp_path) as (_, aimux):
        assert await grown(aimux, tmp_path / "state", 200) * 1000 / 200 < 60_000_000


async def test_idle_sockets_with_tls_on_both_sides_are_cheap(tmp_path: Path) -> None:
    """Most of it is OpenSSL's own: docs/deployment.md says how much to plan for."""
    most = 120_000_000 if ssl.OPENSSL_VERSION_INFO >= (3, 2) else 100_000_000
    async with running_with_tls(tmp_path) as (aimux, trust):
        assert await grown(aimux, tmp_path / "state", 200, ssl=trust) * 1000 / 200 < most
