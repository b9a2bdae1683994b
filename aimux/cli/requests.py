"""`aimux requests`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aimux.cli import suggest
from aimux.cli.asking import ask, given, print_json, print_table
from aimux.cli.options import config_option, json_option
from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aimux.cli.calls import Backend

PAGE = 1000
"""Requests that the API gives at once."""


@click.command("requests", short_help="Show the last requests, and what became of them.")
@click.option("--last", default=40, show_default=True, type=click.IntRange(1), metavar="N", help="So many.")
@click.option("--since", default="7d", show_default=True, metavar="WHEN", help="7d, 24h, 2026-11-01, or RFC 3339.")
@click.option("--until", metavar="WHEN", help="Written alike; of a date, its beginning. Default: now.")
@click.option("--user", shell_complete=suggest.users, help="Only this user's.")
@click.option("--group", help="Only this group's.")
@click.option("--token", metavar="ID", help="Only those with this token.")
@click.option("--class", help="Only what was for this, in the client's own word: main, subagent, …")
@click.option("--client", help="Only this client's: its user agent's first word.")
@click.option("--model", help="Only what this model served.")
@click.option("--provider", help="Only this provider's.")
@click.option("--account", metavar="PROVIDER/ACCOUNT", help="Only what this account served.")
@click.option("--conversation", help="Only those of this conversation.")
@click.option("--status", type=click.IntRange(0, 599), help="Only those whose client got it; 0: it left before.")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@config_option
@json_option
def requests_command(last: int, failed: bool, config: Path | None, as_json: bool, **only: str | int | None) -> None:
    """Show the last requests that are over, the latest first, and what became of them.

    `aimux why ID` explains one, `aimux top` shows those that run, `aimux usage` sums them up. The ledger keeps single
    requests for `ledger.keep_requests`.
    """
    if isinstance(account := only["account"], str) and "/" not in account:
        raise click.UsageError("--account is written PROVIDER/ACCOUNT, like claude/default.")
    query = given(**only) | ({"failed": "true"} if failed else {})

    async def read(backend: Backend) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        wanted: dict[str, str | int] = dict(query)
        while len(found) < last:
            page = await backend.call("GET", "/requests", query=wanted | {"limit": min(PAGE, last - len(found))})
            found += page["items"]
            if page["next"] is None:
                break
            wanted["after"] = page["next"]
        return found

    found = ask(config, read, changes=False)
    if as_json:
        print_json({"items": found})
    elif not found:
        say("There was no such request in that time.")
    else:
        numbers = ("TOOK", "IN", "OUT", "COST")
        print_table(
            ("ID", "TIME (UTC)", "USER", "MODEL", "ACCOUNT", "STATUS", *numbers), [*map(_row, found)], numbers=numbers
        )


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    from aimux.cli.usage import short
    from aimux.limits.rules import dollars

    tokens, cost = one["tokens"], one["cost_usd"]
    taken = () if tokens is None else (tokens["input"] + tokens["cache_read"] + tokens["cache_write"], tokens["output"])
    return (
        one["id"],
        one["time"][:19].replace("T", " "),
        one["user"] or "-",
        one["served_model"] or one["model"] or "-",
        "/".join(filter(None, (one["provider"], one["account"]))) or "-",
        f"{one['status']}" + (f" {one['error']}" if one["error"] else ""),
        f"{one['seconds']:.1f} s",
        *(map(short, taken) if taken else "--"),
        "-" if cost is None or not taken else dollars(cost),
    )
