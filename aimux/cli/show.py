"""How accounts look on a terminal and in a pipe."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aimux.cli.asking import fits, print_lines, print_table
from aimux.cli.words import warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

COLUMNS = ("PROVIDER", "NAME", "KIND", "PLAN", "STATE", "EXPIRES", "LIMITS (RESET IN)", "LAST USED")
EVERYBODY = "everybody"
_STYLES = {"healthy": "green", "cooling": "yellow", "parked": "bold red", "disabled": "dim"}


def account_row(account: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    """One cell for each of COLUMNS. Limits are separated by ", "."""
    limits = [w for w in account["limits"] if w["used"] is not None or w["status"] == "rejected"]
    return (
        account["provider"],
        account["name"],
        account["kind"] or "-",
        account["plan"] or "-",
        state(account, now),
        expiry(account, now),
        ", ".join(limit(window, now) for window in limits) or "-",
        ago(account["last_used"], now),
    )


def state(account: Mapping[str, Any], now: datetime) -> str:
    """The status, why, and what to do about it."""
    return ": ".join(part for part in (status(account, now), why(account)) if part)


def status(account: Mapping[str, Any], now: datetime) -> str:
    """The status alone: `cooling for 48 min`."""
    return f"{account['status']}" + (f" for {span(account['until'], now)}" if account["until"] else "")


def why(account: Mapping[str, Any]) -> str:
    """The reason, and the remedy behind an arrow."""
    return f"{account['reason']}" + (f" → {account['remedy']}" if account["remedy"] else "")


def same_login(account: Mapping[str, Any]) -> str:
    """Which other accounts have the very same login, and what follows from that."""
    others = " and ".join(f"{account['provider']}/{name}" for name in account["same_as"])
    so = (
        "of two copies the one that is renewed second is logged out"
        if account["renewable"]
        else "they share its limits"
    )
    return f"has the same login as {others}: {so}. Keep one: aimux accounts remove"


def expiry(account: Mapping[str, Any], now: datetime) -> str:
    """When its access token ends, and whether that matters."""
    if account["expires_at"] is None:
        return "-"
    left = _seconds(account["expires_at"], now)
    text = f"in {_span(left)}" if left > 0 else f"{_span(-left)} ago"
    return text if account["renewable"] else f"{text} (for good)"


def expires_or_expired(account: Mapping[str, Any], now: datetime) -> str:
    """`expires in 5 h`, or `expired 2 h ago`."""
    over = _seconds(account["expires_at"], now) <= 0
    return f"{'expired' if over else 'expires'} {expiry(account, now)}"


def limit(window: Mapping[str, Any], now: datetime) -> str:
    """`5h 42 % (2 h)`."""
    used = window["status"] if window["used"] is None else f"{window['used'] * 100:.0f} %"
    resets = f" ({span(window['resets_at'], now)})" if window["resets_at"] else ""
    return f"{window['name']} {used}{resets}"


def ago(when: str | None, now: datetime) -> str:
    """`3 min ago`, or `never`."""
    return "never" if when is None else f"{_span(-_seconds(when, now))} ago"


def span(when: str, now: datetime) -> str:
    """From now until then."""
    return _span(_seconds(when, now))


def _seconds(when: str, now: datetime) -> float:
    return (datetime.fromisoformat(when) - now).total_seconds()


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def accounts_table(accounts: Sequence[Mapping[str, Any]]) -> None:
    """Print them: on a terminal a table with the reasons below it, in a pipe aligned columns with everything."""
    now = datetime.now(UTC)
    if sys.stdout.isatty():
        _on_terminal(accounts, now)
        return
    columns: tuple[str, ...] = COLUMNS
    rows: list[tuple[str, ...]] = [account_row(account, now) for account in accounts]
    if any(account["serves"] != EVERYBODY for account in accounts):
        columns = (*columns, "SERVES")
        rows = [(*row, account["serves"]) for row, account in zip(rows, accounts, strict=True)]
    print_table(columns, rows)
    for account in accounts:
        if account["same_as"]:
            warn(f"{account['provider']}/{account['name']} {same_login(account)}")


def _on_terminal(accounts: Sequence[Mapping[str, Any]], now: datetime) -> None:
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    blocks: list[RenderableType] = []
    for account in accounts:
        provider, name, kind, plan, _, expires, limits, used = account_row(account, now)
        told = Text(status(account, now), _STYLES[account["status"]])
        table.add_row(provider, name, kind, plan, told, expires, limits.replace(", ", "\n"), used)
        about = f"{kind}, {plan}" if plan != "-" else kind
        dates = ([] if expires == "-" else [expires_or_expired(account, now)]) + [
            "never used" if used == "never" else f"used {used}"
        ]
        blocks += [
            Text.assemble((f"{provider}/{name}", "bold"), f" ({about})"),
            Padding(Text.assemble(told, f", {', '.join(dates)}"), (0, 0, 0, 2)),
            *([] if limits == "-" else [Padding(Text(limits), (0, 0, 0, 2))]),
        ]
    console.print(table if fits(table, console) else Group(*blocks))
    for account in accounts:
        full = f"{account['provider']}/{account['name']}"
        if reason := why(account):
            console.print(Text.assemble("\n", (f"{full}: ", "bold"), reason.removeprefix(f"{full}: ")))
        if account["same_as"]:
            console.print(Text.assemble("\n", (full, "bold"), f" {same_login(account)}"))
        if account["serves"] != EVERYBODY:
            console.print(Text.assemble("\n", (full, "bold"), f" serves {account['serves']}."))


def account_lines(account: Mapping[str, Any], users: Sequence[str]) -> None:
    """Print all that is known about one. `users`: those who can reach it."""
    now = datetime.now(UTC)
    lines = {
        "kind": account["kind"] or "unknown: its credential can't be read",
        "plan": account["plan"],
        "email": account["email"],
        "organization": account["organization"],
        "state": state(account, now),
        "expires": expiry(account, now) + (", aimux renews it" if account["renewable"] else ""),
        "limits": "\n".join(limit(window, now).replace("(", "(resets in ") for window in account["limits"]),
        "last used": ago(account["last_used"], now),
        "in flight": str(account["in_flight"]),
        "weight": f"{account['weight']:g}, priority {account['priority']}"
        + (" (by the configuration)" if account["settings_configured"] else ""),
        "groups": ", ".join(account["groups"]),
        "serves": account["serves"],
        "reached by": _some(users),
        "shared": account["shared_with"],
        "same login": ", ".join(account["same_as"]),
        "set in": "the configuration" if account["configured"] else None,
    }
    print_lines(f"{account['provider']}/{account['name']}", {name: value or "" for name, value in lines.items()})


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
