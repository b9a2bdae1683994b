"""`aimux usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import ask, fits, print_json, print_table
from aimux.cli.narrowing import narrowing
from aimux.cli.options import config_option
from aimux.cli.words import say, visible
from aimux.metering.usage import BY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.table import Table

    from aimux.cli.calls import Backend

SHOWN = 40
"""Rows in the terminal; the rest is summed up in one."""
BAR = 24


@click.command("usage", short_help="Show who used what, and what it cost.")
@click.option("--by", type=click.Choice(BY), default="user", show_default=True, help="What the sums are of.")
@narrowing
@click.option("--accounts", "windows", is_flag=True, help="Compare with the vendors' own windows, by account.")
@click.option("--all", "everything", is_flag=True, help=f"Show more than {SHOWN} rows.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API has it.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@config_option
def usage_command(
    by: str, windows: bool, everything: bool, as_json: bool, as_csv: bool, config: Path | None, **only: str | None
) -> None:
    """Show who used what, and what it cost.

    Tokens do not overlap: input is what was not in a cache. A subscription's cost is what its requests would have cost
    by the price list.
    """
    if as_json and as_csv:
        raise click.UsageError("Choose one of --json and --csv.")
    query = {name: value for name, value in only.items() if value is not None}
    if windows:
        if query.keys() - {"since", "until"} or as_csv:
            raise click.UsageError("--accounts goes with --since, --until and --json only.")
        told = ask(config, lambda backend: backend.call("GET", "/usage/accounts", query=query), changes=False)
        _show_windows(told["items"], as_json=as_json)
        return
    found = ask(config, lambda backend: _whole(backend, {"by": by, **query}), changes=False)
    if as_json:
        print_json({name: found[name] for name in ("items", "total", "unread")})
    elif as_csv:
        from aimux.control.api.usage_models import Usage

        click.echo(Usage.model_validate(found).csv(), nl=False)
    else:
        if unread := found["unread"]:
            which = "1 batch, film or the like was" if unread == 1 else f"{unread:,} batches, films and the like were"
            say(f"{which} begun, and nobody has read yet what it took: that is not counted.", err=True)
        if not any(found["total"].values()):
            say("There was no such request in that time.")
            if query["since"] == query.get("until"):
                say(f"It ends where {query['until']} begins: name the day after it to have that day.", err=True)
            return
        _print(by, found, None if everything else SHOWN)
        others = found["total"]["requests"] - sum(item["requests"] for item in found["items"])
        if by == "conversation" and others > 0:
            which = "1 request belongs" if others == 1 else f"{others:,} requests belong"
            say(
                f"{which} to none: not every client names one, and past `ledger.keep_requests` none is known.", err=True
            )
        if unpriced := found["total"]["unpriced_requests"]:
            which = "1 request has" if unpriced == 1 else f"{unpriced:,} requests have"
            say(f"{which} no price: see `aimux prices`.", err=True)


async def _whole(backend: Backend, query: dict[str, str]) -> dict[str, Any]:
    """The first page, with the items of all the others."""
    wanted: dict[str, str | int] = {**query, "limit": 10_000}
    found = page = await backend.call("GET", "/usage", query=wanted)
    while page["next"] is not None:
        page = await backend.call("GET", "/usage", query={**wanted, "after": page["next"]})
        found["items"] += page["items"]
    return {**found, "next": None}


def _show_windows(items: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(items)
        return
    if not items:
        click.echo("No window was sampled yet: a vendor tells them with its answers.")
        return
    from aimux.limits.rules import dollars

    rows = [
        (
            one["account"],
            one["window"],
            f"{one['used'] * 100:.0f} %",
            f"{one['moved'] * 100:.0f} %",
            f"{one['unexplained'] * 100:.0f} %" if one["unexplained"] >= 0.005 else "–",
            short(one["tokens"]),
            "–" if one["tokens_per_percent"] is None else short(round(one["tokens_per_percent"])),
            dollars(one["cost_usd"]),
        )
        for one in items
    ]
    numbers = ("USED", "MOVED", "OUTSIDE AIMUX", "TOKENS", "TOKENS/%", "COST")
    print_table(("ACCOUNT", "WINDOW", *numbers), rows, numbers=numbers)


def _print(by: str, found: dict[str, Any], most: int | None) -> None:
    """As much of it as the terminal has room for: first without the bars, then with all kinds of tokens together."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # the reader of a pipe needs whole names
        console.print(_table(by, found, most, COLUMNS, bars=False))
        return
    for columns in (COLUMNS, FEW_COLUMNS):
        for bars in (True, False):
            table = _table(by, found, most, columns, bars=bars)
            if fits(table, console):
                console.print(table)
                return
    console.print(table)


def _table(
    by: str, found: dict[str, Any], most: int | None, columns: Sequence[tuple[str, str]], *, bars: bool
) -> Table:
    from rich.table import Table
    from rich.text import Text

    items, total = found["items"], found["total"]
    measure = "cost_usd" if total["cost_usd"] else "tokens" if _tokens(total) else "requests"
    largest = max((_value(item, measure) for item in items), default=0) or 1
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    table.add_column(by.upper(), footer="total", overflow="fold")
    beside = BESIDE.get(by, ())
    for name in beside:
        table.add_column(name.upper())
    if bars:
        table.add_column("", width=BAR)
    for name, key in columns:
        table.add_column(name.upper(), footer=_shown(key, total), justify="right", no_wrap=True)
    shown, rest = (items, []) if most is None else (items[:most], items[most:])
    for item in shown:
        bar = "█" * max(1 if _value(item, measure) else 0, round(BAR * _value(item, measure) / largest))
        named = [item[name] for name in (by, *beside)]
        cells = [Text(visible(name) or "–") for name in named] + ([Text(bar, "cyan")] if bars else [])
        table.add_row(*cells, *[_shown(key, item) for _, key in columns])
    if rest:
        summed = {key: sum(item[key] for item in rest) for key in total}
        blank = [""] * (len(beside) + bars)
        table.add_row(f"{len(rest):,} more (--all)", *blank, *[_shown(key, summed) for _, key in columns])
    return table


COLUMNS = (
    ("requests", "requests"),
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cache read", "cache_read_tokens"),
    ("cache write", "cache_write_tokens"),
    ("reasoning", "reasoning_tokens"),
    ("cost", "cost_usd"),
)
BESIDE = {"conversation": ("user",), "token": ("user", "label")}
"""What else an item is known by."""
FEW_COLUMNS = (("requests", "requests"), ("tokens", "tokens"), ("cost", "cost_usd"))
"""`tokens`: of all kinds."""


def _tokens(item: dict[str, Any]) -> int:
    return int(sum(item[f"{kind}_tokens"] for kind in ("input", "output", "cache_read", "cache_write")))


def _value(item: dict[str, Any], measure: str) -> float:
    return _tokens(item) if measure == "tokens" else item[measure]


def _shown(key: str, item: dict[str, Any]) -> str:
    value = _value(item, key)
    if key != "cost_usd":
        return short(int(value))
    from aimux.limits.rules import dollars

    return dollars(value) + ("+?" if item["unpriced_requests"] else "")


def short(count: int) -> str:
    """1234 → `1,234`, 1234567 → `1.23M`."""
    for size, unit in ((10**9, "G"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return f"{count:,}"
