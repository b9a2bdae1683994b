"""What the demo shows: a team, a month of its requests, and a few that run while somebody watches."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.background import end
from aimux.limits.rules import Who
from aimux.metering.record import RequestRecord, Sender, Step, new_id
from aimux.plugin.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aimux.app import App
    from aimux.simulator import Simulator

DAYS = 30
SEED = 7
"""The demo looks the same each time."""
PAUSE = 4.0
"""Seconds between two requests of the team, on average."""


class Person(NamedTuple):
    """One of the team: what they work with, and how many requests a day."""

    name: str
    group: str
    path: str
    models: tuple[str, ...]
    client: str
    daily: int


CLAUDE, CODEX = "/claude/v1/messages", "/chatgpt/v1/responses"
TEAM = (
    Person("ada", "platform", CLAUDE, ("claude-opus-4-5", "claude-haiku-4-5"), "claude-cli/2.1.332", 55),
    Person("grace", "platform", CLAUDE, ("claude-sonnet-4-5",), "claude-cli/2.1.332", 40),
    Person("linus", "product", CODEX, ("gpt-5",), "codex_exec/0.171.0", 35),
    Person("margaret", "product", CLAUDE, ("claude-sonnet-4-5", "claude-haiku-4-5"), "opencode/1.18", 20),
    Person("ci", "automation", CODEX, ("gpt-5-mini",), "OpenAI/Python", 70),
)
TOKENS = {person.name: f"demo-token-of-{person.name}-in-the-simulator" for person in TEAM}


LOGINS = {
    ("claude", "team"): (0.46, 0.31),
    ("claude", "night"): (1.0, 0.74),
    ("claude", "old"): (0.0, 0.0),
    ("chatgpt", "codex"): (0.62, 0.38),
}
"""Provider and name of accounts beside the simulator's own → how much of their short and long windows is used."""
ACCOUNTS = {"claude": {"default": 5, "team": 3, "night": 2}, "chatgpt": {"default": 2, "codex": 5}}
"""Which accounts served the month, and how much of it."""
HOLDS = {"5h": 6.0, "7d": 40.0}
"""Dollars in a login's windows, as the month suggests."""


def settings() -> dict[str, Any]:
    """The team in the configuration, with limits."""
    return {
        "users": [
            {"name": person.name, "token": TOKENS[person.name], "groups": [person.group], "pin_accounts": True}
            for person in TEAM
        ],
        # A ChatGPT login only serves Codex, not the SDKs' plain calls, which people try as well.
        "groups": {name: {"reserved": True} for name in ("product", "automation")},
        "providers": {
            "claude": {"accounts": {"team": {"groups": ["platform"]}, "second": {"priority": 1}}},
            "chatgpt": {"accounts": {"codex": {"groups": ["product", "automation"]}}},
        },
        "limits": {
            "users": {
                "ada": {"tokens_per_day": 12_000_000, "cost_per_month": 400},
                "linus": {"tokens_per_day": 6_000_000},
            },
            "groups": {"automation": {"cost_per_day": 25}, "product": {"cost_per_month": 900}},
        },
    }


def logins(simulator: Simulator) -> dict[tuple[str, str], bytes]:
    """Credential files of further accounts, by provider and name: half used, used up for now, and logged out."""
    from aimux.simulator.demo import credential_file

    now, found = time.time(), {}
    for (provider, name), (used, week) in LOGINS.items():
        account = simulator.add_account(f"{provider}-{name}", "anthropic" if provider == "claude" else "openai")
        for window in account.windows.values():
            part = window.length * (0.55 if window.length < 86400 else 0.4)
            window.used, window.resets_at = used if window.length < 86400 else week, now + part
        found[provider, name] = credential_file(account)
        if name == "old":
            account.revoke()
    return found


async def look(app: App, token: str) -> None:
    """Make each account serve a request of the demo's own user, or of one whom it is for, so that its state is known;
    and note when each person was last here."""
    import aiohttp

    from aimux.people.tokens import digest

    last = {record.user: record.time for record in history(time.time())}
    for user, at in last.items():
        if (known := app.people.directory.token_of(digest(TOKENS[user]))) is not None:
            app.uses.note(known.id, at, "10.1.4.23")
    if app.config.listen.unix_path:
        return
    models = {"claude": (CLAUDE, "claude-haiku-4-5"), "chatgpt": (CODEX, "gpt-5-mini")}
    async with aiohttp.ClientSession() as client:
        for account in [*app.accounts()]:
            path, model = models[account.provider]
            headers = {"x-aimux-account": account.name, "user-agent": "curl/8.10"}
            served = next((TOKENS[one.name] for one in TEAM if one.group in account.settings.groups), token)
            await _send(client, app.addresses[0] + path, model, served, headers, "Hello!")


def history(now: float) -> Iterator[RequestRecord]:
    """The last DAYS, the oldest first: busy by day, quiet at night and at weekends; now and then something fails."""
    rng = random.Random(SEED)
    start = now - DAYS * 86400
    found = []
    for day in range(DAYS + 1):
        weekend = time.gmtime(start + day * 86400).tm_wday >= 5
        for person in TEAM:
            count = person.daily * (0.15 if weekend and person.name != "ci" else 1) * rng.uniform(0.6, 1.4)
            for _ in range(round(count)):
                at = start + day * 86400 + _hour(rng, person) * 3600
                if at < now - 30:
                    found.append(_record(rng, person, at))
    yield from sorted(found, key=lambda record: record.time)


def _hour(rng: random.Random, person: Person) -> float:
    return rng.uniform(0, 24) if person.name == "ci" else min(23.9, max(0.0, rng.gauss(13.5, 3.0)))


def _record(rng: random.Random, person: Person, at: float) -> RequestRecord:
    provider = person.path.split("/")[1]
    account = rng.choices(*zip(*ACCOUNTS[provider].items(), strict=True))[0]
    failed = rng.random() < 0.02
    read = int(rng.lognormvariate(10.2, 0.9))
    usage = Usage(
        model=rng.choice(person.models),
        input_tokens=int(rng.lognormvariate(7.0, 0.8)),
        output_tokens=int(rng.lognormvariate(6.2, 0.9)),
        cache_read_tokens=read,
        cache_write_tokens=int(read * rng.uniform(0.02, 0.15)) if provider == "claude" else 0,
    )
    first = rng.uniform(0.4, 1.8)
    record = RequestRecord(new_id(at), at, "POST", person.path)
    record.request_id = record.id
    record.user, record.provider, record.account = person.name, provider, account
    record.sender = Sender(mount=f"/{provider}", groups=(person.group,), client=person.client)
    record.conversation = f"{person.name}-{int(at // 7200)}"
    record.model = usage.model
    record.status, record.attempts = (529, 3) if failed else (200, 1)
    record.error = "overloaded" if failed else ""
    record.ttfb = first
    record.duration = first + (0.0 if failed else usage.output_tokens / rng.uniform(60, 110))
    record.bytes_in, record.bytes_out = rng.randrange(40_000, 90_000), usage.output_tokens * 90
    record.usage = Usage() if failed else usage
    action = "back_off" if failed else "relay"
    record.steps = [
        Step(provider, account, record.status, action, "the upstream is overloaded" if failed else "", first)
    ]
    return record


async def remember(app: App) -> None:
    """Put the history into ledger and limits, a piece at a time: the gateway serves meanwhile."""
    models = {record.usage.model: record for record in history(time.time()) if record.usage and record.usage.model}
    for _ in range(300):  # prices are looked up when a model is first seen
        if all(app.metering.prices.of_record(record) is not None for record in models.values()):
            break
        await asyncio.sleep(0.2)
    spent: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for count, record in enumerate(history(time.time())):
        app.metering.ledger.record(record)
        cost = app.metering.prices.of_record(record) or 0
        spent.setdefault((record.provider, record.account), []).append((record.time, cost / 1e9))
        tokens = record.usage.total_input + record.usage.output_tokens if record.usage else 0
        who = Who(record.user, groups=record.sender.groups)
        app.limits.limits.add(who, record.provider, record.model, record.time, tokens, cost, time.time())
        if count % 200 == 0:
            await asyncio.sleep(0)
    await _remember_windows(app, spent)


async def _remember_windows(app: App, spent: dict[tuple[str, str], list[tuple[float, float]]]) -> None:
    """What the vendors would have reported of their windows meanwhile: `aimux plan` derives from it what a window
    holds."""
    from aimux.storage.schema.ledger import account_windows

    rows = []
    for (provider, account), requests in spent.items():
        if account == "default" and provider == "chatgpt":
            continue  # an API key has none
        for window, seconds in (("5h", 5 * 3600.0), ("7d", 7 * 86400.0)):
            used = resets_at = told = 0.0
            for at, cost in requests:
                if at >= resets_at:
                    used, resets_at = 0.0, at + seconds
                used = min(1.0, used + cost / HOLDS[window])
                if at - told >= 1800:
                    told = at
                    row = {"provider": provider, "account": account, "window": window, "used": round(used, 4)}
                    rows.append(row | {"at": int(at * 1000), "resets_at": int(resets_at * 1000)})
    async with app.database.write() as connection:
        await connection.execute(account_windows.insert(), rows)


async def chatter(app: App) -> None:
    """Requests of the team, while somebody watches the dashboard; until it is cancelled."""
    import aiohttp

    rng = random.Random(SEED)
    running: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession() as client:
        try:
            while True:
                if app.watched:
                    task = asyncio.create_task(_ask(client, app.addresses[0], rng.choice(TEAM), rng))
                    running.add(task)
                    task.add_done_callback(running.discard)
                await asyncio.sleep(-PAUSE * math.log(1 - rng.random()))
        finally:
            await end(*running)


async def _ask(client: Any, address: str, person: Person, rng: random.Random) -> None:
    text = "Explain what this function does, and what you would change about it."
    headers = {"user-agent": person.client, "x-simulator": f"gap:0.08,events:{rng.randrange(20, 150)}"}
    await _send(client, address + person.path, rng.choice(person.models), TOKENS[person.name], headers, text)


async def _send(client: Any, url: str, model: str, token: str, headers: Mapping[str, str], text: str) -> None:
    claude = url.endswith(CLAUDE)
    body = (
        {"model": model, "max_tokens": 400, "stream": True, "messages": [{"role": "user", "content": text}]}
        if claude
        else {"model": model, "input": text, "stream": True, "store": False}
    )
    whose = {"authorization": f"Bearer {token}", "anthropic-version": "2023-06-01"}
    with contextlib.suppress(Exception):  # only for show, so the end of the gateway is no error here
        async with client.post(url, json=body, headers={**whose, **headers}) as answer:
            await answer.read()
