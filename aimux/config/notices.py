"""The section `notices`: who is told of what an administrator wants to know."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from aimux.config.problems import wrong
from aimux.config.sections import Section

_HOST = re.compile(r"[^\s.]+(\.[^\s.]+)*\.?")


class Webhook(Section):
    """An address that gets each notice as JSON."""

    url: SecretStr = Field(description="Where each notice is sent by POST.")
    secret: SecretStr | None = Field(
        default=None, description="Signs what is sent, so that the receiver knows whose it is.", min_length=16
    )

    @field_validator("url")
    @classmethod
    def _http(cls, url: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(url.get_secret_value())
            good = parts.scheme in {"http", "https"} and bool(_HOST.fullmatch(parts.hostname or "")) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise wrong("is not an address of a web server", "write https://host/path")
        return url


class Notices(Section):
    """Who is told."""

    webhooks: tuple[Webhook, ...] = Field(default=(), description="Addresses that get each notice as JSON.")
    apprise: tuple[SecretStr, ...] = Field(
        default=(),
        description="Where else notices go: e-mail, chats, telephones, by the addresses of apprise "
        "(`pip install apprise`).",
    )
