"""What commands that ask the API share: running them, reading a list to its end, and printing the result."""

from __future__ import annotations

import asyncio
import codecs
import json
import signal
import sys
import threading
from contextlib import contextmanager
from itertools import compress
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.words import say, visible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console, Group
    from rich.table import Table

    from aimux.cli.calls import Backend


PAGE = 1000
"""Items that the API gives at once."""
NOTHING = frozenset({"", "-", "–"})
"""Cells of a table without a value."""


def ask(config: Path | None, work: Callable[[Backend], Awaitable[Any]], *, changes: bool = True) -> Any:
    """Run `work` on the running server or on its files, and return its result. `changes`: it does more than read."""
    # Imported late: they bring aiohttp, which `aimux --help` does not need.
    from aimux.cli.backend import backend
    from aimux.cli.calls import Setting

    async def run() -> Any:
        async with backend(setting, changes=changes) as opened:
            return await work(opened)

    setting = Setting(config)
    return asyncio.run(run())


async def every(
    backend: Backend, path: str, *, most: int | None = None, **query: str | int | None
) -> list[dict[str, Any]]:
    """All items of a list that comes in pages; `most`: so many of them, the first ones."""
    found: list[dict[str, Any]] = []
    wanted = given(**query)
    while True:
        wanted["limit"] = PAGE if most is None else min(PAGE, most - len(found))
        page = await backend.call("GET", path, query=wanted)
        found += page["items"]
        if page["next"] is None or len(found) == most:
            return found
        wanted["after"] = page["next"]


def given(**options: Any) -> dict[str, Any]:
    """The options that the command line named: all but those that are None."""
    return {name: value for name, value in options.items() if value is not None}


def print_json(value: Any) -> None:
    """Readable where stdout takes every character, else with escapes."""
    escaped = codecs.lookup(sys.stdout.encoding or "ascii").name != "utf-8"
    click.echo(json.dumps(value, indent=2, ensure_ascii=escaped))


def tell(value: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print the result of a change: the API's answer, or a sentence."""
    if as_json:
        print_json(value)
    else:
        say(text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[str] = ()) -> None:
    """Print aligned columns, `numbers` (names of columns) to the right. On a terminal those without any value are left
    out, and if it is too narrow for the others, there is a paragraph for each row."""
    rows = [[*map(visible, row)] for row in rows]
    if sys.stdout.isatty():
        _print_on_terminal(columns, rows, numbers)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _print_on_terminal(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    said = [any(row[at] not in NOTHING for row in rows) for at in range(len(columns))]
    columns, rows = [*compress(columns, said)], [[*compress(row, said)] for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column in numbers else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    if fits(table, console):
        console.print(table)
        return
    for row in rows:
        console.print(_paragraph(columns, row, console.width))


def _paragraph(columns: Sequence[str], row: Sequence[str], width: int) -> Group:
    """A row under its first cell: each of the others after its column's name, as many on a line as fit."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    lines: list[Text] = []
    for column, cell in zip(columns[1:], row[1:], strict=True):
        if cell in NOTHING:
            continue
        pair = Text.assemble((column, "dim"), f" {cell}")
        if lines and len(lines[-1]) + len(pair) + 4 <= width:
            lines[-1].append("  ").append_text(pair)
        else:
            lines.append(pair)
    return Group(Text(row[0], "bold"), *[Padding(line, (0, 0, 0, 2)) for line in lines])


def fits(table: Table, console: Console) -> bool:
    """Whether the table fits: squeezed, it would break names and numbers apart."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options, table).maximum < console.width


def print_lines(title: str, lines: Mapping[str, str]) -> None:
    """Print what is known about one thing; empty values are left out."""
    click.echo(title)
    for name, value in lines.items():
        for index, line in enumerate(value.splitlines()):
            say(f"  {name if not index else '':<13} {line}", hang=16)


def confirm(question: str, *, yes: bool, what: str) -> None:
    """End the command unless the person agrees, or has said `--yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what}: say --yes.")
    agreed(question)


def agreed(question: str) -> None:
    """End the command unless the person agrees."""
    with _interruptible():
        click.confirm(question, abort=True)


def typed(question: str, **options: Any) -> str:
    """What a person types; `options` are those of click's prompt."""
    with _interruptible():
        answer: str = click.prompt(question, err=True, **options)
    return answer


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C end a question: within `asyncio.run` the first one only cancels a task, which nobody sees as long as
    the question waits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
