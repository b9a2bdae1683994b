"""What `aimux serve` says once it listens."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from aimux import __version__
from aimux.cli.streams import give_up_stdout
from aimux.cli.words import say
from aimux.control.key import KEY_FILE
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimux.app import App

PATIENCE = 5.0
"""Seconds that the banner waits for a link."""


async def print_banner(app: App) -> None:
    """Print it to stdout, if possible at once. Not with JSON logs, because collectors read both streams as one."""
    if app.config.log_format == "text":
        # A sign-in link, too, is only for the person at the terminal.
        link = await _link(app) if sys.stdout.isatty() and not app.addresses[0].startswith("unix:") else None
        try:
            say("\n".join(banner_lines(app, time.time(), link)), hang=12)
            sys.stdout.flush()
        except OSError as error:
            give_up_stdout(error)


def banner_lines(app: App, now: float, link: str | None = None) -> Iterator[str]:
    """The lines for a running app. `now`: unix seconds; `link` signs in to the dashboard."""
    yield f"aimux {__version__} listens on {', '.join(app.addresses)}"
    mounts = app.gateway.setup.mounts.mounts
    yield from _block("mounts", [f"{mount.prefix or '/'} → {mount.provider}" for mount in mounts])
    if app.tls is not None:
        yield from _block("tls", [f"certificate's SHA-256 {app.tls.fingerprint}"])
    yield from _block("accounts", list(_accounts(app, now)))
    yield from _block("users", [_users(app)])
    yield from _block("missing", list(_missing(app)))
    yield from _block("admin key", list(_admin_key(app)))
    yield from _block("dashboard", list(_dashboard(app, link)))


def _block(title: str, lines: list[str]) -> Iterator[str]:
    for index, line in enumerate(lines):
        yield f"  {title if index == 0 else '':<9} {line}"


def _accounts(app: App, now: float) -> Iterator[str]:
    for account in app.accounts():
        state, credential = account.state(now), account.credential
        about = ", ".join(part for part in (account.kind, account.plan) if part)
        stale = state.status == "healthy" and credential is not None and credential.expires_within(0, now)
        why = ": ".join(part for part in ("expired, to be renewed" if stale else state.status, state.reason) if part)
        yield f"{account.provider}/{account.name} ({about or 'no credential'}): {why}" + (
            f" ({state.remedy})" if state.remedy else ""
        )


def _users(app: App) -> str:
    if count := len(app.people.directory.users):
        return f"{count}"
    if app.config.allow_anonymous:
        return "none: everyone is served"
    return "none: only this machine is served, until there is one: aimux users add NAME"


def _admin_key(app: App) -> Iterator[str]:
    """Shows it once, and only on a terminal: journals and containers' logs have other readers."""
    if app.made_key is not None:
        path = app.config.state_dir / KEY_FILE
        yield f"{app.made_key} (kept in {path}, not shown again)" if sys.stdout.isatty() else f"in {path}"


async def _link(app: App) -> str | None:
    """None if the database gives none soon enough: somebody is waiting for the rest of the banner."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await app.sign_in_link()
    except (StorageError, TimeoutError):
        return None


def _dashboard(app: App, link: str | None) -> Iterator[str]:
    if app.addresses[0].startswith("unix:"):
        yield "at /dashboard; `aimux dashboard` prints a link that signs you in"
    elif link is not None:
        yield f"{link} (once, within five minutes)"
    else:
        yield f"{app.addresses[0]}/dashboard; `aimux dashboard` prints a link that signs you in"


def _missing(app: App) -> Iterator[str]:
    for mount in app.gateway.setup.mounts.mounts:
        if not app.pools[mount.provider].accounts:
            yield f"{mount.provider} has no account: aimux login {mount.provider}{_place(app, mount.provider)}"
    if not app.gateway.setup.mounts.mounts:
        none = (
            "none is installed; see aimux providers" if app.config.providers is None else "the configuration names none"
        )
        yield f"providers: {none}"


def _place(app: App, name: str) -> str:
    if app.config.database.url is not None:
        return ""  # accounts are rows
    file = app.gateway.setup.routes[name].provider.credential_file
    return f", or put one at {app.config.state_dir / name / file}"
