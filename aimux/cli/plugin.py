"""aimux's own commands, registered like a plugin's, so that no plugin can take their names; and the plugins'
commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.cli.main import COMMANDS
from aimux.plugin import Command, hookimpl

if TYPE_CHECKING:
    from aimux.plugin import RegisterCommand


@hookimpl
def aimux_register_commands(register: RegisterCommand) -> None:
    for name, command in COMMANDS.items():
        register(Command(name, command.target, command.help))
