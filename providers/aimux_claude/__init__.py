"""Claude: Anthropic's API with OAuth logins (subscriptions), setup tokens and API keys."""

from aimux.plugin import Register, hookimpl
from aimux_claude.provider import Claude
from aimux_claude.settings import ClaudeSettings

__all__ = ["Claude", "ClaudeSettings", "aimux_register_providers"]


@hookimpl
def aimux_register_providers(register: Register) -> None:
    register(Claude)
