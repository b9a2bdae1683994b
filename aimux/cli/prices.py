"""`aimux prices`: what models cost, and where that comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import ask, print_json, print_table, tell
from aimux.cli.options import config_option, json_option, refuse_json

if TYPE_CHECKING:
    from pathlib import Path

LOTS = {"minutes": "a minute", "characters": "a million characters"}
KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")


@click.group("prices", invoke_without_command=True, short_help="Show what models cost, and update the list.")
@config_option
@json_option
@click.pass_context
def prices_command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Show what the models cost that were used, in US dollars for a million tokens.

    Prices come from genai-prices, which is installed with aimux. Those of the configuration (`prices`) are marked by *.
    """
    if as_json:
        refuse_json(context, prices_command)
    if context.invoked_subcommand is None:
        items = ask(config, lambda backend: backend.call("GET", "/prices"), changes=False)["items"]
        if as_json:
            print_json(items)
        elif items:
            _table(items)
        else:
            click.echo("No model was used yet: prices are looked up when one is.")


@prices_command.command("update")
@click.option("--url", metavar="URL", help="Where the list is; default: where genai-prices publishes it.")
@config_option
@json_option
def update_command(url: str | None, config: Path | None, as_json: bool) -> None:
    """Take the newest list from the internet. Requests that were priced before keep their price."""
    if url is not None and not url.startswith(("https://", "http://")):
        raise click.UsageError("--url begins with https:// or http://.")
    body = {"url": url} if url else {}
    found = ask(config, lambda backend: backend.call("POST", "/prices/update", body))
    if as_json:
        print_json(found)
    else:
        kept = "" if found["priced"] == found["models"] else " Models that it lacks keep their price."
        click.echo(f"{found['source']}: it has {found['priced']} of {found['models']} models.{kept}")
        click.echo("`aimux prices apply --since 90d` prices what had no price.")


@prices_command.command("apply", short_help="Price requests that had no price.")
@click.option("--since", default="90d", show_default=True, metavar="WHEN", help="7d, 2026-11-01, or RFC 3339.")
@config_option
@json_option
def apply_command(since: str, config: Path | None, as_json: bool) -> None:
    """Price requests that had no price, in every sum that they are a part of."""
    found = ask(config, lambda backend: backend.call("POST", "/prices/apply", {"since": since}))
    count = found["requests"]
    which = "1 request has" if count == 1 else f"{count:,} requests have"
    tell(found, as_json, f"{which} a price now.")


def _table(items: list[dict[str, Any]]) -> None:
    kinds = [kind.replace("_", " ").upper() for kind in KINDS]
    rows = [
        (
            f"{item['provider']}: {item['model']}",
            *[_price(item, kind) for kind in KINDS],
            item["source"] or "in none",
        )
        for item in items
    ]
    print_table(("MODEL", *kinds, "LIST"), rows, numbers=kinds)


def _price(item: dict[str, Any], kind: str) -> str:
    value = item[kind]
    lots = [f"{item[lot]:g} {what}" for lot, what in LOTS.items() if item[lot]]
    if lots and not (item["input"] or item["output"]):
        return ", ".join(lots) if kind == "input" else "–"
    return "?" if value is None else f"{value:g}{'*' if kind in item['configured'] else ''}"
