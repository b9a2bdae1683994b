"""`aimux completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash, in ~/.bashrc:  eval "$(aimux completion bash)"
    zsh, in ~/.zshrc:    eval "$(aimux completion zsh)"
    fish:                aimux completion fish > ~/.config/fish/completions/aimux.fish
    """
    completion = get_completion_class(shell)
    assert completion is not None  # click.Choice lets no other shell through
    click.echo(completion(context.find_root().command, {}, "aimux", "_AIMUX_COMPLETE").source())
