"""What the API takes and gives. Times are RFC 3339 in UTC; no field holds more of a secret than it must to be sent."""

# ruff: noqa: TC003 - pydantic evaluates the annotations

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from aimux.accounts.vault import ACCOUNT_NAME
from aimux.control.api.body import Body, whole

Instance = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="A provider's name.")]


def _account_name(name: str) -> str:
    """An explanation, since people choose names; without the name, because nothing that was sent is repeated."""
    if not ACCOUNT_NAME.fullmatch(name):
        raise PydanticCustomError(
            "account_name",
            "an account's name is made of letters, digits and . _ @ + -, at most 64, a letter or digit first",
        )
    return name


Name = Annotated[
    str,
    AfterValidator(_account_name),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{ACCOUNT_NAME.pattern}$",
            "description": "An account's name within its provider.",
        }
    ),
]
RequestId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$", description="An answer's `x-request-id`, or the vendor's own id.")
]
# The configuration's users may be called almost anything; a name in a path can't hold what no path may hold.
ANY_NAME = r"^\.*[^./\\%\x00-\x1f\x7f][^/\\%\x00-\x1f\x7f]*$"
GroupName = Annotated[str, Field(pattern=ANY_NAME, max_length=100, description="A group's name.")]
FlowId = Annotated[str, Field(min_length=1, max_length=128, description="As the flow's start gave it.")]

MAX_SECRET = 256 * 1024


class Given(Body):
    """What a client sends: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Limit(Body):
    """One limit window, as the upstream last told it."""

    name: str = Field(description="Such as `5h` or `7d`.")
    used: float | None = Field(description="0 to 1; null: not told.")
    status: str = Field(description="`allowed`, `warning` or `rejected`.")
    resets_at: datetime | None
    scope: str | None = Field(description="What it holds for, where that is not the whole account.")


class Account(Body):
    """An account and its state."""

    provider: str
    name: str
    kind: str = Field(description="`oauth` or `api_key`; empty while its credential can't be read.")
    plan: str | None
    email: str | None
    organization: str | None = Field(description="Who owns the limits: accounts with the same one share them.")
    status: Literal["healthy", "cooling", "parked", "disabled"]
    reason: str = Field(
        description="Why it has that status; of a healthy one, limited models and what is wrong with its login."
    )
    remedy: str = Field(description="What a person can do about it.")
    until: datetime | None = Field(description="When a cooling account is free.")
    expires_at: datetime | None = Field(description="When its access token ends; null: not known, or never.")
    renewable: bool = Field(description="Whether aimux renews it by itself: not if its renewal was refused.")
    limits: list[Limit]
    in_flight: int = Field(description="Requests under way.")
    last_used: datetime | None
    weight: float
    priority: int
    groups: list[str]
    settings_configured: bool = Field(
        description="Weight, priority and groups stand in the configuration, and can't be changed here."
    )
    serves: str = Field(description="Whom it serves, as far as groups tell: `everybody`, `ci alone`, …")
    shared_with: str | None = Field(description="The file of another program whose login this is, if it is one.")
    same_as: list[str] = Field(
        description="Other accounts with the very same login: they share its limits, and of two copies the one that is "
        "renewed second is logged out."
    )
    configured: bool = Field(description="It is an `api_key` of the configuration, and can't be changed here.")


class AccountPage(Body):
    """A part of the accounts, by provider and name."""

    items: list[Account]
    next: str | None = Field(description="`after` of the next page; null: this is the last one.")


class PageQuery(Given):
    """Which part of a list."""

    limit: int = Field(default=100, ge=1, le=1000, description="At most so many.")
    after: str | None = Field(default=None, max_length=200, description="`next` of the page before.")


class AccountUsers(Body):
    """Who can reach an account."""

    items: list[str] = Field(description="The names of users that are enabled, and may use it.")


class AccountQuery(PageQuery):
    """Which accounts."""

    provider: Instance | None = Field(default=None, description="Only this provider's.")


_SOURCES = ("file", "api_key", "setup_token")


class NewAccount(Given):
    """A credential to keep. Exactly one of `file`, `api_key` and `setup_token`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in _SOURCES]
        }
    )

    provider: Instance
    name: Name | None = Field(default=None, description="Without it, aimux chooses one (`default` first).")
    file: SecretStr | None = Field(
        default=None, max_length=MAX_SECRET, description="A credential file's content, in any format of the provider."
    )
    api_key: SecretStr | None = Field(default=None, min_length=1, max_length=4096)
    setup_token: SecretStr | None = Field(
        default=None, min_length=1, max_length=4096, description="A long-lived token of the vendor's own CLI."
    )
    replace: bool = Field(default=False, description="Whether an account of that name gives way.")
    check: bool = Field(
        default=False, description="Whether the vendor is asked first: what it refuses is not kept (422)."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, name) is not None for name in _SOURCES) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SOURCES)}")
        return self


class Import(Given):
    """A file with logins."""

    file: SecretStr = Field(
        min_length=1,
        max_length=MAX_SECRET,
        description="Its content: opencode's auth.json, an export of sub2api, one of CLIProxyAPI's files or a list of "
        "them, or a credential file of any provider.",
    )
    provider: Instance | None = Field(default=None, description="Take only this provider's, where several could be.")
    check: bool = Field(
        default=False, description="Whether the vendor is asked first: what it refuses is not kept, and left."
    )


class NotImported(Body):
    """A login that was left where it is."""

    where: str = Field(description="Its place in the file; empty: the whole file.")
    reason: str


class Imported(Body):
    """What became of the file's logins."""

    items: list[Account] = Field(description="The accounts that were added.")
    left: list[NotImported]


class AccountChange(Given):
    """The fields to change; absent ones stay."""

    weight: float = Field(default=1.0, gt=0, le=1000, description="Share of the load against the others.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="Lower is tried first, whatever the strategy.")
    groups: list[GroupName] = Field(default=[], max_length=100, description="Whom it serves; none: everybody.")

    _whole = field_validator("priority", mode="before")(whole)


class Rename(Given):
    """Another name."""

    name: Name


class Tested(Body):
    """The result of a real call."""

    ok: bool
    status: int | None = Field(description="The upstream's; null: it gave no answer.")
    reason: str
    remedy: str
    seconds: float
    account: Account


class Tokens(Body):
    """What a request consumed."""

    input: int = Field(description="Without cached ones.")
    output: int
    cache_read: int
    cache_write: int
    reasoning: int = Field(description="The part of `output` spent on reasoning.")
    server_tools: int = Field(description="Requests to the vendor's own tools, searches for instance.")
    seconds: int = Field(default=0, description="Of sound or film that are sold by their length.")
    characters: int = Field(default=0, description="Of a text to be spoken that is sold by them.")


class Step(Body):
    """One step on a request's way: an account was asked, or could not be."""

    provider: str
    account: str
    status: int | None = Field(description="The upstream's; null: it gave no answer.")
    action: str = Field(description="What that meant: `relay`, `cool_down`, `refresh`, `park`, …")
    reason: str
    seconds: float = Field(description="Since the request came.")
    model: str = Field(description="What it was asked for, where `models` renamed it.")
    upstream_id: str = Field(description="What the vendor calls this request.")


class Considered(Body):
    """An account at the moment of a choice."""

    account: str
    able: bool = Field(description="Whether it could serve.")
    standing: str = Field(description="Why it could not, or what its rank came from.")


class Choice(Body):
    """One choice of an account, before an attempt."""

    provider: str
    account: str = Field(description="Empty: none could serve.")
    why: str
    home: str = Field(description="The account that the conversation was on before; empty: on none.")
    considered: list[Considered] = Field(description="Empty for a conversation that stays: nothing was weighed.")


LimitedBy = Annotated[str, Field(description="Whose use counts under it: `user:NAME`, `group:NAME` or `token:ID`.")]
LimitSetBy = Annotated[
    str,
    Field(
        description="Where its amount comes from: its owner, `member:GROUP` (each of a group's members has it) or "
        "`default`."
    ),
]
LimitScope = Annotated[str, Field(description="The provider and the models that it holds for; empty: everything.")]


class LimitHit(Body):
    """A limit that a request found used up."""

    limit: str = Field(description="Such as `tokens_per_day`.")
    owner: LimitedBy
    set_by: LimitSetBy
    scope: LimitScope
    amount: float = Field(description="Requests, tokens or US dollars.")
    used: float = Field(description="When the request came, with what was under way.")
    free_at: datetime | None = Field(description="When there is room again.")


class Request(Body):
    """A request that is over, or a turn of a WebSocket: who sent it, what served it, what it took."""

    id: str = Field(description="Its `x-request-id`: aimux's, or the client's own.")
    time: datetime
    node: str = Field(description="The aimux that served it.")
    method: str = Field(
        description="`TURN` for a turn of a WebSocket, `LATER` for what a batch or an answer in the background took."
    )
    path: str
    user: str
    token: str = Field(description="The id of the token that was shown.")
    client: str = Field(description="The first word of its user agent.")
    request_class: str = Field(description="What it was for, in the client's own word; empty: it does not say.")
    conversation: str
    provider: str
    account: str = Field(description="Who served it in the end.")
    model: str = Field(description="As the client asked for it.")
    served_model: str = Field(description="As the upstream says; empty where nothing was charged.")
    status: int | None = Field(description="What the client got; null: it left before.")
    error: str = Field(description="What ended it early, in one word.")
    attempts: int
    seconds: float
    first_byte_seconds: float | None
    bytes_in: int
    bytes_out: int
    tokens: Tokens | None
    cost_usd: float | None = Field(description="Null: no price is known.")
    estimated: bool = Field(description="The upstream did not tell all that was used: a part is an estimate.")
    limit: LimitHit | None = Field(description="The limit of aimux's own that refused it, if one did.")
    steps: list[Step]
    choices: list[Choice] = Field(
        description="Of the last 10,000 requests at each node, where there was a choice; the ledger does not keep them."
    )
