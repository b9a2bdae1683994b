"""The section `auth`: tokens that somebody else has signed."""

# ruff: noqa: TC001 - pydantic evaluates the annotations

from __future__ import annotations

from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from aimux.config.problems import wrong
from aimux.config.scalars import Duration
from aimux.config.sections import OptionalPath, Section


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_more, json_schema_input_type=str | list[str])]

MIN_SECRET = 16
_SOURCES = ("secret", "jwks_url", "key_file")


class SignedTokens(Section):
    """Which tokens signed elsewhere are taken, and what their claims mean. One of `secret`, `jwks_url`, `key_file`."""

    secret: SecretStr | None = Field(
        default=None, description="The secret that both sides share (HS256), at least 16 characters."
    )
    jwks_url: str | None = Field(
        default=None, description="Where the signer's public keys are (RS256, ES256, EdDSA): a JWKS by HTTPS."
    )
    key_file: OptionalPath = Field(
        default=None, description="The signer's public keys in a file: a JWKS, or one key as PEM."
    )
    issuer: str | None = Field(default=None, description="What the claim `iss` has to be.", min_length=1)
    audience: _Texts = Field(
        default=(), description="What the claim `aud` has to be, or hold: one of these. Needed with `jwks_url`."
    )
    prefix: str = Field(default="", description="A prefix of the token, which is removed.", max_length=100)
    user_claim: _Texts = Field(
        default=("sub",),
        description="Where the user's name is: the first of these claims that isn't empty.",
        min_length=1,
    )
    groups_claim: str | None = Field(
        default=None, description="Where the user's groups are. Unknown ones are left out."
    )
    role_claim: str | None = Field(
        default=None, description="Where the user's role is: `member`, `viewer` or `admin`; anything else is `member`."
    )
    leeway: Duration = Field(default=30.0, ge=0, le=600, description="How far the signer's clock may be off.")

    @field_validator("secret")
    @classmethod
    def _long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and (length := len(secret.get_secret_value())) < MIN_SECRET:
            raise wrong(f"has {length} characters, and at least {MIN_SECRET} are needed", "use a longer secret")
        return secret

    @field_validator("jwks_url")
    @classmethod
    def _https(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
            if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
                raise wrong("is not an https:// URL", "whoever can change the keys on their way lets anybody in")
            if parts.username or parts.password:
                raise wrong("holds a password", "public keys need none")
        return url

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            what = "has more than one key" if given else "has no key"
            raise wrong(what, f"give exactly one of {', '.join(_SOURCES)}")
        if self.jwks_url is not None and not self.audience:
            message = "is missing beside jwks_url"
            remedy = "name aimux's own: without it, tokens that the same signer made for anything else are taken too"
            raise wrong(message, remedy, at="audience")
        return self


class Auth(Section):
    """Who else may say who somebody is."""

    jwt: SignedTokens | None = Field(default=None, description="Tokens that somebody else has signed (JWT).")
