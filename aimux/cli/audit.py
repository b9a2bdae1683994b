"""`aimux audit`: who changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aimux.cli import suggest
from aimux.cli.asking import ask, every, print_json, print_table
from aimux.cli.options import config_option, json_option, refuse_json
from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@click.group("audit", invoke_without_command=True, short_help="Show who changed what, and check that record.")
@click.option("--last", default=50, show_default=True, type=click.IntRange(1), metavar="N", help="So many entries.")
@click.option("--since", metavar="WHEN", help="Only from then on: 7d, 24h, 2026-11-01, or RFC 3339.")
@click.option("--until", metavar="WHEN", help="Only before then, written alike; of a date, its beginning.")
@click.option("--actor", metavar="NAME", shell_complete=suggest.users, help="Only what they did: a user, admin-key, …")
@click.option("--target", metavar="TARGET", help="Only what was done to it: user:ann, token:tok_…, account:claude/x.")
@config_option
@json_option
@click.pass_context
def audit_command(context: click.Context, /, last: int, config: Path | None, as_json: bool, **only: str | None) -> None:
    """Show the latest changes, the newest first: when, who, from where, and what."""
    if as_json:
        refuse_json(context, audit_command)
    if context.invoked_subcommand is not None:
        return

    entries = ask(config, lambda backend: every(backend, "/audit", most=last, **only), changes=False)
    if as_json:
        print_json({"items": entries})
    elif not entries:
        click.echo("No such change was made." if any(only.values()) else "Nothing was changed yet.")
    else:
        rows = [
            (
                str(entry["id"]),
                entry["at"].partition(".")[0].removesuffix("Z").replace("T", " "),
                entry["actor"] + (f" ({entry['address']})" if entry["address"] else ""),
                entry["action"],
                entry["target"],
                _difference(entry["before"], entry["after"]),
            )
            for entry in entries
        ]
        print_table(("ID", "TIME (UTC)", "WHO", "WHAT", "TO", "CHANGE"), rows)


@audit_command.command("verify")
@config_option
@json_option
@click.pass_context
def verify_command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Check that no entry was changed, removed or cut off. Exits with 1 if one was.

    Note the last hash elsewhere: somebody who can write to the database could rebuild the whole chain.
    """
    verdict = ask(config, lambda backend: backend.call("GET", "/audit/verdict"), changes=False)
    if as_json:
        print_json(verdict)
    elif verdict["whole"]:
        count = "1 entry" if verdict["entries"] == 1 else f"{verdict['entries']} entries"
        say(f"{count}, whole. The last hash is {verdict['hash']}.")
    else:
        say(f"The audit log was tampered with: {verdict['problem']}.", err=True)
    if not verdict["whole"]:
        context.exit(1)


def _difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """What differs from before; of something new all that it has, of something removed all that it had."""
    old, new = before or {}, after or {}
    all_of_it = {**old, **new}
    changed = [name for name in all_of_it if old.get(name) != new.get(name)]
    if before is not None and after is not None:
        return ", ".join(f"{name}: {_said(old.get(name))} → {_said(new.get(name))}" for name in changed)
    return ", ".join(
        f"{name}: {_said(all_of_it[name])}" for name in changed if all_of_it[name] not in (None, "", [], False)
    )


def _said(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return "none" if value in (None, "") else str(value)
