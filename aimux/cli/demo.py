"""`aimux demo`: the real gateway in front of the simulator, and commands to try."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aimux.app import App
    from aimux.logs import Logs

TOKEN = "demo-token-for-the-simulator"  # noqa: S105 - it opens nothing but the simulator


@click.command("demo", short_help="Run the gateway with a simulator as its upstream.")
@click.option("--listen", envvar="AIMUX_LISTEN", default="127.0.0.1:8080", show_default=True, help="Where to listen.")
def demo_command(listen: str) -> None:
    """Run the gateway with a simulator as its upstream, a demo account of each provider and a demo user.

    Nothing leaves this machine, and nothing is kept afterwards.
    """
    run_demo(listen)


def run_demo(listen: str) -> None:
    """Until SIGTERM or Ctrl-C."""
    import uvloop

    from aimux.cli.demo_folder import demo_folder
    from aimux.cli.options import ConfigRefused
    from aimux.config import ConfigError
    from aimux.front.listening import ListenError
    from aimux.logs import Logs

    logs = Logs()
    try:
        with demo_folder() as folder:
            uvloop.run(_demo(listen, folder, logs))
    except ConfigError as error:
        raise ConfigRefused(error) from None
    except ListenError as error:
        raise click.ClickException(str(error)) from None
    finally:
        logs.close()


async def _demo(listen: str, state_dir: Path, logs: Logs) -> None:
    from aimux.app import App, serve
    from aimux.cli import demo_data
    from aimux.cli.banner import print_banner
    from aimux.config import parse_config
    from aimux.plugin.loader import load_plugins
    from aimux.simulator import Simulator, demo_files

    plugins = load_plugins()
    async with Simulator(keep=0) as simulator:
        files = demo_files(simulator)
        logins = demo_data.logins(simulator)

        def api_key_file(name: str) -> bytes:
            provider = plugins.providers[name]
            return provider(provider.Settings()).api_key_file(files.api_keys[name])

        credentials = {
            ("claude", ""): files.credentials["claude"],
            ("claude", "second"): api_key_file("claude"),
            # A ChatGPT subscription serves Codex only; with an API key the SDKs' plain calls work as well.
            ("chatgpt", ""): api_key_file("chatgpt"),
            **logins,
        }
        for (name, account), content in credentials.items():
            path = state_dir / name / account / plugins.providers[name].credential_file
            path.parent.mkdir(mode=0o700)
            path.write_bytes(content)
            path.chmod(0o600)
        team = demo_data.settings()
        providers = {name: {**team["providers"][name], **found} for name, found in files.settings.items()}
        data = {
            "listen": listen,
            "state_dir": str(state_dir),
            **team,
            "providers": providers,
            "users": [{"name": "demo", "token": TOKEN, "pin_accounts": True}, *team["users"]],
        }
        # The environment may configure the real gateway: its state and keys have no place here.
        environ = {name: value for name, value in os.environ.items() if re.match("(?!AIMUX_)|AIMUX_LOG_", name)}
        app = App(lambda: parse_config(data, environ=environ, providers=plugins.providers), plugins, logs, os.environ)
        with _to_be_found(state_dir) as told:

            async def greet(app: App) -> None:
                try:
                    await demo_data.look(app, TOKEN)
                finally:  # after the log lines about that, which would push it out of sight
                    _announce(app.addresses[0], simulator.url, await app.sign_in_link())

            async def announce(app: App) -> None:
                told(app.addresses[0].removeprefix("http://"))
                await print_banner(app)
                app.run(greet(app))
                app.run(demo_data.remember(app))
                if not app.config.listen.unix_path:
                    app.run(demo_data.chatter(app))

            await serve(app, announce)


# --- for the commands in another terminal ----------------------------------------------------------------------------


class RunningDemo(NamedTuple):
    """A running demo of this user: its address, as in `listen`, and its state folder."""

    listen: str
    state_dir: Path


def running_demo() -> RunningDemo | None:
    """The demo that was started last, if it still runs."""
    try:
        told = json.loads(_place().read_text(encoding="utf-8"))
        os.kill(told["pid"], 0)
        return RunningDemo(told["listen"], Path(told["state_dir"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _place() -> Path:
    folder = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder, "aimux", "demo.json")


@contextmanager
def _to_be_found(state_dir: Path) -> Iterator[Callable[[str], None]]:
    """Yields a function to call with the address, once it listens. If nothing can be written, nobody finds the demo."""
    place = _place()

    def told(listen: str) -> None:
        with suppress(OSError):
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.write_text(json.dumps({"pid": os.getpid(), "listen": listen, "state_dir": str(state_dir)}))

    try:
        yield told
    finally:
        if (found := running_demo()) is not None and found.state_dir == state_dir:
            with suppress(OSError):
                place.unlink()


# --- what is said ----------------------------------------------------------------------------------------------------


def _announce(address: str, simulator: str, link: str) -> None:
    say(f"\nThis is a demo: a simulator at {simulator} plays Anthropic and OpenAI, and a team has used it for a month.")
    if not address.startswith("unix:"):
        say(f"\nThe dashboard, signed in (this link works once, for five minutes):\n  {link}")
    say("\nTry, in another terminal:")
    click.echo("\n".join(_commands(address)))
    program = sys.argv[0] if "/" in sys.argv[0] and not Path(sys.argv[0]).is_absolute() else "aimux"
    say(
        f"\nHow a request went: {program} why ID (its x-request-id); the accounts: {program} accounts.\n"
        f"Ctrl-C ends it. For accounts of your own: {program} login claude (or chatgpt), or {program} import; then"
        f" {program}."
    )


def _commands(address: str) -> Iterator[str]:
    """Commands that work as they stand, in another terminal."""
    unix = address.startswith("unix:")
    curl = f"curl --unix-socket {address.removeprefix('unix:')}" if unix else "curl"
    url = "http://localhost" if unix else address
    headers = f'-H "Authorization: Bearer {TOKEN}" -H "Content-Type: application/json"'
    version = '-H "anthropic-version: 2023-06-01"'
    hello = '"messages": [{"role": "user", "content": "Hello!"}]'
    yield ""
    yield "# an answer at once, and two as streams"
    for stream, flag in (("", ""), (', "stream": true', "-N ")):
        body = f'{{"model": "claude-sonnet-5", "max_tokens": 100, {hello}{stream}}}'
        yield f"{curl} {flag}{url}/claude/v1/messages {headers} {version} -d '{body}'"
    body = '{"model": "gpt-5.5", "input": "Hello!", "stream": true}'
    yield f"{curl} -N {url}/chatgpt/v1/responses {headers} -d '{body}'"
    if unix:
        return
    yield ""
    yield "# Claude Code"
    yield f'ANTHROPIC_BASE_URL={url}/claude ANTHROPIC_AUTH_TOKEN={TOKEN} claude -p "Hello!"'
    yield ""
    yield "# Codex"
    entry = f'{{name="aimux", base_url="{url}/chatgpt/v1", wire_api="responses", env_key="AIMUX_TOKEN"}}'
    yield f"AIMUX_TOKEN={TOKEN} codex exec --skip-git-repo-check -c model_provider=aimux -c model=gpt-5.5 \\"
    yield f"  -c 'model_providers.aimux={entry}' \"Hello!\""
    yield ""
    yield "# the SDKs (pip install anthropic openai)"
    client = f'Anthropic(base_url="{url}/claude", api_key="{TOKEN}")'
    call = 'messages.create(model="claude-sonnet-5", max_tokens=100, messages=[{"role": "user", "content": "Hello!"}])'
    yield f"python3 -c 'from anthropic import Anthropic; print({client}.{call}.content[0].text)'"
    client = f'OpenAI(base_url="{url}/chatgpt/v1", api_key="{TOKEN}")'
    call = 'responses.create(model="gpt-5.5", input="Hello!")'
    yield f"python3 -c 'from openai import OpenAI; print({client}.{call}.output_text)'"
