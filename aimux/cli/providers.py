"""`aimux providers`."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from aimux.cli.asking import print_json, print_table
from aimux.cli.options import json_option
from aimux.cli.words import say

if TYPE_CHECKING:
    from aimux.plugin.loader import Plugin

_COLUMNS = ("PLUGIN", "BRINGS", "DISTRIBUTION", "VERSION", "STATE")


@click.command("providers", short_help="List the provider plugins.")
@json_option
@click.pass_context
def providers_command(context: click.Context, as_json: bool) -> None:
    """List the provider plugins: what is loaded, where it comes from, what failed and why.

    Exits with 1 if one failed.
    """
    from aimux.plugin.loader import load_plugins

    plugins = load_plugins()
    if as_json:
        print_json([dataclasses.asdict(plugin) for plugin in plugins.plugins])
    elif not plugins.plugins:
        say("No provider plugins are installed.")
    elif sys.stdout.isatty():
        _show_on_terminal([_row(plugin) for plugin in plugins.plugins])
    else:
        print_table(_COLUMNS, [_row(plugin) for plugin in plugins.plugins])
    if plugins.failed:
        context.exit(1)


def _row(plugin: Plugin) -> tuple[str, ...]:
    state = f"failed: {plugin.error}" if plugin.error else "loaded"
    return (plugin.name, _brings(plugin), plugin.distribution, plugin.version, state)


def _brings(plugin: Plugin) -> str:
    commands = [f"aimux {command}" for command in plugin.commands]
    parts = (plugin.providers, _few(commands, "commands"), _few(plugin.routes, "paths"))
    return ", ".join(name for names in parts for name in names) or "-"


def _few(names: list[str], what: str) -> list[str]:
    return names if len(names) < 2 else [f"{len(names)} {what}"]


def _show_on_terminal(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS, box=None, header_style="bold", pad_edge=False)
    for *cells, state in rows:
        table.add_row(*map(Text, cells), Text(state, "green" if state == "loaded" else "red"))
    Console().print(table)
