"""`aimux requests`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import ask, every, print_json, print_table
from aimux.cli.narrowing import narrowing
from aimux.cli.options import config_option, json_option
from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@click.command("requests", short_help="Show the last requests, and what became of them.")
@click.option("--last", default=40, show_default=True, type=click.IntRange(1), metavar="N", help="So many.")
@narrowing
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
    failures = "true" if failed else None
    found = ask(config, lambda backend: every(backend, "/requests", most=last, failed=failures, **only), changes=False)
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
