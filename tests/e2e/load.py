"""A few clients who count what they were answered, for tests of what the ledger has of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.e2e.process import TOKEN, Aimux
from tests.waiting import until

KINDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
CLIENTS = 4


@dataclass
class Load:
    """What a few clients sent, and were answered: by request id when, and with which usage."""

    sent: int = 0
    over: bool = False
    answered: dict[str, tuple[float, dict[str, int]]] = field(default_factory=dict)
    late: float = 0.0
    """By how many seconds at most this process was woken too late, or the gateway's threads waited for a processor: so
    busy is the machine."""

    async def client(self, session: aiohttp.ClientSession, aimux: Aimux, name: str) -> None:
        headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
        while not self.over:
            self.sent += 1
            own = f"{name}-{self.sent}"
            message = {"model": "claude-sonnet-5", "max_tokens": 99, "messages": [{"role": "user", "content": own * 9}]}
            try:
                async with session.post(
                    f"{aimux.claude}/v1/messages", json=message, headers={**headers, "x-request-id": own}
                ) as answer:
                    body = await answer.json()
            except aiohttp.ClientError:
                return
            assert answer.status == 200, body
            self.answered[own] = (time.monotonic(), body["usage"])
            await asyncio.sleep(random.uniform(0, 0.05))

    async def watch_the_machine(self, aimux: Aimux) -> None:
        self.late, before = 0.0, _waited(aimux.process.pid)
        while not self.over:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self.late = max(self.late, time.monotonic() - due, _waited(aimux.process.pid) - before)

    async def answers(self, count: int) -> None:
        """Until so many more came."""
        count += len(self.answered)
        await until(lambda: len(self.answered) >= count, 30)

    def used(self) -> Counter[str]:
        """In sum."""
        total: Counter[str] = Counter(requests=len(self.answered))
        for _, usage in self.answered.values():
            total.update({kind: usage[kind] for kind in KINDS})
        return total


def _waited(process: int) -> float:
    """For how many seconds the threads of a process were ready and had no processor; those that are over left out."""
    nanoseconds = 0
    with suppress(FileNotFoundError, ProcessLookupError):  # it, or a thread, has ended
        for thread in Path(f"/proc/{process}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[1])
    return nanoseconds / 1e9


@asynccontextmanager
async def under_load(aimux: Aimux, load: Load) -> AsyncIterator[None]:
    load.over = False
    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(load.client(session, aimux, f"{time.time_ns()}-{n}")) for n in range(CLIENTS)]
        tasks.append(asyncio.create_task(load.watch_the_machine(aimux)))
        try:
            yield
        finally:
            load.over = True
            await asyncio.gather(*tasks)
