"""What every provider has in `providers:` of the configuration."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from yarl import URL

_NO_HOST = re.compile(r"[\x00-\x20\x7f]")


def _http_url(value: str) -> str:
    url = URL(value)
    try:
        named = bool(url.host and not _NO_HOST.search(url.host) and url.host.encode("idna"))
    except UnicodeError:  # a part of it is empty, or longer than 63 characters
        named = False
    if url.scheme not in {"http", "https"} or not named:
        raise ValueError("must be an http:// or https:// URL with a host")
    if url.user or url.password or url.query_string or url.fragment:
        raise ValueError("must not hold a user, password, query or fragment; use `headers` or `api_key` for secrets")
    return value.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""An http(s) URL as a plain string, without a trailing slash."""

_ENDPOINT = re.compile(r"(?:/v1)+(?:/(?:messages|responses|chat/completions|models))?$")


def _without_version(value: str) -> str:
    return _ENDPOINT.sub("", value)


ApiUrl = Annotated[HttpUrl, AfterValidator(_without_version)]
"""An HttpUrl that paths beginning with `/v1` are appended to: a `/v1` or an endpoint at its end is removed."""


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What says where a message goes and where it ends: aimux writes it itself, and twice would be two messages."""


def _header_name(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise ValueError("is not the name of a header; write it like x-name")
    if (name := value.lower()) in _OF_THE_CONNECTION or name.startswith("sec-websocket-"):
        raise ValueError("is a header that aimux writes itself; remove it (base_url says where requests go)")
    return value


def _header_value(value: SecretStr) -> SecretStr:
    if _CONTROL.search(value.get_secret_value()):
        raise ValueError("holds a line break or another control character, which no header can; write it on one line")
    return value


class AccountSettings(BaseModel):
    """How one account takes part in the choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(
        default=1.0, gt=0, le=1000, description="Share of the load against the others of its priority."
    )
    priority: int = Field(default=0, description="Lower is tried first, whatever the strategy.")
    price_factor: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="What the list's prices are multiplied by for this account: 0.8 for one with a fifth off.",
    )
    groups: tuple[str, ...] = Field(default=(), description="Groups that users may be bound to; none means: for all.")


class ProviderSettings(BaseModel):
    """Base of a provider's settings. A provider adds its own fields, each with a default and a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: HttpUrl = Field(default="", validate_default=False, description="Where requests go.")
    headers: dict[Annotated[str, AfterValidator(_header_name)], Annotated[SecretStr, AfterValidator(_header_value)]] = (
        Field(
            default_factory=dict,
            description="Headers to set on every upstream request (for a proxy in between, say).",
        )
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="An API key: adds an account `api-key` that lives in the configuration only.",
    )
    strategy: Literal["least_used", "round_robin", "priority"] = Field(
        default="least_used", description="How to choose among the healthy accounts."
    )
    accounts: dict[str, AccountSettings] = Field(
        default_factory=dict, description="Weight, priority, groups and price factor, by account name."
    )
