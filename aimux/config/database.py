"""The section `database`: where the rows lie, and the keys that encrypt credentials there."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import Field, PlainSerializer, PlainValidator, SecretStr, WithJsonSchema, field_validator, model_validator

from aimux.config.problems import MASK, wrong
from aimux.config.sections import Section

KEY_SIZE = 32
SYSTEM = "system"
"""As `sslrootcert`: the authorities that the system trusts."""


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """A key of AES-256: 32 bytes."""

    value: bytes = field(repr=False)


def _key(value: Any) -> EncryptionKey:
    if isinstance(value, EncryptionKey):
        return value
    text = value.strip() if isinstance(value, str) else ""
    try:
        if re.fullmatch(r"[0-9a-fA-F]{64}", text):
            return EncryptionKey(bytes.fromhex(text))
        raw = base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_SIZE:
        raise wrong("is not a key of 32 bytes, in base64 or hex", "make one: openssl rand -base64 32")
    return EncryptionKey(raw)


_Key = Annotated[
    EncryptionKey,
    PlainValidator(_key),
    WithJsonSchema({"type": "string", "minLength": 43, "maxLength": 64, "writeOnly": True}),
    PlainSerializer(lambda _: MASK, return_type=str),
]


class Database(Section):
    """Which database keeps what is not a file."""

    url: SecretStr | None = Field(
        default=None,
        description="A PostgreSQL database that several nodes share: `postgresql://user:password@host/name`. Without "
        "it, SQLite in `state_dir`.",
    )
    encryption_key: _Key | None = Field(
        default=None,
        description="Encrypts the accounts' credentials in PostgreSQL: 32 bytes in base64 or hex, the same on every "
        "node. `${file:/path}` and `${cred:NAME}` keep it out of the configuration.",
    )
    old_encryption_keys: tuple[_Key, ...] = Field(
        default=(),
        description="Keys that were used before: they still decrypt, and whatever is written is encrypted with the "
        "new one.",
    )

    @field_validator("url")
    @classmethod
    def _postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            try:
                parts = urlsplit(url.get_secret_value())
            except ValueError:
                raise wrong("can't be read", "write postgresql://user:password@host/name") from None
            if parts.scheme not in {"postgresql", "postgres"}:
                raise wrong("is not a PostgreSQL URL", "write postgresql://user:password@host/name")
            if _misread(parts):
                message = "has a port that is no number, or a password that ends at a /, ?, # or @"
                raise wrong(message, "write these in the password as %2F, %3F, %23 and %40")
            try:
                options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
            except ValueError:
                raise wrong("has an option without a value", "write ?NAME=VALUE&NAME=VALUE") from None
            if options.get("channel_binding") == "require":
                message = "asks for channel binding, which the driver can't do"
                raise wrong(message, "check the server's certificate: write sslmode=verify-full&sslrootcert=system")
            if options.get("sslrootcert") == SYSTEM and options.get("sslmode", "verify-full") != "verify-full":
                message = "has sslrootcert=system beside an sslmode that does not check the server's name"
                raise wrong(message, "write sslmode=verify-full")
        return url

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if self.url is not None and self.encryption_key is None:
            message = "is missing beside url, where it encrypts the accounts' credentials"
            raise wrong(message, "make one: openssl rand -base64 32", at="encryption_key")
        return self

    @property
    def address(self) -> str | None:
        """The URL itself, with its password; None for SQLite."""
        return self.url.get_secret_value() if self.url else None

    @property
    def shown(self) -> str:
        """Where it is, without password and options; "" for SQLite."""
        return without_password(self.address) if self.address else ""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The key that encrypts, then those that only decrypt."""
        keys = (self.encryption_key, *self.old_encryption_keys)
        return tuple(key.value for key in keys if key is not None)


def _misread(parts: SplitResult) -> bool:
    """Whether a part of a password would be taken for something else, and be shown."""
    places = (place for place in parts.netloc.rpartition("@")[2].split(",") if not place.endswith("]"))
    ports = [unquote(place.rpartition(":")[2]) for place in places if ":" in place]
    if any(port and not (port.isascii() and port.isdecimal() and int(port) < 2**16) for port in ports):
        return True
    if "@" in parts.netloc.rpartition("@")[0]:
        return True
    return "@" in parts.path or "@" in parts.query.partition("=")[0] or bool(parts.fragment)


def password_of(url: str) -> str:
    """The password in a URL; "" where there is none."""
    return unquote(urlsplit(url).password or "")


def without_password(url: str) -> str:
    """A URL fit to be shown: without password and options."""
    parts = urlsplit(url)
    user, host = parts.username or "", parts.netloc.rpartition("@")[2]
    return f"postgresql://{user}{'@' if user else ''}{host}{parts.path}"
