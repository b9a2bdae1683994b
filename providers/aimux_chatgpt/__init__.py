"""ChatGPT: the Codex backend with ChatGPT logins, and OpenAI's API with API keys."""

from aimux.plugin import Register, hookimpl
from aimux_chatgpt.provider import ChatGPT
from aimux_chatgpt.settings import ChatGPTSettings

__all__ = ["ChatGPT", "ChatGPTSettings", "aimux_register_providers"]


@hookimpl
def aimux_register_providers(register: Register) -> None:
    register(ChatGPT)
