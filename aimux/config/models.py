"""The sections of config.yaml. Their names are fixed; each field's description is what the documentation says too."""

# ruff: noqa: TC001, TC003 - pydantic evaluates the annotations

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator

from aimux.config.auth import Auth
from aimux.config.cors import Cors
from aimux.config.database import Database
from aimux.config.ledger import Ledger, MetricsOptions, Price
from aimux.config.limits import Limits
from aimux.config.notices import Notices
from aimux.config.origin import NOWHERE, Origin
from aimux.config.people import Admin, Group, GroupName, User
from aimux.config.problems import Problem
from aimux.config.providers import ProviderEntries
from aimux.config.routes import Instance, Pattern, Prefix, Targets
from aimux.config.scalars import Duration, HeaderPattern, Listen, Network, Size
from aimux.config.sections import LocalPath, Section
from aimux.config.tls import TLS


class Config(Section):
    """The whole configuration."""

    listen: Listen = Field(
        default=Listen("127.0.0.1", 8080),
        description="Where to listen: `127.0.0.1:8080`, `:8080` (every address), `[::1]:8080` or `unix:/path`.",
    )
    state_dir: LocalPath = Field(
        default=Path("~/.aimux"),
        validate_default=True,
        description="The folder of credentials and other state; made with mode 0700.",
    )
    database: Database = Field(
        default=Database(), description="Where users, tokens, limits and the ledger are kept, and how it is protected."
    )
    providers: ProviderEntries | None = Field(
        default=None,
        description="The providers to serve: a list of names, or a mapping of names to settings. Without it, every "
        "installed provider that has a credential; an empty one serves none.",
    )
    users: tuple[User, ...] = Field(
        default=(),
        description="Who may call, beside the users that `aimux users` adds. Without any, this machine is served and "
        "everyone else gets 403.",
    )
    groups: Mapping[GroupName, Group] = Field(
        default_factory=dict,
        description="What the members of a group share, by its name. A group that is not listed here shares nothing.",
    )
    auth: Auth = Field(default=Auth(), description="Other ways of identifying callers than users' tokens.")
    self_service: bool = Field(
        default=False, description="Whether members may issue and revoke tokens of their own, by `/api/v1/me`."
    )
    allow_anonymous: bool = Field(
        default=False, description="Without users, serve everyone who can reach `listen`, not only this machine."
    )
    mounts: Mapping[Prefix, Instance] | None = Field(
        default=None, description="Path prefixes and the provider behind each. Without it, `/NAME` for each provider."
    )
    compatibility: tuple[str, ...] = Field(
        default=(),
        description="Other gateways whose administrators' scripts go on working: the paths that they ask are answered, "
        "for whoever has the admin key. The names are those of `aimux migrate`.",
    )
    models: Mapping[Pattern, Targets] = Field(
        default_factory=dict,
        description="Which provider or account serves a model: by its exact name, `prefix*`, `/regular expression/` "
        "(of the whole name) or `default`.",
    )
    shared_storage: bool = Field(
        default=False,
        description="Whether what a user has stored with a vendor (files, batches, responses) is for everybody who may "
        "use that provider. Otherwise it is that user's alone.",
    )
    limits: Limits = Field(default=Limits(), description="How much users and groups may use. Without limits, anything.")
    ledger: Ledger = Field(default=Ledger(), description="What is kept of finished requests.")
    prices: Mapping[Pattern, Price] = Field(
        default_factory=dict,
        description="What models cost that no price list knows, or that cost you something else: by an exact name, "
        "`prefix*` or `/regular expression/`.",
    )
    metrics: MetricsOptions = Field(default=MetricsOptions(), description="What `/metrics` tells apart.")
    notices: Notices = Field(
        default=Notices(), description="Who is told what an administrator wants to know. It is always logged, too."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important message that is logged."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Logs as lines to read or as JSON lines.")
    request_timeout: Duration = Field(
        default=600.0,
        gt=0,
        le=86400,
        description="How long an upstream may take until the head of its answer: for what is not streamed, until all "
        "of it is ready.",
    )
    stream_start_timeout: Duration = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="The same for what is streamed, where it is less than `request_timeout`. A stream has no total "
        "limit.",
    )
    stream_idle_timeout: Duration = Field(
        default=360.0, gt=0, le=86400, description="How long an upstream may stay silent in the middle of an answer."
    )
    connect_timeout: Duration = Field(
        default=10.0, gt=0, le=3600, description="How long connecting to an upstream may take, TLS included."
    )
    refresh_check_interval: Duration = Field(
        default=600.0, ge=1, le=86400, description="How often each account's credential is looked at, used or not."
    )
    refresh_before_expiry: Duration = Field(
        default=300.0, ge=0, le=86400, description="How long before its expiry a credential is renewed."
    )
    drain_timeout: Duration = Field(
        default=30.0, ge=0, le=86400, description="How long open requests may finish after SIGTERM."
    )
    max_body_size: Size = Field(
        default=64 * 1024 * 1024, ge=1, le=1024**4, description="The largest request body; a larger one gets 413."
    )
    max_websocket_message: Size = Field(
        default=16 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="The largest message of a WebSocket, in either direction, decompressed; a larger one ends it with "
        "code 1009.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Networks of reverse proxies whose `X-Forwarded-For` or `Forwarded` names the client's address; "
        "`unix` for one that comes over a unix socket.",
    )
    drop_headers: tuple[HeaderPattern, ...] = Field(
        default=(),
        description="More headers of clients that don't go upstream, beside those in docs/security.md: `x-name`, or "
        "`x-beginning-*`.",
    )
    tls: TLS = Field(default=TLS(), description="HTTPS on `listen`.")
    cors: Cors = Field(default=Cors(), description="Which web pages may call the mounts.")
    metrics_public: bool = Field(default=False, description="Open `/ready` and `/metrics` to other machines.")
    lane: bool = Field(
        default=True,
        description="Serve the mounts in the fast lane. Without it aiohttp serves them too: slower, with the same "
        "result, and a new connection for each request.",
    )
    admin: Admin = Field(
        default=Admin(),
        description="The admin API's token. Without one it serves this machine only, with a key made at first start.",
    )

    _warnings: tuple[Problem, ...] = PrivateAttr(default=())
    _origin: Origin = PrivateAttr(default=NOWHERE)

    @property
    def origin(self) -> Origin:
        """Where its values come from."""
        return self._origin

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is legal but probably not meant."""
        return self._warnings

    def with_warnings(self, warnings: tuple[Problem, ...], origin: Origin) -> Self:
        """The same configuration with these warnings, and where it comes from."""
        copy = self.model_copy()
        copy._warnings = warnings  # noqa: SLF001 - a copy of our own
        copy._origin = origin  # noqa: SLF001
        return copy

    @field_validator("mounts", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any) -> Any:
        return None if value == {} else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _known_level(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return "warning" if value.lower() == "warn" else value.lower()
