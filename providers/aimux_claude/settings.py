"""The `providers.claude` part of the configuration. Anthropic moves its endpoints: each is a setting with a default."""

from __future__ import annotations

from pydantic import Field, field_validator

from aimux.plugin import ApiUrl, HttpUrl, ProviderSettings


class ClaudeSettings(ProviderSettings):
    base_url: ApiUrl = Field(
        default="https://api.anthropic.com", description="Where requests go, without `/v1` (which is taken off)."
    )
    authorize_url: HttpUrl = Field(
        default="https://claude.com/cai/oauth/authorize",
        description="Where a person signs in. For a console account: https://platform.claude.com/oauth/authorize.",
    )
    token_url: HttpUrl = Field(
        default="https://platform.claude.com/v1/oauth/token",
        description="Where codes are exchanged and tokens renewed.",
    )
    redirect_url: HttpUrl = Field(
        default="https://platform.claude.com/oauth/code/callback",
        description="The page that shows the code to paste.",
    )
    client_id: str = Field(
        default="9d1c250a-e61b-44d9-88ed-5944d1962f5e", min_length=1, description="The OAuth client's id."
    )
    scopes: tuple[str, ...] = Field(
        default=(
            "user:profile",
            "user:inference",
            "user:sessions:claude_code",
            "user:mcp_servers",
            "user:file_upload",
            "user:plugins",
        ),
        description="What a login asks for (a list, or one string with spaces); no more than inference needs.",
    )

    @field_validator("scopes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value
