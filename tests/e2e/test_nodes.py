"""Three real nodes on one PostgreSQL: one aimux."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.accounts.database_vault import DatabaseVault
from aimux.limits.exchange import LOCK
from aimux.simulator import Simulator, credential_file
from aimux.storage import Database
from tests.e2e.process import TOKEN, Aimux, config_of, serving
from tests.postgresql import Server
from tests.waiting import until

KEY = bytes(range(32))
CLAUDE = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
LATER = f"""
    SELECT pg_advisory_xact_lock({LOCK});
    UPDATE limit_shares SET heard_at = (SELECT max(heard_at) + 1 FROM limit_shares);
    INSERT INTO limit_shares SELECT 'clock', 0, 'test', 0, 0, 0, max(heard_at) + 31000 FROM limit_shares
    ON CONFLICT (counter, start, node) DO UPDATE SET heard_at = excluded.heard_at
"""
"""Half a minute passes on the database's clock, after each node was heard of: between two rounds, since within one the
nodes' rows would be from a later time than the clock that the round has read, which is none to be dead for."""
LOGINS = {"claude": ".credentials.json", "chatgpt": "auth.json"}


class Nodes:
    """The nodes, and a session to ask them with."""

    def __init__(self, session: aiohttp.ClientSession, running: list[Aimux], folders: list[Path]) -> None:
        self.session, self.running, self._folders = session, running, folders

    async def turn(self, node: int) -> int:
        """The status of a turn of Claude's."""
        return (await self.answered(node))[0]

    async def answered(self, node: int) -> tuple[int, int]:
        """The status of a turn of Claude's, and the tokens that it took."""
        url = f"{self.running[node].address}/claude/v1/messages"
        headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
        async with self.session.post(url, json=CLAUDE, headers=headers) as answer:
            body = await answer.json()
            return answer.status, tokens_of(body.get("usage", {}))

    async def api(self, node: int, method: str, path: str, **body: Any) -> Any:
        key = (self._folders[node] / "state" / "admin.key").read_text().strip()
        url = f"{self.running[node].address}/api/v1{path}"
        headers = {"authorization": f"Bearer {key}"}
        async with self.session.request(method, url, json=body or None, headers=headers) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json() if answer.status != 204 else None

    async def eventually(self, node: int, status: int) -> None:
        async with asyncio.timeout(15):
            while await self.turn(node) != status:
                await asyncio.sleep(0.1)


@pytest.fixture
async def nodes(sim: Simulator, tmp_path: Path, postgresql_url: str) -> AsyncIterator[Nodes]:
    """Each has a folder of its own. Both accounts' credentials count as about to expire at the start."""
    database = await Database.open(postgresql_url, tmp_path)
    vault = DatabaseVault(database, [KEY])
    for name, file in LOGINS.items():
        account = sim.accounts[name]
        account.token_lifetime = 3600
        sim.tokens[account.vendor].login(account, account.family.client_id)
        await vault.write(name, "default", file, credential_file(account), expect=None)
        account.token_lifetime = 8 * 3600
        account.script("slow-start:0.3")  # so that the others come while the first renewal is under way
    await database.close()
    async with three(sim, tmp_path, postgresql_url, refresh_before_expiry="2h") as running:
        yield running


@asynccontextmanager
async def three(sim: Simulator, tmp_path: Path, url: str, **settings: Any) -> AsyncIterator[Nodes]:
    """Nodes with these settings."""
    folders = [tmp_path / f"node{number}" for number in range(3)]
    async with AsyncExitStack() as stack:
        configs = []
        for folder in folders:
            folder.mkdir()
            configs.append(config_of(sim, folder, database={"url": url, "encryption_key": KEY.hex()}, **settings))
        starting = [serving(folder, config) for folder, config in zip(folders, configs, strict=True)]
        running = await asyncio.gather(*(stack.enter_async_context(one) for one in starting))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Nodes(session, list(running), folders)


async def test_they_are_one(sim: Simulator, nodes: Nodes) -> None:
    # Each credential is renewed by one of them, and serves everywhere.
    assert [await nodes.turn(node) for node in range(3)] == [200] * 3
    async with asyncio.timeout(15):
        await sim.wait_for(1, "oauth/anthropic")
        await sim.wait_for(1, "oauth/openai")
        await sim.wait_idle()
    await asyncio.sleep(2.5)  # each node's keeper has looked once more
    assert (sim.count("oauth/anthropic"), sim.count("oauth/openai")) == (1, 1)
    assert not any(sim.accounts[name].family.revoked for name in LOGINS)
    assert [await nodes.turn(node) for node in range(3)] == [200] * 3

    # What one is told, the others do.
    await nodes.api(0, "POST", "/accounts/claude/default/disable")
    for node in range(3):
        await nodes.eventually(node, 503)
    shown = await nodes.api(2, "GET", "/accounts/claude/default")
    assert shown["status"] == "disabled"
    await nodes.api(2, "POST", "/accounts/claude/default/enable")
    for node in range(3):
        await nodes.eventually(node, 200)

    # One that is killed leaves everything to the others.
    await nodes.running[0].stop(signal.SIGKILL)
    sim.accounts["claude"].expire()
    assert [await nodes.turn(node) for node in (1, 2)] == [200, 200]
    assert not sim.accounts["claude"].family.revoked


async def test_a_revocation_ends_streams_on_the_others_within_a_second(sim: Simulator, nodes: Nodes) -> None:
    """Whoever did it, wherever the stream is; who kept their token keeps their stream."""
    await nodes.api(0, "POST", "/users", name="bob")
    revoked = await nodes.api(0, "POST", "/tokens", user="bob")
    kept = await nodes.api(1, "POST", "/tokens", user="bob")

    async with asyncio.timeout(15):
        await asyncio.gather(*(heard(nodes, node, one["token"]) for node in range(3) for one in (revoked, kept)))
    ending = [await opened(nodes, node, revoked["token"]) for node in range(3)]
    staying = [await opened(nodes, node, kept["token"]) for node in range(3)]
    await nodes.api(2, "DELETE", f"/tokens/{revoked['id']}")
    async with asyncio.timeout(1):
        told = await asyncio.gather(*(reader.read() for reader, _ in ending))
    assert all(b"event: error" in text and b"revoked" in text for text in told)
    assert not any(reader.at_eof() for reader, _ in staying)
    assert [await status_of(nodes, node, revoked["token"]) for node in range(3)] == [401] * 3
    sim.release()
    async with asyncio.timeout(10):
        whole = [await reader.readuntil(b"message_stop") for reader, _ in staying]
    assert not any(b"event: error" in text for text in whole)
    for _, writer in (*ending, *staying):
        writer.close()


async def opened(nodes: Nodes, node: int, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream that waits in the middle. By hand, because clients throw away what came before a broken end."""
    host, _, port = nodes.running[node].address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(CLAUDE | {"stream": True}).encode()
    head = {"host": host, "authorization": f"Bearer {token}", "anthropic-version": "2023-06-01"}
    head |= {"content-type": "application/json", "content-length": str(len(body)), "x-simulator": "hold:3"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"POST /claude/v1/messages HTTP/1.1\r\n{lines}\r\n".encode() + body)
    async with asyncio.timeout(10):
        await reader.readuntil(b"message_start")
    return reader, writer


def tokens_of(usage: dict[str, Any]) -> int:
    kinds = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage.get(kind) or 0 for kind in kinds)


async def end_of(reader: asyncio.StreamReader) -> int:
    """What a stream took, as its last event but one says."""
    async with asyncio.timeout(10):
        await reader.readuntil(b"event: message_delta\ndata: ")
        tokens = tokens_of(json.loads(await reader.readuntil(b"\n"))["usage"])
        await reader.readuntil(b"message_stop")
    return tokens


async def status_of(nodes: Nodes, node: int, token: str) -> int:
    url = f"{nodes.running[node].address}/api/v1/me"
    async with nodes.session.get(url, headers={"authorization": f"Bearer {token}"}) as answer:
        return answer.status


async def heard(nodes: Nodes, node: int, token: str) -> None:
    """A token that another node has issued is good here too."""
    while await status_of(nodes, node, token) != 200:
        await asyncio.sleep(0.05)


async def test_while_the_database_is_away_they_serve_and_say_so(nodes: Nodes, postgresql: Server) -> None:
    assert [await nodes.turn(node) for node in range(3)] == [200] * 3
    await asyncio.to_thread(postgresql.stop)
    try:
        async with asyncio.timeout(15):
            await asyncio.gather(*(node.said("can't be reached") for node in nodes.running))
        for number, node in enumerate(nodes.running):
            assert await nodes.turn(number) == 200
            async with nodes.session.get(f"{node.address}/ready") as answer:
                assert answer.status == 200
                assert "can't be reached" in (await answer.json())["database"]
    finally:
        await asyncio.to_thread(postgresql.start)
    await asyncio.gather(*(node.said("is there again") for node in nodes.running))
    await nodes.api(1, "POST", "/accounts/claude/default/disable")
    for number in range(3):
        await nodes.eventually(number, 503)
    log = json.dumps([node.output for node in nodes.running])
    assert KEY.hex() not in log


async def test_a_budget_is_overrun_by_one_request_of_each_node_at_most(
    sim: Simulator, tmp_path: Path, postgresql_url: str
) -> None:
    """One person asks all three at once, three requests at a time each, until there is nothing left."""
    amount, taken = 20_000, list[int]()
    providers = {"claude": {"base_url": f"{sim.url}/anthropic", "api_key": sim.accounts["claude-key"].api_key}}
    limits = {"users": {"ann": {"tokens_per_day": amount}}}
    async with three(sim, tmp_path, postgresql_url, providers=providers, limits=limits) as nodes:

        async def ask(node: int) -> None:
            refused = 0
            while refused < 12:  # a node that has used up its piece gets another one within a second
                status, tokens = await nodes.answered(node)
                if status == 429:
                    refused += 1
                    await asyncio.sleep(0.25)
                    continue
                assert status == 200
                refused = 0
                taken.append(tokens)

        await asyncio.gather(*(ask(node) for node in range(3) for _ in range(3)))
        shown = [(await nodes.api(node, "GET", "/limits"))["items"] for node in range(3)]
    largest = max(taken)
    assert largest < amount / 50, "so that it is a budget of many"
    assert amount - 3 * largest <= sum(taken) <= amount + 3 * largest
    assert {limit["used"] for items in shown for one in items for limit in one["usage"]} == {sum(taken)}


async def test_what_a_killed_node_had_counts_once_on_every_node(
    sim: Simulator, tmp_path: Path, postgresql: Server, postgresql_url: str
) -> None:
    """What it had under way, what lies in its spill file, and what the ledger got after it had told the others last."""
    providers = {"claude": {"base_url": f"{sim.url}/anthropic", "api_key": sim.accounts["claude-key"].api_key}}
    limits = {"users": {"ann": {"tokens_per_month": 10**9}}}
    spill = tmp_path / "node0" / "state" / "ledger"
    taken = list[int]()
    nodes: Nodes

    async def ask(node: int, times: int) -> None:
        for _ in range(times):
            status, tokens = await nodes.answered(node)
            assert status == 200
            taken.append(tokens)

    async def used(node: int) -> int:
        [limit] = [one for item in (await nodes.api(node, "GET", "/limits"))["items"] for one in item["usage"]]
        return int(limit["used"])

    async def in_the_ledger(node: int) -> int:
        total = (await nodes.api(node, "GET", "/usage?since=1d"))["total"]
        return sum(total[f"{kind}_tokens"] for kind in ("input", "output", "cache_read", "cache_write"))

    async def agree(*running: int, on: int) -> None:
        """After half a minute, which the database's clock is told to have passed."""
        postgresql.execute(LATER, postgresql_url.partition("@/")[2].partition("?")[0])
        told: list[int] = []
        try:
            async with asyncio.timeout(30):
                while told != [on] * len(running):
                    await asyncio.sleep(0.1)
                    told = [await used(node) for node in running]
        except TimeoutError:
            assert told == [on] * len(running)

    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(
            three(sim, tmp_path, postgresql_url, providers=providers, limits=limits)
        )
        await asyncio.gather(*(ask(node, 5) for node in range(3)))
        ending = [await opened(nodes, 0, TOKEN) for _ in range(3)]
        assert await in_the_ledger(0) == sum(taken)
        async with asyncio.timeout(30):
            while await used(1) == sum(taken):  # until the others know of what is under way
                await asyncio.sleep(0.1)
        await asyncio.to_thread(postgresql.stop)
        try:
            sim.release()
            taken += [await end_of(reader) for reader, _ in ending]
            killed = [await opened(nodes, 0, TOKEN) for _ in range(2)]
            await ask(0, 4)
            await until(lambda: sum(len(file.read_bytes().splitlines()) for file in spill.glob("*.rows")) >= 7, 30)
            await nodes.running[0].stop(signal.SIGKILL)
        finally:
            await asyncio.to_thread(postgresql.start)
        again = json.loads((tmp_path / "node0" / "config.json").read_text())
        nodes.running[0] = await stack.enter_async_context(serving(tmp_path / "node0", again))
        await agree(0, 1, 2, on=sum(taken))
        assert await in_the_ledger(0) == sum(taken)

        asking = [asyncio.create_task(ask(1, 1000)) for _ in range(3)]
        await asyncio.sleep(1)
        await nodes.running[1].stop(signal.SIGKILL)
        await asyncio.gather(*asking, return_exceptions=True)
        await agree(0, 2, on=await in_the_ledger(2))
        for _, writer in (*ending, *killed):
            writer.close()
