"""A webhook's receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.waiting import until


class Receiver:
    """`answers`: statuses to begin with; 0 is none at all. `got`: headers and body of each delivery."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = ""
        self.over = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        status = self.answers.pop(0) if self.answers else 204
        if not status:  # no answer
            await self.over.wait()
        return web.Response(status=status, headers={"location": self.url} if status == 302 else {})

    async def until(self, count: int) -> None:
        await until(lambda: len(self.got) >= count, 5)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    found.over.set()
    await runner.cleanup()
