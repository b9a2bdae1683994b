"""What a request costs the ledger and limits, in instructions outside of the kernel as callgrind counts them.

They are the same on a busy machine as on an idle one. `python -m bench.batches` prints them; `python -m bench --check`
has the request's own. The ledger writes batches as they are under full load: three of them less one, by 6,000 requests.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC
from pathlib import Path
from random import getrandbits

from aimux.limits import Lease, Limits, Policy, Terms, Who
from aimux.limits.rules import EVERYBODY, Rule
from aimux.metering import ledger as module
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.ledger import Ledger
from aimux.metering.prices import Prices
from aimux.metering.record import RequestRecord, Sender, Step, new_id
from aimux.metering.tariff import Tariff
from aimux.plugin.usage import Usage
from aimux.storage import Database

BATCH = 3000
"""Rows: what comes in 0.3 s from a core that has nothing but small requests to do."""
MODEL = "claude-sonnet-4-5-20250929"
NAMES = ("concurrent_requests", "requests_per_minute", "tokens_per_day", "cost_per_month")
_COLLECTED = re.compile(r"Collected : (\d+)")


def instructions(what: str, times: int, users: int) -> int:
    """Of a process that does it so many times, from its start to its end."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("valgrind is not installed (Debian: apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [
                *(valgrind, "--tool=callgrind", f"--callgrind-out-file={folder}/out"),
                *(sys.executable, "-m", "bench.batches", what, str(times), str(users)),
            ],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
    return int(_COLLECTED.findall(run.stdout)[-1])


def of_a_request(what: str, users: int) -> float:
    return (instructions(what, 3, users) - instructions(what, 1, users)) / (2 * BATCH)


def record(number: int, users: int) -> RequestRecord:
    """One that was served, of one of so many users."""
    at, user = time.time(), number % users
    sender = Sender("/claude", f"token-{user}", ("team",), "claude-cli/2.1.0", f"talk-{user}")
    own = new_id(at)
    return RequestRecord(
        own,
        at,
        "POST",
        "/claude/v1/messages",
        own,
        user=f"user{user}",
        sender=sender,
        provider="claude",
        account="default",
        model="claude-sonnet-4-5",
        conversation=sender.conversation,
        status=200,
        ttfb=0.1,
        duration=0.2,
        bytes_in=4096,
        bytes_out=1024,
        attempts=1,
        steps=[Step("claude", "default", 200, "relay", "", 0.1, upstream_id=f"req_011{getrandbits(84):021x}")],
        usage=Usage(MODEL, 25, 290, 15000, 100),
    )


async def write(batches: int, users: int) -> None:
    """Have a ledger write so many of three batches."""
    module.WAIT = 600.0  # so slow a database would have everything put on the disk as well
    prices = Prices()
    million = {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000, "cache_write": 3_750_000}
    prices.tariffs["claude", MODEL] = Tariff.of_json([[0, {"": [[0, million]]}]])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = await Database.open(None, folder)
        flattener = Flattener("node", prices)
        ledger = Ledger(database, flattener, Calendar(UTC), folder / "ledger", spill_limit=1 << 28, keep=8e6)
        ledger.record(record(0, users))  # opens the database, which waits for its first batch
        await ledger.catch_up(600)
        made = [[record(number, users) for number in range(BATCH)] for _ in range(3)]
        for batch in made[:batches]:
            for one in batch:
                ledger.record(one)
            await ledger.catch_up(600)
        await ledger.close()
        await database.close()


def lease(batches: int, users: int) -> None:
    """Reserve and settle so many of three batches of requests, each under four limits, as a gateway does: what holds
    for a caller is kept with his connection, and a request has its id before."""
    policy = Policy(tuple(Rule(EVERYBODY, name, 10**15) for name in NAMES))
    limits, now = Limits(policy, UTC, on_mark=lambda _mark: None), time.time()
    people = [limits.terms(Who(f"user{number}", f"token-{number}", ("team",))) for number in range(users)]
    requests = [people[number % users] for number in range(3 * BATCH)]
    for terms in people:
        _lease(limits, terms, now)
    gc.freeze()  # as aimux does
    gc.set_threshold(10_000, 20, 20)
    for terms in requests[: batches * BATCH]:
        _lease(limits, terms, now)


def _lease(limits: Limits, terms: Terms, now: float) -> None:
    plan = terms.plans.get(("claude", "claude-sonnet-4-5"))
    if plan is None:
        plan = limits.plan(terms, "claude", "claude-sonnet-4-5", now)
    found = limits.reserve(plan, 4096, now)
    assert isinstance(found, Lease)
    limits.settle(found, 15_125, 290, 9_000_000)


def main() -> None:
    for users in (200, 10_000):
        for what in ("lease", "write"):
            print(f"{what}, {users:,} users: {of_a_request(what, users):,.0f} instructions", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "lease":
        lease(*map(int, sys.argv[2:]))
    else:
        asyncio.run(write(*map(int, sys.argv[2:])))
