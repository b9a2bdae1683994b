"""The `providers.chatgpt` part of the configuration: each address of OpenAI's is a setting with a default."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from aimux.plugin import ApiUrl, HttpUrl, ProviderSettings

_ENDPOINT = re.compile(r"(?:(?<=/codex)/v1)?(?:/responses(?:/compact)?|/models)?$")


class ChatGPTSettings(ProviderSettings):
    base_url: HttpUrl = Field(
        default="https://chatgpt.com/backend-api/codex", description="Where requests with a ChatGPT login go."
    )
    api_base_url: ApiUrl = Field(
        default="https://api.openai.com",
        description="Where requests with an API key go, without `/v1` (which is taken off).",
    )
    issuer: HttpUrl = Field(
        default="https://auth.openai.com", description="The authorization server; the device flow lies below it."
    )
    authorize_url: HttpUrl | None = Field(
        default=None, description="Where a person signs in; default: `/oauth/authorize` below `issuer`."
    )
    token_url: HttpUrl | None = Field(
        default=None,
        description="Where codes are exchanged and tokens renewed; default: `/oauth/token` below `issuer`.",
    )
    redirect_url: HttpUrl = Field(
        default="http://127.0.0.1:1455/auth/callback",
        description="Where the browser returns to after a login, as registered for the client.",
    )
    client_id: str = Field(default="app_EMoamEEZ73f0CkXaXp7hrann", min_length=1, description="The OAuth client's id.")
    scopes: tuple[str, ...] = Field(
        default=("openid", "profile", "email", "offline_access"),
        description="What a login asks for (a list, or one string with spaces).",
    )

    @field_validator("base_url")
    @classmethod
    def _whole(cls, value: str) -> str:
        """Codex's own `chatgpt_base_url` ends above the folder, and what people copy from its errors below it."""
        value = _ENDPOINT.sub("", value)
        return f"{value}/codex" if value.endswith("/backend-api") else value

    @field_validator("scopes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @property
    def sign_in_at(self) -> str:
        return self.authorize_url or f"{self.issuer}/oauth/authorize"

    @property
    def tokens_at(self) -> str:
        return self.token_url or f"{self.issuer}/oauth/token"
