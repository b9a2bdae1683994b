"""Renewal over real processes: one rotation for all of them, and SIGKILL at any moment."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.accounts.support import credential_file, put

ROOT = Path(__file__).parents[2]


async def child(*args: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.accounts.child", *args, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().strip()


async def test_three_processes_rotate_once_and_all_have_the_new_token(state_dir: Path) -> None:
    asked: list[str] = []

    async def token(request: web.Request) -> web.Response:
        asked.append((await request.json())["refresh_token"])
        await asyncio.sleep(0.2)  # so that the others come while it is under way
        fresh = {"access": f"access-{len(asked)}", "refresh": f"refresh-{len(asked)}"}
        return web.json_response(fresh | {"expires_at": time.time() + 3600})

    app = web.Application()
    app.router.add_post("/token", token)
    put(state_dir, credential_file(expires_at=time.time() + 100))
    async with TestServer(app) as server:
        url = str(server.make_url("/token"))
        outputs = await asyncio.gather(*(child("renew", str(state_dir), url) for _ in range(3)))
    assert outputs == ["access-1"] * 3
    assert asked == ["refresh-0"]
    assert json.loads((state_dir / "demo" / "demo.json").read_bytes())["refresh"] == "refresh-1"


async def test_a_hundred_kills_lose_nothing(state_dir: Path) -> None:
    rotations = int(await child("die", str(state_dir), "100"))
    assert rotations >= 100, "each got going, and each found a credential that still renews"
