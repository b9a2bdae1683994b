"""SIGKILL while credentials are being renewed, the whole process this time, against servers that rotate tokens."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, config_of, put_account, serving

KILLS = 20
ADMIN = "the-admin-key-of-this-test"
LOGINS = {"claude": ".credentials.json", "chatgpt": "auth.json"}


def refresh_token(state: Path, provider: str) -> str:
    """The one on disk; the file is whole and nobody else's."""
    path = state / provider / LOGINS[provider]
    login = json.loads(path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o600
    token = login["claudeAiOauth"]["refreshToken"] if provider == "claude" else login["tokens"]["refresh_token"]
    return str(token)


async def test_killed_again_and_again_it_still_renews(sim: Simulator, folder: Path) -> None:
    # Every credential counts as about to expire, so that each start renews both at once.
    config = config_of(sim, folder, refresh_before_expiry="2h")
    accounts = {name: sim.accounts[name] for name in LOGINS}
    for account in accounts.values():
        account.token_lifetime = 3600
        sim.tokens[account.vendor].login(account, account.family.client_id)
        put_account(folder / "state", account)
    issued = {name: [account.refresh_token] for name, account in accounts.items()}

    def forgive() -> None:
        """The answer with the new token may have died with the process: no design can help that."""
        for vendor in sim.tokens.values():
            vendor.leeway = 1

    for _ in range(KILLS):
        server = random.choice(["oauth/anthropic", "oauth/openai"])
        asked = sim.count(server)
        before = {name: refresh_token(folder / "state", name) for name in accounts}
        forgive()
        async with serving(folder, config) as aimux:
            async with asyncio.timeout(20):
                await sim.wait_for(asked + 1, server)
            await asyncio.sleep(random.uniform(0, 0.02))
            await aimux.stop(signal.SIGKILL)
        await sim.wait_idle()
        for name, account in accounts.items():
            if account.refresh_token != issued[name][-1]:
                issued[name].append(account.refresh_token)
            kept = refresh_token(folder / "state", name)
            # A start whose predecessor died between its two writes renews twice: the newest answer may be lost then,
            # and the one before it, which the server still takes, is on the disk.
            assert kept in {*issued[name][-2:], before[name]}, "the newest, the one before it, or what this start found"
    assert all(len(tokens) > KILLS // 2 for tokens in issued.values()), "it came to renewals"

    forgive()
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        for name, account in accounts.items():
            assert not account.family.revoked
            account.expire()
            body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
            if name == "chatgpt":
                body = {"model": "gpt-5.5", "input": "hi", "stream": True, "store": False}
            path = "claude/v1/messages" if name == "claude" else "chatgpt/v1/responses"
            headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
            async with session.post(f"{aimux.address}/{path}", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
            assert account.refresh_token == refresh_token(folder / "state", name) != issued[name][-1]


async def test_killed_amid_changes_of_people_nothing_that_was_answered_is_lost(sim: Simulator, folder: Path) -> None:
    """And nothing is half: each token that is there has its entry in the audit log, whose chain holds."""
    config = config_of(sim, folder, admin={"token": ADMIN})
    users: set[str] = set()
    tokens: dict[str, str] = {}
    revoked: dict[str, str] = {}
    for round_ in range(6):
        async with serving(folder, config) as aimux, aiohttp.ClientSession() as session:

            async def api(method: str, path: str, body: object = None, key: str = ADMIN) -> tuple[int, Any]:
                headers = {"authorization": f"Bearer {key}"}
                url = f"{aimux.address}/api/v1{path}"
                async with session.request(method, url, json=body, headers=headers) as answer:
                    return answer.status, await answer.json() if answer.status != 204 else None

            items = (await api("GET", "/users?limit=1000"))[1]["items"]
            assert users <= {user["name"] for user in items}
            for secret in tokens.values():
                assert (await api("GET", "/me", key=secret))[0] == 200
            for secret in revoked.values():
                assert (await api("GET", "/me", key=secret))[0] == 401
            assert await audited(api) is True

            async def change(worker: int) -> None:
                for number in range(10_000):
                    name = f"user-{round_}-{worker}-{number}"  # noqa: B023
                    assert (await api("POST", "/users", {"name": name}))[0] == 201
                    users.add(name)
                    kept, ended = [(await api("POST", "/tokens", {"user": name}))[1] for _ in range(2)]
                    tokens[kept["id"]] = kept["token"]
                    assert (await api("DELETE", f"/tokens/{ended['id']}"))[0] == 204
                    revoked[ended["id"]] = ended["token"]

            working = [asyncio.create_task(change(worker)) for worker in range(4)]
            before = len(revoked)
            async with asyncio.timeout(30):
                while len(revoked) < before + 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(random.uniform(0, 0.1))
            await aimux.stop(signal.SIGKILL)
            ended = await asyncio.gather(*working, return_exceptions=True)
            assert all(isinstance(one, aiohttp.ClientError | OSError) for one in ended), ended


async def audited(api: Callable[..., Awaitable[tuple[int, Any]]]) -> bool:
    """The chain holds, and who is there has one entry each."""
    entries: list[dict[str, Any]] = []
    after: str | int | None = ""
    while after is not None:
        page = (await api("GET", f"/audit?limit=1000{f'&after={after}' if after else ''}"))[1]
        entries += page["items"]
        after = page["next"]
    issued = [entry["target"] for entry in entries if entry["action"] == "token.issue"]
    listed = (await api("GET", "/tokens?limit=1000"))[1]["items"]
    stored = {f"token:{token['id']}" for token in listed if not token.get("configured")}
    assert len(issued) == len(set(issued))
    assert stored == set(issued)
    return bool((await api("GET", "/audit/verdict"))[1]["whole"])
