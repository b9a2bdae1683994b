"""`aimux login`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from aimux.cli import suggest
from aimux.cli.asking import agreed, print_json, typed
from aimux.cli.options import AccountName, config_option, json_option
from aimux.cli.words import prose_on_stderr, say, sentence, warn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aimux.cli.calls import Backend
    from aimux.plugin import Http, Provider

Flow = Literal["loopback", "paste", "device"]


@click.command("login", short_help="Log in to a provider, and keep the account.")
@click.argument("provider", shell_complete=suggest.providers)
@click.argument("secrets", nargs=-1, metavar="")
@click.option(
    "--account",
    type=AccountName(),
    metavar="NAME",
    help="The account's name; without it: default, or one after the person.",
)
@click.option("--device", is_flag=True, help="Type a code on another device.")
@click.option("--no-browser", is_flag=True, help="Open no browser here: sign in anywhere, and paste what comes of it.")
@click.option("--setup-token", is_flag=True, help="Keep a long-lived token of the vendor's CLI.")
@click.option("--api-key", is_flag=True, help="Keep an API key.")
@click.option("--force", is_flag=True, help="Replace an account of that name without asking.")
@config_option
@json_option
def login_command(
    provider: str,
    secrets: tuple[str, ...],
    account: str | None,
    device: bool,
    no_browser: bool,
    setup_token: bool,
    api_key: bool,
    force: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Log in to PROVIDER (claude, chatgpt, …), and keep the account.

    On a desktop a browser opens. Over SSH or without a display you type a code on another device, or paste one here.
    Tokens and keys are asked for, or read from stdin, never from the command line, where everybody could read them. The
    vendor is asked about them first: what it refuses is not kept.
    """
    if secrets:
        # Not repeated: it may well be a secret.
        raise click.UsageError("Give one PROVIDER. A token or key is asked for, or read from stdin.")
    if device + no_browser + setup_token + api_key > 1:
        raise click.UsageError("--device, --no-browser, --setup-token and --api-key exclude each other.")
    wanted: Flow | None = "device" if device else "paste" if no_browser else None
    kind: Literal["setup_token", "api_key"] | None = "setup_token" if setup_token else "api_key" if api_key else None
    with prose_on_stderr(as_json):
        saved = asyncio.run(_login(provider, account, wanted, kind, config, force=force))
    if as_json:
        print_json(saved)


async def _login(
    name: str,
    account: str | None,
    wanted: Flow | None,
    kind: Literal["setup_token", "api_key"] | None,
    config: Path | None,
    *,
    force: bool,
) -> dict[str, Any]:
    from aimux.accounts import ControlHttp
    from aimux.cli.backend import backend
    from aimux.cli.calls import Setting
    from aimux.plugin import CredentialError, LoginError

    setting = Setting(config)
    provider = setting.provider(name)
    flow = None if kind else choose_flow(provider, wanted, os.environ)
    http = ControlHttp()
    try:
        async with backend(setting) as opened:
            if account is not None and not force:
                force = await _confirmed(opened, name, account)
            body: dict[str, Any]
            if kind is not None:
                body = {kind: read_secret("Setup token" if kind == "setup_token" else "API key"), "check": True}
            else:
                assert flow is not None
                body = {"file": (await sign_in(provider, flow, http)).decode()}
            body |= {"provider": name, "name": account, "replace": force}
            return await save(opened, body, fresh=flow is not None)
    except (LoginError, CredentialError) as error:
        raise click.ClickException(str(error)) from None
    finally:
        await http.close()


def choose_flow(provider: Provider, wanted: Flow | None, environ: Mapping[str, str]) -> Flow:
    """The flow that the person asked for, else one that this machine allows. Ends the command if there is none."""
    offered = provider.login_flows
    if wanted is not None:
        if wanted not in offered:
            there = ", ".join(sorted(offered)) or "only --api-key"
            raise click.UsageError(f"{provider.instance} has no such login ({wanted}); it has: {there}.")
        return wanted
    away = "SSH_CONNECTION" in environ or "SSH_TTY" in environ
    display = sys.platform == "darwin" or any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    order: list[Flow] = ["loopback", "paste", "device"] if display and not away else ["device", "paste", "loopback"]
    for flow in order:
        if flow in offered:
            return flow
    raise click.UsageError(f"{provider.instance} has no login with a browser: use --api-key.")


async def sign_in(provider: Provider, flow: Flow, http: Http) -> bytes:
    """Run a flow, and return the credential file that results. Raises LoginError."""
    from aimux.cli import signin
    from aimux.cli.loopback import NoPort

    if flow == "device":
        if "paste" in provider.login_flows:
            say("(With --no-browser you paste a code here instead.)", err=True)
        return await signin.with_device(provider, http)
    if flow == "loopback":
        try:
            return await signin.with_browser(provider, http)
        except NoPort as error:
            say(sentence(f"The browser could not come back: {error}"), err=True)
    return await signin.with_paste(provider, http)


def read_secret(what: str) -> str:
    """From a hidden prompt, or from stdin if that is not a terminal."""
    secret = typed(what, hide_input=True) if sys.stdin.isatty() else sys.stdin.read(65536)
    secret = secret.strip().removeprefix("\ufeff").strip()  # a pipe of Windows may begin with a byte order mark
    if not secret:
        raise click.UsageError(f"{what}: there is none on stdin.")
    if any(mask in secret for mask in ("...", "…", "***", "•")):
        raise click.UsageError(f"{what}: that is how one is shown, with its middle left out. Copy the whole of it.")
    return secret


async def _confirmed(backend: Backend, provider: str, account: str) -> bool:
    """Before the person logs in: whether to replace an account of that name. Ends the command if not."""
    from urllib.parse import quote

    from aimux.cli.calls import ApiRefused

    try:
        await backend.call("GET", f"/accounts/{provider}/{quote(account, safe='')}")
    except ApiRefused as refused:
        if refused.word == "not-found":
            return False
        raise
    ask_to_replace(f"{provider}/{account}")
    return True


def ask_to_replace(full: str) -> None:
    """End the command unless the person agrees."""
    if not sys.stdin.isatty():
        raise click.ClickException(f"there is an account {full} already: --force replaces it, --account names another")
    agreed(f"There is an account {full} already. Replace its login?")


async def save(backend: Backend, body: dict[str, Any], *, fresh: bool = False) -> dict[str, Any]:
    """Add the account, ask if it would replace another one, and print the result. Returns the account.

    `fresh`: a person has just made this login. If nobody is there to ask, it replaces its older self.
    """
    from aimux.cli.accounts import report
    from aimux.cli.calls import ApiRefused

    try:
        account: dict[str, Any] = await backend.call("POST", "/accounts", body)
    except ApiRefused as refused:
        if refused.word != "account-exists" or refused.problem.account is None:
            raise
        if sys.stdin.isatty() or not fresh or body["name"] is not None:
            ask_to_replace(refused.problem.account)
        name = refused.problem.account.partition("/")[2]
        account = await backend.call("POST", "/accounts", body | {"name": name, "replace": True})
    report(account)
    if body.get("check"):
        await _try(backend, account)
    return account


async def _try(backend: Backend, account: dict[str, Any]) -> None:
    """Say whether it works: the vendor does not refuse it, but may not have been reached."""
    tested = await backend.call("POST", f"/accounts/{account['provider']}/{account['name']}/test")
    if tested["ok"]:
        say(f"It works: {tested['status']} after {tested['seconds']:.2f} s.")
    else:
        warn(f"it is kept, and could not be tried: {tested['reason']}")
