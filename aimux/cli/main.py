"""The entry point of `aimux`: the table of commands, and how the process ends."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

import click

from aimux.cli.lazy import LazyCommand, LazyGroup
from aimux.cli.options import ConfigRefused, config_option, json_option, refuse_json
from aimux.cli.streams import open_closed_streams, write_every_character
from aimux.cli.words import fail
from aimux.installed import others_in, version_line

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = {
    "serve": LazyCommand("aimux.cli.serve:serve_command", "Run the gateway. Plain `aimux` does the same."),
    "demo": LazyCommand("aimux.cli.demo:demo_command", "Run the gateway with a simulator as its upstream."),
    "simulator": LazyCommand("aimux.cli.simulator:simulator_command", "Run the fake upstreams on their own."),
    "check-config": LazyCommand("aimux.cli.check_config:check_config_command", "Check the configuration."),
    "doctor": LazyCommand("aimux.cli.doctor:doctor_command", "Look for whatever keeps aimux from working."),
    "health": LazyCommand("aimux.cli.health:health_command", "Ask the running server whether it answers."),
    "config-schema": LazyCommand("aimux.cli.config_schema:config_schema_command", "Print config.yaml's JSON Schema."),
    "providers": LazyCommand("aimux.cli.providers:providers_command", "List the provider plugins."),
    "login": LazyCommand("aimux.cli.login:login_command", "Log in to a provider, and keep the account."),
    "import": LazyCommand("aimux.cli.import_:import_command", "Take over logins of the vendors' own CLIs."),
    "accounts": LazyCommand("aimux.cli.accounts:accounts_command", "Show the accounts, and change them."),
    "users": LazyCommand("aimux.cli.users:users_command", "Show and change who may call."),
    "groups": LazyCommand("aimux.cli.groups:groups_command", "Show and change what users share."),
    "tokens": LazyCommand("aimux.cli.tokens:tokens_command", "Issue, show and revoke users' tokens."),
    "limits": LazyCommand("aimux.cli.limits:limits_command", "Show and set what people may use."),
    "dashboard": LazyCommand(
        "aimux.cli.dashboard:dashboard_command", "Print a link that signs you in to the dashboard."
    ),
    "connect": LazyCommand("aimux.cli.connect:connect_command", "Show or write a client's settings for this gateway."),
    "usage": LazyCommand("aimux.cli.usage:usage_command", "Show who used what, and what it cost."),
    "requests": LazyCommand("aimux.cli.requests:requests_command", "Show the last requests, and what became of them."),
    "plan": LazyCommand("aimux.cli.plan:plan_command", "Replay the ledger over other accounts."),
    "top": LazyCommand("aimux.cli.top:top_command", "Show what runs now. Press q to end it."),
    "prices": LazyCommand("aimux.cli.prices:prices_command", "Show what models cost, and update the list."),
    "why": LazyCommand("aimux.cli.why:why_command", "Explain how a request was routed."),
    "audit": LazyCommand("aimux.cli.audit:audit_command", "Show who changed what, and check that record."),
    "reload": LazyCommand("aimux.cli.reload:reload_command", "Have the running server take its configuration again."),
    "migrate": LazyCommand(
        "aimux.cli.migrate:migrate_command", "Take over another gateway's configuration and accounts."
    ),
    "db": LazyCommand("aimux.cli.db:db_command", "Look after the database, or move it to the other engine."),
    "seed": LazyCommand("aimux.cli.seed:seed_command", "Put first credentials into the state folder."),
    "install-service": LazyCommand(
        "aimux.cli.service:install_service_command", "Have systemd or launchd run the gateway."
    ),
    "completion": LazyCommand("aimux.cli.completion:completion_command", "Print a shell's completion script."),
}


def _commands_of_plugins() -> dict[str, LazyCommand]:
    """Loading plugins costs 0.2 s: it is done only if there are others than aimux's own."""
    if not others_in("aimux"):
        return {}
    from aimux.plugin.loader import load_plugins

    commands = load_plugins().commands.values()
    return {command.name: LazyCommand(command.target, command.help) for command in commands}


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """click's own option would need the version before anybody asks."""
    if wanted and not context.resilient_parsing:
        click.echo(f"{context.info_name} {version_line()}")
        context.exit()


EPILOG = """\b
Configuration, first found: --config, $AIMUX_CONFIG, ./config.yaml,
$XDG_CONFIG_HOME/aimux/config.yaml. None at all is fine.
Completion: eval "$(aimux completion bash)"  (zsh alike; fish: … | source)
"""


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    more=_commands_of_plugins,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@config_option
@json_option
@click.pass_context
def cli(context: click.Context, config: Path | None, as_json: bool) -> None:
    """One door to a team's AI accounts.

    Without a command, aimux serves.
    """
    if as_json:
        refuse_json(context, cli, "serve")
    if context.invoked_subcommand is None:
        from aimux.cli.serve import serve_command

        context.invoke(serve_command, config=config)


def _config_hint(error: click.UsageError) -> str:
    """For a configuration that stands where a command takes nothing."""
    parameters = error.ctx.command.params if error.ctx is not None else []
    if all(isinstance(one, click.Option) for one in parameters) and any(one.name == "config" for one in parameters):
        for word in sys.argv[1:]:
            if word.endswith((".yaml", ".yml", ".json")) and word in error.message:
                return f"A configuration is named by an option: --config {word}"
    return ""


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    open_closed_streams()
    write_every_character()
    try:
        code = cli.main(prog_name="aimux", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and (hint := _config_hint(error)):
            error = click.UsageError(hint, error.ctx)
        error.show() if isinstance(error, ConfigRefused) else fail(error)
        sys.exit(error.exit_code)
    except click.Abort as abort:
        # click raises the same exception for Ctrl-C, the end of the input and a declined question.
        if isinstance(abort.__cause__ or abort.__context__, KeyboardInterrupt):
            sys.exit(130)
        click.echo("Aborted.", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO} or error.filename is not None:
            raise
        fail(click.ClickException(f"the output can't be written: {error.strerror}"))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
