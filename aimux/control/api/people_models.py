"""What the API takes and gives about people. Times are RFC 3339 in UTC."""

# ruff: noqa: TC001, TC003 - pydantic evaluates the annotations

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from aimux.config.people import EMAIL, names_the_machine
from aimux.config.scopes import SCOPE_PATTERN, parse_scope
from aimux.control.api.body import Body
from aimux.control.api.limit_models import Used
from aimux.control.api.models import ANY_NAME, Given, GroupName, PageQuery
from aimux.people import Role

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$"


def _new_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError(
            "A name has at most 100 letters (A to Z, a to z), digits and . _ @ + -, and begins with a letter or digit"
        )
    return name


def _of_a_user(name: str) -> str:
    if names_the_machine(name):
        raise ValueError(f"The audit log calls whoever has the admin key {name!r}: choose another name")
    return name


NewName = Annotated[str, AfterValidator(_new_name), WithJsonSchema({"type": "string", "pattern": _NAME})]
NewUserName = Annotated[NewName, AfterValidator(_of_a_user)]
UserName = Annotated[str, Field(pattern=ANY_NAME, max_length=100, description="A user's name.")]
TokenId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$", description="A token's id, which is no secret.")]


def _address(email: str) -> str:
    if not re.fullmatch(EMAIL, email):
        raise ValueError("An e-mail address is like ann@example.com, with at most 64 characters before the @")
    return email


Email = Annotated[str, AfterValidator(_address), WithJsonSchema({"type": "string", "pattern": EMAIL})]
Label = Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


def _readable(scope: str) -> str:
    parse_scope(scope)  # which providers there are is another question
    return scope


ScopeText = Annotated[
    str, AfterValidator(_readable), WithJsonSchema({"type": "string", "pattern": f"^({SCOPE_PATTERN})$"})
]
"""`provider:NAME`, `model:PATTERN` or `group:NAME`; a provider's name or a pattern will do."""
Scopes = Annotated[list[ScopeText], Field(max_length=100)]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"[1-9][0-9]{0,4}[smhd]|[1-9][0-9]{5}[smh]|[1-9][0-9]{0,9}")
"""Six digits of days are more than 10^10 seconds. A command line has no numbers, only their digits."""


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and _SPAN.fullmatch(value):
        return int(value) if value.isdecimal() else int(value[:-1]) * _UNITS[value[-1]]
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    raise ValueError("write it like 30d, 12h, 90m or a whole number of seconds: more than nothing, and at most 99999d")


Span = Annotated[
    int,
    BeforeValidator(_seconds),
    Field(ge=1, le=10**10),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^({_SPAN.pattern})$"},
                {"type": "integer", "minimum": 1, "maximum": 10**10},
            ]
        }
    ),
]
"""A time such as `30d`, `12h`, `90m`, or a number of seconds."""


class NewUser(Given):
    """Somebody who may call."""

    name: NewUserName
    email: Email | None = None
    role: Role = Role.MEMBER
    groups: list[GroupName] = Field(default=[], max_length=100)
    scopes: Scopes = Field(default=[], description="What the user may use; none: everything.")
    pin_accounts: bool = Field(default=False, description="May choose the account by `x-aimux-account`.")
    own_login: bool = Field(default=False, description="May send a credential of the vendor's along.")


class UserChange(Given):
    """The fields to change; absent ones stay."""

    email: Email | None = None
    role: Role = Role.MEMBER
    groups: list[GroupName] = Field(default=[], max_length=100)
    scopes: Scopes = Field(default=[])
    pin_accounts: bool = False
    own_login: bool = False
    enabled: bool = True


class UserDetails(Body):
    """What a user has and does."""

    tokens: int = Field(description="How many may be used now.")
    used_at: datetime | None = Field(description="The last use of one of these, to the minute.")
    nearest_limit: Used | None = Field(
        description="Of the limits that hold for the user, the groups' too, the one of which the largest part is used; "
        "null: there is none."
    )


class User(Body):
    """A user."""

    name: str
    email: str | None
    role: Role
    groups: list[str]
    scopes: list[str]
    enabled: bool
    pin_accounts: bool
    own_login: bool = Field(description="May send a credential of the vendor's along, in place of an account.")
    configured: bool = Field(description="It stands in the configuration, and can't be changed here.")
    created_at: datetime | None
    details: UserDetails | None = Field(default=None, description="In a list, where they were asked for.")


class UserPage(Body):
    """A part of the users, by name."""

    items: list[User]
    next: str | None = Field(description="`after` of the next page; null: this is the last one.")


class UserQuery(PageQuery):
    """Which users."""

    group: GroupName | None = Field(default=None, description="Only its members.")
    q: Label | None = Field(default=None, description="A part of the name or e-mail address, in either case.")
    details: bool = Field(default=False, description="Whether to tell what they have and do.")


class NewGroup(Given):
    """What users share."""

    name: NewName
    reserved: bool = Field(default=False, description="Its accounts serve nobody else.")
    scopes: Scopes = Field(default=[], description="What its members may use; none: it says nothing about that.")
    own_login: bool = Field(default=False, description="Its members may send a credential of the vendor's along.")


class GroupChange(Given):
    """The fields to change; absent ones stay."""

    reserved: bool = False
    scopes: Scopes = Field(default=[])
    own_login: bool = False


class Group(Body):
    """A group."""

    name: str
    reserved: bool
    scopes: list[str]
    own_login: bool = Field(description="Its members may send a credential of the vendor's along.")
    members: int
    accounts: list[str] = Field(description="Accounts in it, as `provider/name`.")
    configured: bool = Field(description="It stands in the configuration, and can't be changed here.")
    created_at: datetime | None


class GroupPage(Body):
    """A part of the groups, by name."""

    items: list[Group]
    next: str | None = Field(description="`after` of the next page; null: this is the last one.")


class NewOwnToken(Given):
    """A token for oneself."""

    label: Label = ""
    ttl: Span | None = Field(default=None, description="How long it lasts; null: until it is revoked.")
    scopes: Scopes = Field(default=[], description="What it is for; none: all that its user may use.")


class NewToken(NewOwnToken):
    """A token for a user."""

    user: UserName


class Rotation(Given):
    """How a new token replaces an old one."""

    overlap: Span | None = Field(default=None, description="How long the old one stays good; null: not at all.")
    ttl: Span | None = Field(
        default=None, description="How long the new one lasts; null: as long as the old one was to."
    )


class IssuedToken(Body):
    """A new token. It is shown only this once."""

    id: str
    token: str
    user: str
    label: str
    expires_at: datetime | None


class Token(Body):
    """What is known of a token."""

    id: str
    user: str
    label: str
    shown: str = Field(description="Its first characters.")
    scopes: list[str]
    state: Literal["active", "expired", "revoked"]
    created_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None = Field(description="Its last use, to the minute.")
    used_from: str | None = Field(description="Where that came from.")
    configured: bool = Field(description="It stands in the configuration, and can't be changed here.")


class TokenPage(Body):
    """A part of the tokens, the oldest first."""

    items: list[Token]
    next: str | None = Field(description="`after` of the next page; null: this is the last one.")


class TokenQuery(PageQuery):
    """Which tokens."""

    after: Annotated[str, Field(pattern="^[0-9]{1,18}-[A-Za-z0-9_]{1,64}$")] | None = Field(
        default=None, description="`next` of the page before."
    )
    user: UserName | None = Field(default=None, description="Only this user's.")
    q: Label | None = Field(
        default=None, description="A part of the user's name, the label or the first characters, in either case."
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="Only the one with this SHA-256 in hex."
    )


class ImportedToken(Given):
    """A token that somebody already has."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    user: UserName
    label: Label = ""


class TokenImport(Given):
    """Tokens of another gateway, by their SHA-256."""

    tokens: list[ImportedToken] = Field(min_length=1, max_length=1000)


class TokenList(Body):
    """Tokens."""

    items: list[Token]


class Me(Body):
    """Who asks, and what they may do."""

    name: str
    role: Role
    user: User | None = Field(description="null for the machine's own key.")
    groups: list[Group]
    tokens: list[Token]
    self_service: bool = Field(description="Whether own tokens can be issued and revoked.")
