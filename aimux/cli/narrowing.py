"""What narrows a question to the ledger: the options of `aimux usage` and `aimux requests`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from aimux.cli import suggest

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def _whole_account(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and "/" not in value:
        raise click.UsageError(f"{parameter.opts[0]} is written PROVIDER/ACCOUNT, like claude/default.")
    return value


def narrowing(command: F) -> F:
    """Add what narrows a question to the ledger, in the API's words: from `--since` to `--account`."""
    for option in reversed(
        (
            click.option(
                "--since", default="7d", show_default=True, metavar="WHEN", help="7d, 24h, 2026-11-01, or RFC 3339."
            ),
            click.option("--until", metavar="WHEN", help="Written alike; of a date, its beginning. Default: now."),
            click.option("--user", shell_complete=suggest.users, help="Only this user's."),
            click.option("--group", help="Only this group's."),
            click.option("--token", metavar="ID", help="Only what came with this token."),
            click.option("--class", help="Only what was for this, in the client's own word: main, subagent, …"),
            click.option("--client", help="Only this client's: its user agent's first word."),
            click.option("--model", help="Only what this model served."),
            click.option("--provider", help="Only this provider's."),
            click.option(
                "--account",
                metavar="PROVIDER/ACCOUNT",
                callback=_whole_account,
                help="Only what this account served.",
            ),
        )
    ):
        command = option(command)
    return command
