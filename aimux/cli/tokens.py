"""`aimux tokens`: the secrets by which users call."""

from __future__ import annotations

import hashlib
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import click

from aimux.cli import suggest
from aimux.cli.asking import ask, confirm, every, print_json, print_table, tell
from aimux.cli.options import config_option, json_option, refuse_json
from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aimux.cli.calls import Backend

PORTION = 1000
"""Tokens that the API takes over at once."""
_LINE = re.compile(
    r"(?:-\s+)?(?:token_sha256\s*[:=]\s*)?['\"]?(?P<sha256>[0-9a-fA-F]{64})['\"]?(?:\s+(?P<user>\S+))?(?:\s+(?P<label>.*))?"
)


@click.group("tokens", invoke_without_command=True, short_help="Issue, show and revoke users' tokens.")
@config_option
@json_option
@click.pass_context
def tokens_command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Show the tokens: whose they are, what for, until when, and when they were last used."""
    if as_json:
        refuse_json(context, tokens_command)
    if context.invoked_subcommand is None:
        _list(config, None, as_json)


@tokens_command.command("list")
@click.option("--user", metavar="NAME", shell_complete=suggest.users, help="Only this user's.")
@config_option
@json_option
def list_command(user: str | None, config: Path | None, as_json: bool) -> None:
    """Show the tokens."""
    _list(config, user, as_json)


@tokens_command.command("issue")
@click.option("--user", required=True, metavar="NAME", shell_complete=suggest.users, help="Whose it is.")
@click.option("--label", default="", metavar="LABEL", help="What it is for: a laptop, a job.")
@click.option("--ttl", metavar="TIME", help="How long it lasts: 30d, 12h. Without it, until it is revoked.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="What it is for: a provider, model:PATTERN; repeated."
)
@config_option
@json_option
def issue_command(
    user: str, label: str, ttl: str | None, scopes: tuple[str, ...], config: Path | None, as_json: bool
) -> None:
    """Issue a token. It is printed only this once, alone on stdout."""
    body = {"user": user, "label": label, "ttl": ttl, "scopes": list(scopes)}
    _show_issued(ask(config, lambda backend: backend.call("POST", "/tokens", body)), as_json)


@tokens_command.command("rotate", short_help="Replace a token by a new one.")
@click.argument("name", metavar="ID")
@click.option("--overlap", metavar="TIME", help="How long the old one stays good: 1h. Without it, not at all.")
@click.option("--ttl", metavar="TIME", help="How long the new one lasts. Without it, as long as the old one was to.")
@config_option
@json_option
def rotate_command(name: str, overlap: str | None, ttl: str | None, config: Path | None, as_json: bool) -> None:
    """Replace a token by a new one with the same user, label and scopes."""
    body = {"overlap": overlap, "ttl": ttl}
    _show_issued(ask(config, lambda backend: backend.call("POST", f"/tokens/{_id(name)}/rotate", body)), as_json)


@tokens_command.command("revoke", short_help="Revoke a token for good.")
@click.argument("name", metavar="ID", required=False)
@click.option("--subject", metavar="SUB", help="Whose tokens, signed elsewhere (auth.jwt), are no longer accepted.")
@config_option
@json_option
def revoke_command(name: str | None, subject: str | None, config: Path | None, as_json: bool) -> None:
    """Revoke a token for good, by its ID; with "-" the token itself is read from stdin.

    Within a second it is refused everywhere, and its open requests end.
    """
    if (name is None) == (subject is None):
        raise click.UsageError("Give an ID, - or --subject.")
    if subject is not None:
        revoked = ask(config, lambda backend: backend.call("POST", "/revocations", {"subject": subject}))
        tell(revoked, as_json, f"Tokens of the subject {subject} are no longer accepted.")
        return
    assert name is not None
    secret = sys.stdin.readline().strip() if name == "-" else None

    async def revoke(backend: Backend) -> str:
        known = _id(name) if secret is None else await _of_secret(backend, secret)
        await backend.call("DELETE", f"/tokens/{known}")
        return known

    known = ask(config, revoke)
    tell({"id": known, "revoked": True}, as_json, f"{known} is revoked.")


@tokens_command.command("restore")
@click.option("--subject", required=True, metavar="SUB", help="Whose tokens, signed elsewhere, are accepted again.")
@config_option
@json_option
def restore_command(subject: str, config: Path | None, as_json: bool) -> None:
    """Accept a subject's tokens again (auth.jwt). A revoked token of aimux's own stays revoked."""
    ask(config, lambda backend: backend.call("DELETE", "/revocations", query={"subject": subject}))
    tell({"subject": subject}, as_json, f"Tokens of the subject {subject} are accepted again.")


@tokens_command.command("import", short_help="Take over tokens that people already have.")
@click.argument("file", type=click.File())
@click.option("--user", metavar="NAME", shell_complete=suggest.users, help="Whose those are that name nobody.")
@click.option("--yes", is_flag=True, help="Add users that are not there without asking.")
@config_option
@json_option
def import_command(file: Any, user: str | None, yes: bool, config: Path | None, as_json: bool) -> None:
    """Take over tokens that people already have, from a FILE of their SHA-256s (- is stdin).

    \b
    Each line: the SHA-256 in hex, the user, and a label if you like.
        3f0a377ba0a4…  ann  laptop
    printf %s "$TOKEN" | sha256sum makes one. Those that are known are left as they are.
    """
    wanted = list(_lines(file, user))
    if not wanted:
        raise click.UsageError("There is no token in the file.")

    async def take(backend: Backend) -> list[dict[str, Any]]:
        known = {user["name"] for user in await every(backend, "/users")}
        missing = sorted({line.user for line in wanted} - known)
        if missing:
            told = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            confirm(f"Add {told}?", yes=yes, what=f"there is no user {told}")
        for name in missing:
            await backend.call("POST", "/users", {"name": name})
        added: list[dict[str, Any]] = []
        for start in range(0, len(wanted), PORTION):
            tokens = [line._asdict() for line in wanted[start : start + PORTION]]
            added += (await backend.call("POST", "/tokens/import", {"tokens": tokens}))["items"]
        return added

    added = ask(config, take)
    if as_json:
        print_json({"items": added})
    else:
        known = f", {len(wanted) - len(added)} were known" if len(added) < len(wanted) else ""
        count = "1 token is" if len(added) == 1 else f"{len(added)} tokens are"
        click.echo(f"{count} taken over{known}.")


class Line(NamedTuple):
    """A token of the file."""

    sha256: str
    user: str
    label: str


def _lines(file: Any, user: str | None) -> Iterator[Line]:
    for number, text in enumerate(file, 1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(text.strip())
        if match is None:
            raise click.UsageError(f"Line {number} does not begin with a SHA-256 in hex (64 digits).")
        name = match["user"] if match["user"] not in {None, "-"} else user  # sha256sum writes a "-"
        if name is None:
            raise click.UsageError(f"Line {number} names no user: write one behind the SHA-256, or give --user.")
        yield Line(match["sha256"].lower(), name, match["label"] or "")


async def _of_secret(backend: Backend, secret: str) -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    found = await every(backend, "/tokens", sha256=digest)
    if not found:
        raise click.ClickException("this token is not known here")
    return str(found[0]["id"])


def _id(name: str) -> str:
    # Not repeated where it is none: it may well be the token itself.
    if not re.fullmatch(r"[A-Za-z0-9]{2,8}_[A-Za-z0-9]{1,32}", name):
        raise click.UsageError("An ID looks like tok_… (aimux tokens list shows them); - reads the token from stdin.")
    return name


def _show_issued(issued: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(issued)
        return
    until = f", good until {issued['expires_at']}" if issued["expires_at"] else ""
    say(f"{issued['id']} of {issued['user']}{until}. It is shown this once:", err=True)
    click.echo(issued["token"])


def _list(config: Path | None, user: str | None, as_json: bool) -> None:
    from aimux.cli.show import ago

    async def read(backend: Backend) -> list[dict[str, Any]]:
        if user is not None:
            await backend.call("GET", f"/users/{quote(user, safe='')}")  # says if there is nobody of that name
        return await every(backend, "/tokens", user=user)

    tokens = ask(config, read, changes=False)
    if as_json:
        print_json({"items": tokens})
    elif not tokens:
        click.echo("There is no token yet: aimux tokens issue --user NAME.")
    else:
        now = datetime.now(UTC)
        rows = [
            (
                token["id"],
                token["user"],
                token["label"] or "-",
                f"{token['shown']}…" if token["shown"] else "-",
                ", ".join(token["scopes"]) or "-",
                _state(token, now),
                ago(token["used_at"], now) + (f" from {token['used_from']}" if token["used_from"] else ""),
            )
            for token in tokens
        ]
        print_table(("ID", "USER", "LABEL", "TOKEN", "SCOPES", "STATE", "LAST USED"), rows)


def _state(token: Mapping[str, Any], now: datetime) -> str:
    if token["state"] != "active":
        return str(token["state"])
    from aimux.cli.show import span

    until = ""
    if token["expires_at"]:
        soon = datetime.fromisoformat(token["expires_at"]) - now < timedelta(days=2)
        until = f" for {span(token['expires_at'], now)}" if soon else f" until {token['expires_at'][:10]}"
    return f"active{until}" + (", in the configuration" if token["configured"] else "")
