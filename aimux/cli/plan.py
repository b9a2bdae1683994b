"""`aimux plan`: do we need a fourth account?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import ask, print_json, print_table
from aimux.cli.options import config_option, json_option
from aimux.cli.words import say

if TYPE_CHECKING:
    from pathlib import Path

_WINDOW = re.compile(r"[1-9][0-9]{0,3}[mhdw]")
STRATEGIES = ("least_used", "round_robin", "priority")


@click.command("plan", short_help="Replay the ledger over other accounts.")
@click.option("--since", default="30d", show_default=True, metavar="WHEN", help="7d, 2026-11-01, or RFC 3339.")
@click.option("--accounts", multiple=True, metavar="PROVIDER=COUNT", help="So many accounts, not those that served.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Another choice of accounts.")
@click.option("--fair-share/--no-fair-share", default=None, help="Divide windows among those who are active, or not.")
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

    The ledger's requests go through the choice of accounts again, in virtual time. What a window holds is derived from
    how far the vendors' windows moved meanwhile (`aimux usage --accounts`), or given by --window 5h=12.50.
    """
    query: dict[str, str | int] = {"since": since}
    if accounts:
        for name, _, count in (one.partition("=") for one in accounts):
            _check_count(name, count)
        query["accounts"] = ",".join(accounts)
    if given:
        for name, _, amount in (one.partition("=") for one in given):
            _check_window(name, amount)
        query["window"] = ",".join(given)
    if strategy is not None:
        query["strategy"] = strategy
    if fair_share is not None:
        query["fair_share"] = "true" if fair_share else "false"
    found = ask(config, lambda backend: backend.call("GET", "/plan", query=query), changes=False)
    plans, unknown_windows = found["items"], ", ".join(found["unknown"])
    if unknown_windows:
        text = (
            f"nothing is known yet of the windows of {unknown_windows} (`aimux usage --accounts`): say what one holds, "
            "--window 5h=12.50"
        )
        if not plans:
            raise click.ClickException(text)
        say(text, err=True)
    if found["kept_since"] is not None:
        date = found["kept_since"][:10]
        say(f"Single requests are kept since {date} alone (ledger.keep_requests): the plan begins there.", err=True)
    if not plans:
        raise click.ClickException(
            "The ledger has no request since then that used any tokens: begin earlier, by --since."
        )
    if as_json:
        print_json(plans)
        return
    for plan in plans:
        _show(plan)


def _check_count(name: str, count: str) -> None:
    if not name or not count.isdecimal() or not 0 < int(count) <= 1000:
        raise click.UsageError("--accounts is written like claude=3, with 1 to 1000 of them.")


def _check_window(name: str, amount: str) -> None:
    try:
        dollars = float(amount)
    except ValueError:
        dollars = 0.0
    if not _WINDOW.fullmatch(name) or not 0 < dollars < 10**9:
        raise click.UsageError("--window is written like 5h=12.50.")


def _show(plan: dict[str, Any]) -> None:
    part = 100 * (plan["waited"] + plan["refused"]) / plan["requests"]
    shared = f", {plan['not_their_share']:,} of them for others' share" if plan["not_their_share"] else ""
    mean = f" ({plan['waited_seconds'] / plan['waited']:.0f} s each)" if plan["waited"] else ""
    say(
        f"{plan['provider']}: of {plan['requests']:,} requests {plan['waited']:,} would have waited{mean} and "
        f"{plan['refused']:,} been refused, {part:.2f} %{shared}."
    )
    rows = [
        (
            one["account"],
            f"{one['requests']:,}",
            f"{one['idle_hours']:,} of {one['hours']:,}",
            str(one["times_full"]),
            ", ".join(f"{name} {used * 100:.0f} %" for name, used in one["fullest"].items()) or "–",
        )
        for one in plan["accounts"]
    ]
    numbers = ("REQUESTS", "IDLE HOURS", "TIMES FULL")
    print_table(("ACCOUNT", *numbers, "FULLEST"), rows, numbers=numbers)
