"""`aimux top`: what runs now, on which account, and how full the vendors' windows are."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.options import config_option, json_option
from aimux.cli.words import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from rich.console import RenderableType

EVERY = 1.0
BAR = 20
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

        async def look() -> RenderableType:
            return shown(await opened.call("GET", "/live"), await every(opened, "/accounts"))

        console = Console(highlight=False)
        if once:
            console.print(await look())
            return
        async with _keys() as ended:
            with Live(await look(), console=console, screen=True, auto_refresh=False) as screen:
                while not ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(ended.wait(), EVERY)
                    screen.update(await look(), refresh=True)


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
        if sys.stdin.read(1) in {"q", "Q", ""}:
            ended.set()

    tty.setcbreak(fd)
    loop.add_reader(fd, pressed)
    try:
        yield ended
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def shown(live: Mapping[str, Any], accounts: list[Any]) -> RenderableType:
    """What is on the screen."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    items = live["items"]
    rates = f"{live['tokens_per_second']:g} tokens/s · {live['requests_per_minute']:g} requests/min"
    head = Text(f"{live['running']} running · {rates}")
    running = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for name in ("user", "model", "account", "client", "for", ""):
        running.add_column(name, justify="right" if name == "for" else "left")
    for item in items[:ROWS]:
        account = f"{item['provider']}/{item['account']}" if item["account"] else item["provider"]
        cells = [Text(visible(text) or "–") for text in (item["user"], item["model"], account, item["client"])]
        running.add_row(*cells, f"{item['seconds']:.1f} s", "streams" if item["streaming"] else "waits")
    if live["running"] > ROWS:
        running.add_row(f"{live['running'] - len(items[:ROWS])} more")
    windows = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("account", "state", "in flight", "window", "", "used"):
        windows.add_column(name, justify="right" if name in {"in flight", "used"} else "left")
    for account in accounts:
        name, told = f"{account['provider']}/{account['name']}", False
        for window in account["limits"]:
            if window["used"] is not None:
                windows.add_row(*_of_account(account, name, told=told), window["name"], *_bar(window["used"], Text))
                told = True
        if not told:
            windows.add_row(*_of_account(account, name, told=False))
    return Group(head, Text(), running, Text(), windows)


def _of_account(account: Mapping[str, Any], name: str, *, told: bool) -> list[str]:
    return ["", "", ""] if told else [name, account["status"], str(account["in_flight"])]


def _bar(used: float, text: Callable[[str, str], Any]) -> list[Any]:
    filled = round(BAR * min(1.0, max(0.0, used)))
    style = "red" if used >= 0.95 else "yellow" if used >= 0.8 else "green"
    return [text("█" * filled + "░" * (BAR - filled), style), f"{used * 100:.0f} %"]
