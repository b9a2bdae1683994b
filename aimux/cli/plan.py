"""`aimux plan`: do we need a fourth account?"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.options import config_option, json_option

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.cli.calls import Setting
    from aimux.limits.plan import Asked, Plan, Window
    from aimux.metering.metering import Metering
    from aimux.metering.spans import Span
    from aimux.plugin.settings import AccountSettings

_LENGTH = re.compile(r"(\d+)([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
STRATEGIES = ("least_used", "round_robin", "priority")
NANO = 10**9
UNPRICED = 5_000_000
"""What a request counts whose price nobody knows: half a cent, in nanodollars."""


@click.command("plan", short_help="Replay the ledger over other accounts.")
@click.option("--since", default="30d", show_default=True, metavar="WHEN", help="7d, 2026-11-01, or RFC 3339.")
@click.option("--accounts", multiple=True, metavar="PROVIDER=COUNT", help="So many accounts, not those there are.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Another choice of accounts.")
@click.option("--fair-share/--no-fair-share", default=None, help="Divide windows among who is active, or not.")
@click.option("--window", "given", multiple=True, metavar="NAME=DOLLARS", help="What a window of an account holds.")
@config_option
@json_option
def plan_command(
    since: str,
    accounts: tuple[str, ...],
    strategy: str | None,
    fair_share: bool | None,
    given: tuple[str, ...],
    config: Path | None,
    as_json: bool,
) -> None:
    """Say how many requests would have waited or been refused, and which account was idle.

    The ledger's requests go once more through the choice of accounts, in virtual time. What a window holds is taken
    from how far the vendors' windows moved meanwhile (`aimux usage --accounts`), or from --window 5h=12.50.
    """
    from aimux.cli.calls import Setting

    counts = {name: _count(name, count) for name, _, count in (one.partition("=") for one in accounts)}
    holds = {name: _dollars(name, amount) for name, _, amount in (one.partition("=") for one in given)}
    plans = asyncio.run(_plan(Setting(config), since, counts, strategy, fair_share, holds))
    if as_json:
        click.echo(json.dumps([_told(name, plan) for name, plan in plans.items()], indent=2))
        return
    for name, plan in plans.items():
        _show(name, plan)


async def _plan(
    setting: Setting,
    since: str,
    counts: dict[str, int],
    strategy: str | None,
    fair_share: bool | None,
    holds: dict[str, float],
) -> dict[str, Plan]:
    from aimux.config import provider_instances
    from aimux.metering.calendar import now
    from aimux.metering.metering import Metering
    from aimux.metering.spans import Span, moment
    from aimux.storage import Database, StorageError

    config = setting.whole
    providers = provider_instances(config, setting.plugins.providers)
    if unknown := counts.keys() - providers.keys():
        raise click.UsageError(f"There is no provider {', '.join(sorted(unknown))}.")
    plans = {}
    try:
        database = await Database.open(config.database.address, config.state_dir)
        try:
            metering = Metering(database, config, providers)
            try:
                span = Span(moment(since, now(), metering.calendar))
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            for name, provider in providers.items():
                requests = await _requests(metering, name, span)
                if not requests:
                    continue
                windows, known = await _windows(metering, name, span, holds)
                chosen = _accounts(known, provider.settings.accounts, counts.get(name))
                shared = config.limits.fair_share if fair_share is None else fair_share
                # It takes a while, and is nothing but arithmetic.
                plans[name] = await asyncio.to_thread(
                    _replay, requests, chosen, windows, strategy or provider.settings.strategy, shared
                )
        finally:
            await database.close()
    except StorageError as error:
        raise click.ClickException(str(error)) from None
    if not plans:
        raise click.ClickException("There is no request in the ledger that took something since then.")
    return plans


def _replay(
    requests: list[Asked], accounts: dict[str, AccountSettings], windows: list[Window], strategy: Any, fair_share: bool
) -> Plan:
    from aimux.limits.plan import replay

    return replay(requests, accounts, windows, strategy=strategy, fair_share=fair_share)


async def _requests(metering: Metering, provider: str, span: Span) -> list[Asked]:
    from aimux.limits.plan import Asked

    return [
        Asked(
            row.at / 1000,
            row.user,
            row.conversation or "",
            row.model,
            UNPRICED if row.cost is None else row.cost,
            row.duration / 1000,
        )
        async for row in metering.reports.replayed(provider, span)
    ]


async def _windows(
    metering: Metering, provider: str, span: Span, holds: dict[str, float]
) -> tuple[list[Window], list[str]]:
    """What a window of an account holds, in nanodollars; and the accounts that served."""
    from aimux.limits.plan import Window
    from aimux.metering.windows import compare

    compared = [one for one in await compare(metering.database, metering.reports, span) if one.provider == provider]
    seen: dict[str, list[float]] = {}
    for one in compared:
        explained = one.moved - one.unexplained
        if one.metered is not None and one.metered.cost and explained > 0.01:
            seen.setdefault(one.window, []).append(one.metered.cost / explained)
    full = {name: sum(amounts) / len(amounts) for name, amounts in seen.items()}
    full |= {name: dollars * NANO for name, dollars in holds.items()}
    windows = [Window(name, _length(name), units) for name, units in full.items() if _LENGTH.fullmatch(name)]
    if not windows:
        raise click.ClickException(
            f"{provider}: nothing is known of its windows yet (`aimux usage --accounts`): say what one holds, "
            "--window 5h=12.50"
        )
    served = await metering.reports.usage("account", span)
    prefix = f"{provider}/"
    return windows, sorted(item.name.removeprefix(prefix) for item in served.items if item.name.startswith(prefix))


def _accounts(served: list[str], settings: dict[str, AccountSettings], count: int | None) -> dict[str, AccountSettings]:
    """Those that served, or so many of them and of new ones."""
    from aimux.plugin.settings import AccountSettings

    if count is None:
        return {name: settings.get(name, AccountSettings()) for name in served}
    names = [*served[:count], *(f"new-{number}" for number in range(1, count - len(served) + 1))]
    return {name: settings.get(name, AccountSettings()) for name in names}


def _length(name: str) -> float:
    match = _LENGTH.fullmatch(name)
    assert match is not None
    return int(match[1]) * float(_SECONDS[match[2]])


def _count(name: str, count: str) -> int:
    if not name or not count.isdecimal() or not 0 < int(count) <= 1000:
        raise click.UsageError("--accounts is written like claude=3.")
    return int(count)


def _dollars(name: str, amount: str) -> float:
    try:
        dollars = float(amount)
    except ValueError:
        dollars = 0.0
    if not _LENGTH.fullmatch(name) or not 0 < dollars < 10**9:
        raise click.UsageError("--window is written like 5h=12.50.")
    return dollars


def _told(provider: str, plan: Plan) -> dict[str, Any]:
    return {
        "provider": provider,
        "requests": plan.requests,
        "waited": plan.waited,
        "waited_seconds": round(plan.waited_seconds, 1),
        "refused": plan.refused,
        "not_their_share": plan.not_their_share,
        "accounts": [
            {
                "account": one.name,
                "requests": one.requests,
                "idle_hours": plan.hours - len(one.busy_hours),
                "hours": plan.hours,
                "times_full": one.cooled,
                "fullest": {name: round(used, 3) for name, used in one.fullest.items()},
            }
            for one in plan.accounts
        ],
    }


def _show(provider: str, plan: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    part = 100 * (plan.waited + plan.refused) / plan.requests
    shared = f", {plan.not_their_share:,} of them for others' share" if plan.not_their_share else ""
    mean = f" ({plan.waited_seconds / plan.waited:.0f} s each)" if plan.waited else ""
    click.echo(
        f"{provider}: of {plan.requests:,} requests {plan.waited:,} would have waited{mean} and {plan.refused:,} been "
        f"refused, {part:.2f} %{shared}."
    )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("account", "requests", "idle hours", "times full", "fullest"):
        table.add_column(name, justify="left" if name in {"account", "fullest"} else "right")
    for one in plan.accounts:
        fullest = ", ".join(f"{name} {used * 100:.0f} %" for name, used in one.fullest.items())
        idle = f"{plan.hours - len(one.busy_hours):,} of {plan.hours:,}"
        table.add_row(one.name, f"{one.requests:,}", idle, str(one.cooled), fullest or "–")
    console.print(table)
