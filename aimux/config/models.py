"""The sections of config.yaml. Their names are fixed; each field's description is what the documentation says too."""

# ruff: noqa: TC001, TC003 - pydantic evaluates the annotations

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from aimux.config.database import Database
from aimux.config.limits import Limits
from aimux.config.problems import Problem, wrong
from aimux.config.providers import ProviderEntries
from aimux.config.routes import Instance, Pattern, Prefix, Targets
from aimux.config.scalars import Duration, Listen, Network, Size
from aimux.config.sections import LocalPath, OptionalPath, Section, loading
from aimux.config.tokens import HashedToken, PlainToken, Token, TokenFile


class _TokenHolder(Section):
    token: PlainToken | None = Field(
        default=None, description="The token itself, at least 16 characters. Better kept elsewhere: `${cred:NAME}`."
    )
    token_file: TokenFile | None = Field(default=None, description="A file that holds the token and nothing else.")
    token_sha256: HashedToken | None = Field(
        default=None, description="The token's SHA-256 in hex, so that the token stays with its owner."
    )

    def _given(self) -> list[tuple[str, Token]]:
        tokens = {"token": self.token, "token_file": self.token_file, "token_sha256": self.token_sha256}
        return [(name, token) for name, token in tokens.items() if token is not None]

    @property
    def sha256(self) -> bytes:
        """The token's SHA-256 (32 bytes). The token itself is not kept."""
        return self._given()[0][1].sha256


class User(_TokenHolder):
    """A person or machine that may call aimux. Exactly one of `token`, `token_file` and `token_sha256`."""

    name: str = Field(description="The user's name in logs and metrics.", min_length=1, max_length=100)
    groups: tuple[str, ...] = Field(
        default=(), description="Account groups the user is bound to; none means: every account."
    )
    weak: bool = Field(
        default=False,
        description="Whether the token behind `token_sha256` has fewer than 16 characters, and is to be replaced.",
    )
    pin_accounts: bool = Field(
        default=False,
        description="Whether the user may choose an account with the header `x-aimux-account`, and is told which one "
        "served.",
    )

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str, info: ValidationInfo) -> str:
        if not name.isprintable() or name != name.strip():
            raise wrong("holds characters that can't be shown, or spaces around it")
        taken = loading(info).taken
        if ("user", name) in taken:
            raise wrong(f"there is a user {name!r} already", "give every user a name of its own")
        taken["user", name] = name
        return name

    @model_validator(mode="after")
    def _one_token(self, info: ValidationInfo) -> Self:
        given = self._given()
        if len(given) != 1:
            what = "has more than one token" if given else "has no token"
            raise wrong(what, "give exactly one of token, token_file and token_sha256")
        (field, token), taken = given[0], loading(info).taken
        if token.known:
            if owner := taken.get(("token", token.sha256)):
                raise wrong(f"is also the token of {owner!r}", "give every user a token of its own", at=field)
            taken["token", token.sha256] = self.name
        if self.weak and field != "token_sha256":
            raise wrong("goes with token_sha256 only", "give the user a token of at least 16 characters", at="weak")
        return self


class Admin(_TokenHolder):
    """Who may use the admin API. At most one of `token`, `token_file` and `token_sha256`."""

    @model_validator(mode="after")
    def _at_most_one_token(self) -> Self:
        if len(self._given()) > 1:
            raise wrong("has more than one token", "give at most one of token, token_file and token_sha256")
        return self

    @property
    def configured(self) -> bool:
        """Without a token, the admin API serves loopback only, with a key that aimux makes at its first start."""
        return bool(self._given())


class TLS(Section):
    """Whether and with which certificate `listen` speaks HTTPS."""

    enabled: bool = Field(default=False, description="Serve HTTPS instead of HTTP.")
    cert_path: OptionalPath = Field(
        default=None, description="The certificate and its chain (PEM). A renewed file is picked up without a restart."
    )
    key_path: OptionalPath = Field(default=None, description="The certificate's private key (PEM).")
    self_signed: bool = Field(
        default=False, description="Make a certificate of our own, keep it in `state_dir` and print its fingerprint."
    )

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if not self.enabled:
            return self
        if self.self_signed and (self.cert_path or self.key_path):
            at = "cert_path" if self.cert_path else "key_path"
            raise wrong("excludes self_signed", "keep either the certificate's paths or self_signed: true", at=at)
        if not self.self_signed:
            for mine, other in (("cert_path", "key_path"), ("key_path", "cert_path")):
                if not getattr(self, mine):
                    why = f"is missing beside {other}" if getattr(self, other) else "is missing"
                    raise wrong(why, "set cert_path and key_path, or self_signed: true", at=mine)
        return self


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
        default=(), description="Who may call. Without users, this machine is served and everyone else gets 403."
    )
    allow_anonymous: bool = Field(
        default=False, description="Without users, serve everyone who can reach `listen`, not only this machine."
    )
    mounts: Mapping[Prefix, Instance] | None = Field(
        default=None, description="Path prefixes and the provider behind each. Without it, `/NAME` for each provider."
    )
    models: Mapping[Pattern, Targets] = Field(
        default_factory=dict,
        description="Which provider or account serves a model: by its exact name, `prefix*`, `/regular expression/` "
        "(of the whole name) or `default`.",
    )
    limits: Limits = Field(default=Limits(), description="How much users and groups may use. Without limits, anything.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important message that is logged."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Logs as lines to read or as JSON lines.")
    request_timeout: Duration = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="How long an upstream may take until the head of its answer. A stream has no total limit.",
    )
    stream_idle_timeout: Duration = Field(
        default=300.0, gt=0, le=86400, description="How long an upstream may stay silent in the middle of an answer."
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
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Networks of reverse proxies whose `X-Forwarded-For` names the client's address."
    )
    tls: TLS = Field(default=TLS(), description="HTTPS on `listen`.")
    metrics_public: bool = Field(
        default=False, description="Open `/health`, `/ready` and `/metrics` to others than this machine."
    )
    admin: Admin = Field(
        default=Admin(),
        description="The admin API's token. Without one it serves this machine only, with a key made at first start.",
    )

    _warnings: tuple[Problem, ...] = PrivateAttr(default=())

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is legal and probably not meant."""
        return self._warnings

    def with_warnings(self, warnings: tuple[Problem, ...]) -> Self:
        """The same configuration with these warnings."""
        copy = self.model_copy()
        copy._warnings = warnings  # noqa: SLF001 - a copy of our own
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
