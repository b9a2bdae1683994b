"""`aimux install-service`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aimux.cli.asking import print_json
from aimux.cli.options import ConfigRefused, json_option
from aimux.cli.words import prose_on_stderr
from aimux.documents import document_path

if TYPE_CHECKING:
    from aimux.config import Listen

SYSTEM_CONFIG = Path("/etc/aimux/config.yaml")
_HOMES = ("/home", "/root", "/run/user")


@click.command("install-service", short_help="Have systemd or launchd run the gateway.")
@click.option("--user", is_flag=True, help="For you alone, started with your session.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The configuration it runs with; for the system's service {SYSTEM_CONFIG}.",
)
@click.option("--socket", is_flag=True, help="Let systemd hold the listening socket: a restart then refuses nobody.")
@click.option("--print", "show", is_flag=True, help="Print what would be installed.")
@click.option("--force", is_flag=True, help="Replace service files that are there and differ.")
@json_option
def install_service_command(
    user: bool, config: Path | None, socket: bool, show: bool, force: bool, as_json: bool
) -> None:
    """Write a service file for systemd, or for launchd on macOS, and say how to start it.

    The system's service runs as a user of its own, in a sandbox, with its state in /var/lib/aimux.
    """
    config = config.absolute() if config else None if user else SYSTEM_CONFIG
    macos = sys.platform == "darwin"
    if macos and (not user or socket):
        raise click.UsageError("On macOS there is the agent only: use --user, and no --socket.")
    if not user:
        _outside_homes(Path(own_command()[0]), config)
    wanted, steps = _launchd(config) if macos else _systemd(config, user=user, socket=socket)
    files = [{"path": str(path), "content": text} for path, text in wanted.items()]
    if show and as_json:
        print_json({"files": files, "written": False})
        return
    if show:
        for path, text in wanted.items():
            click.echo(f"# {path}\n{text}")
        return
    with prose_on_stderr(as_json):
        _install(wanted, force=force)
    if config is not None and not config.exists():
        steps.insert(0, f"write {config}    ({document_path('config.example.yaml')} tells what may be in it)")
    if as_json:
        print_json({"files": files, "written": True, "next": steps})
        return
    click.echo("Next:\n" + "\n".join(f"  {step}" for step in steps))


def _launchd(config: Path | None) -> tuple[dict[Path, str], list[str]]:
    from aimux.cli.units import Service, launchd_agent

    path = Path.home() / "Library/LaunchAgents/aimux.plist"
    agent = launchd_agent(Service(own_command(), config), home=str(Path.home()))
    return {path: agent}, [f"launchctl bootstrap gui/{os.getuid()} {path}"]


def _systemd(config: Path | None, *, user: bool, socket: bool) -> tuple[dict[Path, str], list[str]]:
    from aimux.cli.units import Service, systemd_socket, systemd_unit

    listen = _listen(config)
    service = Service(own_command(), config, listen, socket=socket)
    folder = Path("/etc/systemd/system")
    if user:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"
    wanted = {folder / "aimux.service": systemd_unit(service, user=user)}
    names = "aimux.service"
    if socket:
        wanted[folder / "aimux.socket"] = systemd_socket(listen)
        names = "aimux.socket aimux.service"
    systemctl = "systemctl --user" if user else "systemctl"
    steps = [f"{systemctl} daemon-reload", f"{systemctl} enable --now {names}"]
    if user:
        steps.append("loginctl enable-linger    (to run while you are not logged in)")
    return wanted, steps


def own_command() -> tuple[str, ...]:
    """The absolute command line of this very aimux."""
    program = Path(shutil.which(sys.argv[0]) or sys.argv[0]).absolute()
    if program.name == "aimux" and os.access(program, os.X_OK):
        return (str(program),)
    return (sys.executable, "-m", "aimux.cli.main")


def _listen(config: Path | None) -> Listen:
    """The address that the configuration gives. Its secrets are not read: only the service may have them."""
    import yaml

    from aimux.config import ConfigError, Listen, check_form
    from aimux.plugin.loader import load_plugins

    if config is None or not config.exists():
        return Listen.parse("127.0.0.1:8080")
    try:
        check_form(config, environ={"HOME": str(Path.home())}, providers=load_plugins().providers)
    except ConfigError as error:
        raise ConfigRefused(error) from None
    return Listen.parse((yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("listen", "127.0.0.1:8080"))


def _outside_homes(program: Path, config: Path | None) -> None:
    """The system's service sees no home folders, so nothing that it needs may be in one."""
    for path in (program, config):
        if path is not None and any(path.is_relative_to(home) for home in _HOMES):
            raise click.ClickException(
                f"{path} is in a home folder, which the system's service can't see: use --user, or install aimux"
                " elsewhere (in a clone: python3 -m venv /opt/aimux && /opt/aimux/bin/pip install .)"
            )


def _install(wanted: dict[Path, str], *, force: bool) -> None:
    """Write all files, or none if one of them exists and differs."""
    try:
        for path, text in wanted.items():
            if path.exists() and path.read_text(encoding="utf-8") != text and not force:
                raise click.ClickException(
                    f"{path} is there and differs: --print shows the new one, --force replaces it"
                )
        for path, text in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            click.echo(f"wrote {path}")
    except OSError as error:
        advice = ": run it as root, or use --user" if isinstance(error, PermissionError) else ""
        raise click.ClickException(f"can't write {error.filename}: {error.strerror}{advice}") from None
