"""`aimux simulator`: the fake upstreams on their own, for a gateway in another process, an SDK, or curl."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from aimux.simulator import DemoFiles, Simulator

MARK = "# Written by `aimux simulator`; written anew each time it starts.\n"


def _scenario(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    from aimux.simulator import UnknownScenario, parse

    try:
        parse(value or "")
    except UnknownScenario as error:
        raise click.BadParameter(f"{error}. See --scenarios.") from None
    return value


def _table(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from aimux.simulator import scenarios

        click.echo((scenarios.__doc__ or "").strip())
        context.exit()


@click.command("simulator", short_help="Run the fake upstreams on their own.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=9100, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free one.")
@click.option("--scenario", callback=_scenario, help="What requests get that choose nothing themselves.")
@click.option(
    "--capacity", type=click.FloatRange(min=1), help="Tokens an account may use in five hours (default: no end)."
)
@click.option(
    "--write",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a gateway's config.yaml here.",
)
@click.option(
    "--scenarios", is_flag=True, is_eager=True, expose_value=False, callback=_table, help="List the scenarios and exit."
)
def simulator_command(host: str, port: int, scenario: str | None, capacity: float | None, folder: Path | None) -> None:
    """Run fake Anthropic, OpenAI and ChatGPT upstreams, with their OAuth servers, on one port.

    They check credentials, count usage and refuse as the real ones do, and fail in any way on request: by the header
    `x-simulator`, or with --scenario. There is no model behind them.
    """
    import uvloop

    uvloop.run(_run(host, port, scenario, capacity, folder))


async def _run(host: str, port: int, scenario: str | None, capacity: float | None, folder: Path | None) -> None:
    from aimux.simulator import Simulator

    simulator = Simulator(host, port, scenario=scenario, capacity=capacity or math.inf, keep=0)
    try:
        await simulator.start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise click.ClickException(f"can't listen on {host} port {port}: {reason}; try another --port") from None
    try:
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        _announce(simulator, folder)
        await ended.wait()
    finally:
        await simulator.close()


def _announce(simulator: Simulator, folder: Path | None) -> None:
    from aimux.simulator import demo_files

    files = demo_files(simulator)
    lines = [f"The simulator listens on {simulator.url}"]
    for name, settings in files.settings.items():
        lines.append(f"  {name}")
        lines += [f"    {key}: {value}" for key, value in settings.items()]
        lines.append(f"    api_key: {files.api_keys[name]}")
    if folder is not None:
        try:
            lines.append(f"A gateway for it: aimux serve --config {_write(files, folder)}")
        except OSError as error:
            raise click.ClickException(f"can't write to {folder}: {error.strerror}") from None
    click.echo("\n".join(lines))


def _write(files: DemoFiles, folder: Path) -> Path:
    """Write a configuration with an OAuth account and an API key for each provider; its state folder is beside it."""
    import yaml

    from aimux.plugin.loader import load_plugins

    config, state = folder / "config.yaml", folder / "state"
    if config.exists() and not config.read_text().startswith(MARK):
        raise click.ClickException(f"{config} is not the simulator's: name another folder")
    providers = load_plugins().providers
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.credentials.items():
        place = state / name
        place.mkdir(mode=0o700, exist_ok=True)
        path = place / providers[name].credential_file
        path.touch(mode=0o600)
        path.write_bytes(content)
    settings = {name: {**files.settings[name], "api_key": files.api_keys[name]} for name in files.settings}
    config.touch(mode=0o600)
    config.write_text(MARK + yaml.safe_dump({"state_dir": str(state.resolve()), "providers": settings}))
    return config
