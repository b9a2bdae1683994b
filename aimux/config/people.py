"""Who may call, and who may administer, as the configuration has them."""

# ruff: noqa: TC001 - pydantic evaluates the annotations

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from aimux.config.problems import wrong
from aimux.config.scopes import Scope
from aimux.config.sections import Section, loading
from aimux.config.tokens import HashedToken, PlainToken, Token, TokenFile

EMAIL = r"^[^@\x00-\x20\x7f-\xa0]{1,64}@[^@\x00-\x20\x7f-\xa0]{1,189}$"
"""Without `\\s`, which every engine of regular expressions reads in its own way."""
ADMIN_KEY = "admin-key"
"""Who made a change with the machine's admin key, in the audit log."""
GroupName = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def names_the_machine(name: str) -> bool:
    """Whether a user of this name would pass for one of the machine's own administrators in the audit log."""
    return name == ADMIN_KEY or name.startswith("cli:")


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
    email: str | None = Field(
        default=None, description="An e-mail address, by which people are told apart.", max_length=254
    )
    role: Literal["member", "viewer", "admin"] = Field(
        default="member",
        description="What the user may do to aimux itself: nothing, see everybody, or change everything.",
    )
    groups: tuple[GroupName, ...] = Field(
        default=(),
        description="Groups the user is in, and is bound to the accounts of; none means: every account that is not "
        "reserved.",
    )
    scopes: tuple[Scope, ...] = Field(
        default=(),
        description="What the user may use: `provider:NAME`, `model:PATTERN`, `group:NAME`. None means: everything.",
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
    own_login: bool = Field(
        default=False,
        description="Whether the user may send a login or key of the vendor's along, in place of an account, with the "
        "aimux token in the header `x-aimux-token`.",
    )

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str, info: ValidationInfo) -> str:
        if not name.isprintable() or name != name.strip():
            raise wrong("holds characters that can't be shown, or spaces around it")
        if names_the_machine(name):
            raise wrong(f"{name!r} is what the audit log calls the machine's own administrators", "choose another name")
        taken = loading(info).taken
        if ("user", name) in taken:
            raise wrong(f"there is a user {name!r} already", "give every user a name of its own")
        taken["user", name] = name
        return name

    @field_validator("email")
    @classmethod
    def _address(cls, email: str | None) -> str | None:
        if email is not None and not re.fullmatch(EMAIL, email):
            raise wrong("is no e-mail address", "write one like ann@example.com, or leave it out")
        return email

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


class Group(Section):
    """What the members of a group share."""

    reserved: bool = Field(
        default=False, description="Whether the accounts in this group serve its members alone, whatever happens."
    )
    scopes: tuple[Scope, ...] = Field(
        default=(), description="What its members may use, as for a user; a member of several may use what any allows."
    )
    own_login: bool = Field(
        default=False, description="Whether its members may send a login or key of the vendor's along."
    )


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
