"""The three ways in which a person signs in: a browser here, a code to paste, a code to type elsewhere."""

from __future__ import annotations

import asyncio
import sys
import threading
import webbrowser
from contextlib import nullcontext
from hmac import compare_digest
from typing import TYPE_CHECKING

import click
from yarl import URL

from aimux.accounts.login import LIFETIME, AuthorizationResponse, Finished, Logins, read_answer
from aimux.cli.asking import typed
from aimux.cli.loopback import loopback
from aimux.cli.words import say
from aimux.plugin import LoginError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aimux.plugin import DeviceCode, Http, Provider


async def with_browser(provider: Provider, http: Http) -> bytes:
    """Open a browser and wait for its return. Raises LoginError, NoPort."""
    async with loopback(provider.loopback_ports) as waiting:
        redirect_uri = provider.redirect_uri("loopback", waiting.port)
        logins: Logins[None] = Logins(http)
        started = logins.begin(provider, redirect_uri, None)
        click.echo(f"Sign in with your browser. If none opens, go to\n\n  {started.authorization_url}\n")
        waiting.expect(URL(redirect_uri).path, started.state)
        # Some browsers return from this only when their window is closed.
        threading.Thread(target=webbrowser.open, args=(started.authorization_url,), daemon=True).start()
        with _spinner("Waiting for the browser to come back (Ctrl-C ends it)"):
            try:
                async with asyncio.timeout(LIFETIME):
                    answer = await waiting.answer
            except TimeoutError:
                raise LoginError("nobody signed in within ten minutes: start again") from None
            return (await logins.finish(provider.instance, answer)).raw


async def with_paste(provider: Provider, http: Http) -> bytes:
    """Show the address and ask what the browser ended at, until that can be used."""
    logins: Logins[None] = Logins(http)
    while True:
        started = logins.begin(provider, provider.redirect_uri("paste", 0), None)
        click.echo(f"Sign in with any browser at\n\n  {started.authorization_url}\n")
        say("Then copy the code that it shows, or the address of the page that it ends at (which may not load).")
        answer = _pasted(started.state)
        try:
            return (await logins.finish(provider.instance, answer)).raw
        except LoginError as error:  # its code is used up, whatever was wrong
            say(f"That did not work: {error}.\n", err=True)


def _pasted(state: str) -> AuthorizationResponse:
    """What a person pastes, as soon as it belongs to the login that was begun with `state`."""
    while True:
        try:
            # Blocking is fine here: nothing else is under way.
            answer = read_answer(typed("Code or address"))
            if not answer.state:
                raise LoginError("that is only a part of the code: copy all of CODE#STATE, or the whole address")
            if not compare_digest(answer.state.encode(), state.encode()):
                raise LoginError("that belongs to another sign-in: use the address above, and what it ends with")
            return answer
        except LoginError as error:
            say(f"Once more, please: {error}.", err=True)


async def with_device(provider: Provider, http: Http) -> bytes:
    """Show the code and wait until it was typed. Raises LoginError."""
    logins: Logins[None] = Logins(http)
    name, device = await logins.device_begin(provider, None)
    click.echo(f"On any device, open\n\n  {device.verification_url}\n\nand type the code\n\n  {device.user_code}\n")
    with _spinner("Waiting for the code to be confirmed (Ctrl-C ends it)"):
        return (await _polled(logins, provider, name, device)).raw


async def _polled(logins: Logins[None], provider: Provider, name: str, device: DeviceCode) -> Finished[None]:
    while True:
        finished = await logins.device_poll(provider.instance, name)
        if finished is not None:
            return finished
        await asyncio.sleep(device.interval)


def _spinner(text: str) -> AbstractContextManager[object]:
    """A spinner on a terminal; a line of text elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console

        return Console(stderr=True).status(text)
    click.echo(f"{text} …", err=True)
    return nullcontext()
