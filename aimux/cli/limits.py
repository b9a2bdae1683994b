"""`aimux limits`: what users, groups and tokens may use, and how much of it is used."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import click

from aimux.cli import suggest
from aimux.cli.asking import ask, print_json, tell
from aimux.cli.options import config_option, json_option, refuse_json
from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from aimux.cli.calls import Backend

_NUMBER = re.compile(r"(\d{1,20}(?:_\d+)*(?:\.\d+)?)([kmbg]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_WORDS = {"overage": ("allow", "forbid"), "long_context": ("allow", "forbid")}


def _owner(text: str) -> str:
    """`user:NAME`, `group:NAME` or `token:ID`, as the path of its limits."""
    kind, colon, name = text.partition(":")
    if kind not in {"user", "group", "token"} or not colon or not name:
        more = "; everybody's default stands in the configuration (limits.default)" if text == "default" else ""
        raise click.BadParameter(f"{text!r} is not an owner: write user:NAME, group:NAME or token:ID{more}")
    return _path(kind, name)


def _path(kind: str, name: str) -> str:
    return f"/limits/{kind}/{quote(name, safe='')}"


def _named(path: str) -> tuple[str, str]:
    """Whose limits these are: kind and name."""
    _, _, kind, name = path.split("/")
    return kind, unquote(name)


def _setting(text: str) -> tuple[str, Any]:
    """`NAME=AMOUNT`; the amount None removes the limit."""
    from aimux.limits.rules import LIMITS, Unit

    name, equals, value = text.partition("=")
    names = (*LIMITS, *_WORDS, "weight")
    if not equals or name not in names:
        raise click.BadParameter(f"{text!r}: write NAME=AMOUNT, with one of {', '.join(names)}")
    if value.lower() == "none":
        return name, None
    if not value:  # an unset shell variable must not take a limit away
        raise click.BadParameter(f"{text!r} has no amount: write it like {name}=AMOUNT, or {name}=none to take it away")
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise click.BadParameter(f"{name} is {' or '.join(_WORDS[name])}, or none to take it away")
        return name, value
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not an amount: write it like 1000000, 1.5M, 20, or none")
    amount = Decimal(match[1].replace("_", "")) * _FACTORS[match[2].lower()]  # as a float 4.1M is not whole
    whole = amount == amount.to_integral_value()
    if not whole and name in LIMITS and LIMITS[name].unit is not Unit.COST:
        raise click.BadParameter(f"{name} is a whole number, and not {value}")
    return name, int(amount) if whole else float(amount)


def _not_empty(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """An unset shell variable must not turn the limit of a part into one of the whole."""
    if value == "":
        raise click.BadParameter("is empty")
    return value


def _until(text: str) -> str:
    """A moment as it was written: without a zone, it is in the server's `limits.time_zone`."""
    from aimux.limits.windows import moment

    try:
        moment(text, time.time(), UTC)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


@click.group("limits", invoke_without_command=True, short_help="Show and set what people may use.")
@config_option
@json_option
@click.pass_context
def limits_command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Show everybody's limits, and how much of them is used.

    An OWNER is user:NAME, group:NAME or token:ID. Limits in the configuration are changed there.
    """
    if as_json:
        refuse_json(context, limits_command)
    if context.invoked_subcommand is None:
        _show(config, None, as_json)


@limits_command.command("show", short_help="Show everybody's limits, or one OWNER's.")
@click.argument("owner", metavar="OWNER", type=_owner, shell_complete=suggest.owners, required=False)
@config_option
@json_option
def show_command(owner: str | None, config: Path | None, as_json: bool) -> None:
    """Show everybody's limits, or those of one OWNER, and how much of them is used."""
    _show(config, owner, as_json)


@limits_command.command("set")
@click.argument("owner", metavar="OWNER", type=_owner, shell_complete=suggest.owners)
@click.argument("settings", metavar="NAME=AMOUNT...", type=_setting, nargs=-1, required=True)
@click.option(
    "--provider", callback=_not_empty, shell_complete=suggest.providers, help="What may be used of one provider."
)
@click.option(
    "--model", callback=_not_empty, help="What may be used of models: a name, prefix* or /regular expression/."
)
@config_option
@json_option
def set_command(
    owner: str,
    settings: tuple[tuple[str, Any], ...],
    provider: str | None,
    model: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Set some of an OWNER's limits; the others stay. NAME=none takes one away.

    \b
    aimux limits set user:alice tokens_per_day=1000000
    aimux limits set group:research cost_per_month=500 concurrent_requests=20
    aimux limits set user:bob --model 'claude-opus-*' cost_per_day=5
    """
    if provider and model:
        raise click.UsageError("Say --provider or --model, not both.")
    names = [name for name, _ in settings]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise click.UsageError(f"Say {twice[0]} once.")

    async def change(backend: Backend) -> dict[str, Any]:
        # A word that is not set means `allow`.
        changes = {name: "allow" if name in _WORDS and amount is None else amount for name, amount in settings}
        for part, name in (("providers", provider), ("models", model)):
            if name:
                changes = {part: {name: changes}}
        return await backend.call("PATCH", owner, changes)

    told = ask(config, change)
    if as_json:
        print_json(told)
    else:
        say("\n".join(_lines(told)) or "No limits are left.")


@limits_command.command("grant")
@click.argument("owner", metavar="OWNER", type=_owner, shell_complete=suggest.owners)
@click.argument("setting", metavar="NAME=AMOUNT", type=_setting)
@click.option(
    "--until",
    type=_until,
    required=True,
    metavar="WHEN",
    help="3d, 12h, friday or 2026-11-27 (until its end) or 2026-11-27T18:00, in limits.time_zone.",
)
@config_option
@json_option
def grant_command(owner: str, setting: tuple[str, Any], until: str, config: Path | None, as_json: bool) -> None:
    """Give an OWNER more of a limit for a while. A grant is never changed, and ends by itself.

    \b
    aimux limits grant user:alice cost_per_week=20 --until friday
    """
    name, amount = setting
    if not isinstance(amount, int | float):
        raise click.UsageError("A grant is of a number: write it like cost_per_week=20.")
    body = {"limit": name, "amount": amount, "until": until}
    grant = ask(config, lambda backend: backend.call("POST", f"{owner}/grants", body))
    if as_json:
        print_json(grant)
    else:
        more = _amount(name, grant["amount"])
        say(f"{grant['kind']}:{grant['name']} has {more} more of {name} until {_end(grant['until'])}.")


@limits_command.command("remove")
@click.argument("owner", metavar="OWNER", type=_owner, shell_complete=suggest.owners)
@config_option
@json_option
def remove_command(owner: str, config: Path | None, as_json: bool) -> None:
    """Remove an OWNER's own limits: the default holds from then on."""
    ask(config, lambda backend: backend.call("DELETE", owner))
    kind, name = _named(owner)
    told = f"{kind}:{name} has no limits of its own any more."
    tell({"kind": kind, "name": name, "removed": True}, as_json, told)


# --- what they share -------------------------------------------------------------------------------------------------


def _show(config: Path | None, owner: str | None, as_json: bool) -> None:
    async def read(backend: Backend) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await backend.call("GET", "/limits"))["items"]
        if owner is not None:
            await backend.call("GET", owner)  # says if there is nobody of that name
            items = [item for item in items if _path(item["kind"], item["name"]) == owner]
            holding = await backend.call("GET", f"{owner}/usage")
            if not items and (holding["items"] or holding["forbidden"]):
                kind, name = _named(owner)
                items = [{"kind": kind, "name": name, "configured": False, "limits": {}, "usage": []}]
            for item in items:
                item["holding"] = holding
        for item in items:
            path = f"{_path(item['kind'], item['name'])}/grants"
            item["grants"] = [] if item["kind"] == "default" else (await backend.call("GET", path))["items"]
        return items

    items = ask(config, read, changes=False)
    if as_json:
        print_json(items)
        return
    shown = [item for item in items if item["limits"] or "holding" in item]
    if not shown:
        click.echo(
            "There is no limit yet: aimux limits set user:NAME tokens_per_day=1M."
            if owner is None
            else "It has no limits of its own."
        )
    for item in shown:
        configured = " (in the configuration)" if item["configured"] else ""
        click.echo(f"{item['kind']}{':' if item['name'] else ''}{item['name']}{configured}")
        for line in [*_lines(item["limits"], item["usage"]), *_holding(item)]:
            say(f"  {line}", hang=4)
        for grant in item["grants"]:
            more = _amount(grant["limit"], grant["amount"])
            say(f"  granted: {grant['limit']} +{more} until {_end(grant['until'])}, by {grant['given_by']}", hang=4)


def _lines(limits: Mapping[str, Any], usage: Iterable[Mapping[str, Any]] = (), prefix: str = "") -> list[str]:
    """A line for each limit, with how much of it is used."""
    used = {(one["scope"], one["limit"]): one for one in usage}
    lines = []
    for name, value in limits.items():
        if name in {"providers", "models"}:
            for scope, inner in value.items():
                lines += _lines(inner, usage, f"{scope}: ")
        elif name == "each":
            lines += _lines(value, (), "each member: ")
        elif isinstance(value, str) or name == "weight":
            lines.append(f"{prefix}{name} {value if isinstance(value, str) else f'{value:g}'}")
        else:
            told = used.get((prefix.removesuffix(": "), name))
            lines.append(f"{prefix}{name} {_amount(name, value)}{_used(name, told) if told else ''}")
    return lines


def _holding(item: Mapping[str, Any]) -> list[str]:
    """A line for each limit that others set for an owner, and for what is refused now."""
    own, holding = f"{item['kind']}:{item['name']}", item.get("holding", {"items": (), "forbidden": ()})
    lines = []
    for one in holding["items"]:
        if one["set_by"] != own:
            scope = f"{one['scope']}: " if one["scope"] else ""
            name = one["limit"]
            lines.append(f"{scope}{name} {_amount(name, one['amount'])} ({one['set_by']}){_used(name, one)}")
    for one in holding["forbidden"]:
        scope = f"{one['scope']}: " if one["scope"] else ""
        if one["set_by"] != own:
            lines.append(f"{scope}{one['what']} forbid ({one['set_by']})")
        for now in one["refused"]:
            begun = f"since {_time(now['since'])}, " if now["since"] else ""
            lines.append(
                f"{now['provider']} refuses {now['model'] or 'every model'} {begun}until {_time(now['until'])}: "
                "nothing that is included is left"
            )
    return lines


def _used(name: str, told: Mapping[str, Any]) -> str:
    of = f" of {_amount(name, told['amount'])}" if told["amount"] else ""
    reset = f", until {_time(told['resets_at'])}" if told["resets_at"] else ""
    return f": {_amount(name, told['used'])}{of} used{reset}"


def _amount(name: str, value: float) -> str:
    from aimux.limits.rules import dollars

    return dollars(value) if name.startswith("cost") else f"{value:,g}" if value < 1e6 else f"{value:,.0f}"


def _end(text: str) -> str:
    """The end of a grant, in `limits.time_zone`, as the server gives it."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}"


def _time(text: str) -> str:
    """In the time of this machine, with its zone: days of limits begin in the zone of `limits.time_zone`."""
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M %Z}"
