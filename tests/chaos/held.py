"""What a process holds: before the faults, and after them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.waiting import until

from .world import World

OF_REQUESTS = re.compile(r"aimux\.(gateway|relay)\.|uvloop\.|ssl\.SSLObject$|_asyncio\.Task$")
"""Objects that a request, a connection or a task leaves behind if it leaves anything."""
KEPT = re.compile(
    r"aimux\.gateway\.(headers\.(_Passing|Dropped)|models\.(Target|ModelRoutes)|mounts\.Mount(Table)?|cors\.Cors)$"
    r"|aimux\.gateway\.((auth\.Authentication|guesses\.Guesses)|route\.Route|client_address\.TrustedProxies)$|aimux\.relay\.pool\.Origin$"
    r"|aimux\.gateway\.credential_checks\._Check$"
)
"""Those that caches of a fixed size and the present configuration hold."""
SETUP = {"aimux.gateway.setup.Setup", "aimux.gateway.epoch.Epoch"}
"""A configuration. The one that a process starts with is not counted, and the others are its followers."""
DATABASE, POOLED = re.compile(r"/aimux\.db(-wal|-shm)?$"), 3
"""So many connections to it are kept for the next who asks, once there were so many at a time."""
TASK = "_asyncio.Task"
TIMERS = re.compile(r"uvloop\.loop\.(TimerHandle|UVTimer|Handle)$")
FEW = 4
"""So many timers of the process's own may run, or not."""
MORE_NATIVE, MORE_BLOCKS, MORE_MEMORY = 2 << 20, 8000, 16 << 20
"""By so much may differ what is in use: bytes of libraries (a connection to the database alone keeps up to 2 MB of its
pages), blocks of Python's (some 100 bytes each; a statement that is made for the first time leaves hundreds of them).
The rest of what is resident is free, between what is in use, and can't be given back."""


@dataclass
class Held:
    """What each descriptor is; bytes that are resident, and those in use by libraries; blocks in use by Python; objects
    by kind."""

    files: list[str] = field(default_factory=list)
    memory: int = 0
    native: int = 0
    blocks: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, world: World) -> Held:
        """As seen from outside."""
        process = Path(f"/proc/{world.pid}")
        resident = int((process / "statm").read_text().split()[1]) * resource.getpagesize()
        return cls(sorted(_names(process / "fd")), resident)

    @property
    def descriptors(self) -> int:
        return len(self.files)

    def __str__(self) -> str:
        used = f", in use {self.native >> 10} KiB and {self.blocks} blocks" if self.blocks else ""
        return f"{self.descriptors} descriptors and {self.memory / (1 << 20):.1f} MiB{used}"

    @property
    def of_requests(self) -> dict[str, int]:
        """How many objects of requests there are, by kind."""
        return {kind: count for kind, count in self.kinds.items() if OF_REQUESTS.match(kind) and not KEPT.match(kind)}

    def more_than(self, before: Held) -> list[str]:
        """What is left of something."""
        left = []
        if more := Counter(self.files) - Counter(before.files):
            kept = {name: POOLED - 1 for name in more if DATABASE.search(name)}
            if more := more - Counter(kept):
                left.append(f"descriptors are left open: {dict(more)}")
        for kind, count in self.of_requests.items():
            many = count - before.kinds.get(kind, 0)
            if many > (FEW if TIMERS.match(kind) else 1 if kind in SETUP else 0):
                of = f": {self.tasks}, before {before.tasks}" if kind == TASK else ""
                left.append(f"{many} objects of {kind} are left{of}")
        if self.native - before.native > MORE_NATIVE:
            left.append(f"libraries hold {self.native - before.native} bytes more")
        if self.blocks - before.blocks > MORE_BLOCKS:
            kinds = {kind: count - before.kinds.get(kind, 0) for kind, count in self.kinds.items()}
            most = sorted(kinds.items(), key=lambda one: -one[1])[:20]
            left.append(f"Python holds {self.blocks - before.blocks} blocks more: {most}")
        if self.memory - before.memory > MORE_MEMORY:
            left.append(f"{self.memory - before.memory} bytes are not given back")
        return left


def _names(folder: Path) -> Iterator[str]:
    for each in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield re.sub(r":\[\d+\]", "", str(each.readlink()))


@asynccontextmanager
async def peaks(world: World) -> AsyncIterator[Held]:
    """The most that any process held meanwhile."""
    most = Held()

    async def look() -> None:
        while True:
            try:
                held = Held.of(world)
                most.files = max(most.files, held.files, key=len)
                most.memory = max(most.memory, held.memory)
            except OSError:
                pass  # there is none at the moment
            await asyncio.sleep(0.2)

    task = asyncio.create_task(look())
    try:
        yield most
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def at_rest(world: World) -> Held:
    """What it holds when nothing is open but what always is, its garbage is collected and free memory given back.

    It takes a while: a WebSocket's close may be waited for.
    """
    async with asyncio.timeout(30):
        while True:
            for transport, _ in world.upstreams():
                transport.abort()
            before = Held.of(world).descriptors
            await asyncio.sleep(0.5)
            if before == Held.of(world).descriptors and not world.upstreams():
                break
    told = (await world.get("/metrics")).decode()
    busy = re.findall(r"^(?:aimux_open_streams|aimux_account_in_flight)\{.*\} (?!0\.0$).*$", told, re.MULTILINE)
    assert not busy, f"requests are over, and still count: {busy}"
    held = await _counted(world)
    for _ in range(30):
        if not any(kind.startswith("uvloop.loop.TCP") for kind in held.of_requests):
            break
        await asyncio.sleep(1)
        held = await _counted(world)
    # What the process does from time to time (a ledger's minute, a look at the limits) is a task of its own meanwhile.
    for _ in range(5):
        again = await _counted(world)
        held = min(held, again, key=lambda one: one.kinds[TASK])
        await asyncio.sleep(0.3)
    return held


async def _counted(world: World) -> Held:
    world.census.unlink(missing_ok=True)
    world.aimux.process.send_signal(signal.SIGUSR1)
    await until(world.census.exists, 30)
    told, held = json.loads(world.census.read_bytes()), Held.of(world)
    held.native, held.blocks, held.kinds = told["native"], told["blocks"], told["kinds"]
    held.tasks = told["tasks"]
    return held
