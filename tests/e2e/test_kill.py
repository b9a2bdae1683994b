"""SIGKILL while credentials are being renewed, the whole process this time, against servers that rotate tokens."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path

import aiohttp

from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, config_of, put_account, serving

KILLS = 20
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
    for _ in range(KILLS):
        server = random.choice(["oauth/anthropic", "oauth/openai"])
        asked = sim.count(server)
        before = {name: refresh_token(folder / "state", name) for name in accounts}
        for vendor in sim.tokens.values():
            vendor.leeway = 1  # the answer with the new token may have died with the process: no design can help that
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
