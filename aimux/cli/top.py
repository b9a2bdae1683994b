"""`aimux top`: what runs now, on which account, and how full the vendors' windows are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.options import config_option, json_option
from aimux.cli.words import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from rich.console import RenderableType

EVERY = 1.0
BAR, SHORTEST = 20, 5
ROWS = 30


@click.command("top", short_help="Show what runs now. Press q to end it.")
@click.option("--once", is_flag=True, help="Show it once.")
@config_option
@json_option
def top_command(once: bool, config: Path | None, as_json: bool) -> None:
    """Show who is running what, on which account, tokens per second, and how full the vendors' windows are.

    Press q or Ctrl-C to end it; with --json it is shown once. Nodes that share a database are shown together.
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_top(config, once=once or not sys.stdout.isatty(), as_json=as_json))


async def _top(config: Path | None, *, once: bool, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from aimux.cli.asking import every, print_json
    from aimux.cli.backend import backend
    from aimux.cli.calls import Setting

    async with backend(Setting(config), changes=False) as opened:
        if not opened.live:
            raise click.ClickException("No server is running: there is nothing to show.")

        if as_json:
            live: dict[str, Any] = await opened.call("GET", "/live")
            print_json(live | {"accounts": await every(opened, "/accounts")})
            return

        console = Console(highlight=False)

        async def look(height: int | None) -> RenderableType:
            return shown(await opened.call("GET", "/live"), await every(opened, "/accounts"), height, console.width)

        if once:
            console.print(await look(None))
            return
        async with _keys() as ended:
            with Live(await look(console.height), console=console, screen=True, auto_refresh=False) as screen:
                while not ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(ended.wait(), EVERY)
                    screen.update(await look(console.height), refresh=True)


@contextlib.asynccontextmanager
async def _keys() -> AsyncIterator[asyncio.Event]:
    """An event that q sets; meanwhile the terminal passes keys on at once."""
    ended = asyncio.Event()
    if not sys.stdin.isatty():
        yield ended
        return
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        # All that is there: Python's own buffer would keep what was typed along with a key until the next one.
        keys = os.read(fd, 1024)
        if not keys or b"q" in keys.lower():
            ended.set()

    tty.setcbreak(fd)
    loop.add_reader(fd, pressed)
    try:
        yield ended
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def shown(
    live: Mapping[str, Any], accounts: list[Any], height: int | None = None, width: int | None = None
) -> RenderableType:
    """What is on the screen, or on one of so many lines: requests and accounts have half of it each, and what the other
    does not need. On one of so few columns that names would be cut, bars are shorter or left out, the client too."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    items = live["items"]
    rates = f"{live['tokens_per_second']:g} tokens/s · {live['requests_per_minute']:g} requests/min"
    head = Text(f"{live['running']} running · {rates}")
    bar = _room(accounts, width)
    lines = [row for account in accounts for row in _of_account(account, items, Text, bar)]
    of_requests, of_accounts = _fitting(live["running"], len(lines), height)
    rows = [_of_request(item) for item in items[:of_requests]]
    names = _names(rows, width)
    running = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for name in names:
        running.add_column(name.upper(), justify="right" if name == "for" else "left", no_wrap=name == "for")
    for row in rows:
        running.add_row(*[Text(row[name]) for name in names])
    if live["running"] > of_requests:
        running.add_row(f"{live['running'] - len(items[:of_requests])} more")
    windows = Table(box=None, pad_edge=False, header_style="bold")
    columns = ["account", "state", "in flight", "window", *([""] if bar else []), "used"]
    for name in columns:
        right = name in {"in flight", "used"}
        windows.add_column(name.upper(), justify="right" if right else "left", no_wrap=name == "used")
    for line in lines[:of_accounts]:
        windows.add_row(*line)
    if len(lines) > of_accounts:
        windows.add_row(f"{sum(bool(row[0]) for row in lines[of_accounts:])} more")
    return Group(head, Text(), running, Text(), windows)


def _of_request(item: Mapping[str, Any]) -> dict[str, str]:
    """Its cells by column. The last column, which needs no heading, has what it does."""
    account = f"{item['provider']}/{item['account']}" if item["account"] else item["provider"]
    named = {"user": item["user"], "model": item["model"], "account": account, "client": item["client"]}
    cells = {name: visible(text) or "–" for name, text in named.items()}
    return cells | {"for": f"{item['seconds']:.1f} s", "": "streams" if item["streaming"] else "waits"}


def _names(rows: list[dict[str, str]], width: int | None) -> list[str]:
    """The columns that there is room for: whose request it is, which model and account it has, and for how long come
    first."""
    names = ["user", "model", "account", "client", "for", ""]
    for least in ("client", ""):
        needed = sum(max(len(name), *(len(row[name]) for row in rows)) if rows else len(name) for name in names)
        if width is not None and needed + 2 * (len(names) - 1) > width:
            names.remove(least)
    return names


def _fitting(running: int, lines: int, height: int | None) -> tuple[int, int]:
    """How many requests and lines of accounts there is room for, beside a line that says how many more there are."""
    if height is None:
        return ROWS, lines
    room = max(4, height - 5)  # sums, two headings, and two empty lines
    of_accounts = min(lines, max(room // 2, room - running))
    of_requests = room - of_accounts
    return of_requests - (running > of_requests), of_accounts - (lines > of_accounts)


def _room(accounts: list[Any], width: int | None) -> int:
    """How long bars may be, beside the other columns and what is between them; 0: there is no room for any."""
    if width is None or not accounts:
        return BAR
    names = max(len(f"{account['provider']}/{account['name']}") for account in accounts)
    states = max(len(account["status"]) for account in accounts)
    windows = max([len("window"), *[len(window["name"]) for account in accounts for window in account["limits"]]])
    room = width - names - states - len("in flight") - windows - len("100 %") - 5 * 2
    return min(BAR, room) if room >= SHORTEST else 0


def _of_account(
    account: Mapping[str, Any], running: list[Any], text: Callable[[str, str], Any], bar: int
) -> Iterator[list[Any]]:
    """Its lines: one for each window."""
    here = sum((one["provider"], one["account"]) == (account["provider"], account["name"]) for one in running)
    in_flight = max(account["in_flight"], here)  # that of the node that is asked, those of all
    begin = [f"{account['provider']}/{account['name']}", account["status"], str(in_flight)]
    for window in account["limits"]:
        if window["used"] is not None:
            yield [*begin, window["name"], *_bar(window["used"], text, bar)]
            begin = ["", "", ""]
    if begin[0]:
        yield begin


def _bar(used: float, text: Callable[[str, str], Any], length: int) -> list[Any]:
    filled = round(length * min(1.0, max(0.0, used)))
    style = "red" if used >= 0.95 else "yellow" if used >= 0.8 else "green"
    bar = [text("█" * filled + "░" * (length - filled), style)] if length else []
    return [*bar, f"{used * 100:.0f} %"]
