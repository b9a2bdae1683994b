"""A click group that imports a command's module only when that command runs."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class LazyCommand(NamedTuple):
    """`target` is `module:attribute`. `help` is its line in the group's own help, which imports nothing."""

    target: str
    help: str


class LazyGroup(click.Group):
    """Commands from a table, shown in the table's order. `more` gives further ones, if the table lacks the wanted one
    or all are listed."""

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, LazyCommand],
        more: Callable[[], Mapping[str, LazyCommand]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._more = more

    @property
    def table(self) -> Mapping[str, LazyCommand]:
        """All of them."""
        if self._more is not None:
            self._table, self._more = {**self._table, **self._more()}, None
        return self._table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = self._table.get(cmd_name) or self.table.get(cmd_name)
        if found is None:
            return None
        module, _, attribute = found.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if (
            args
            and args[0] not in self._table
            and args[0] not in self.table
            and not args[0].startswith("-")
            and not ctx.resilient_parsing
        ):
            meant = get_close_matches(args[0], self.table, n=1, cutoff=0.5)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {meant[0]!r}?" if meant else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in self.table.items()])
