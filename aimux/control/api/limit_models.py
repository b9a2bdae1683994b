"""What operations on limits take and give."""

# ruff: noqa: TC001, TC003 - pydantic evaluates the annotations

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from aimux.config.limits import Allowance
from aimux.config.routes import Pattern
from aimux.control.api.body import Body, whole
from aimux.control.api.models import Given, Instance, LimitedBy, LimitScope, LimitSetBy

OwnerKind = Annotated[Literal["user", "group", "token"], Field(description="Whose they are.")]
OwnerName = Annotated[
    str,
    Field(
        pattern=r"^[^\x00-\x1f\x7f-\x9f/\\%.][^\x00-\x1f\x7f-\x9f/\\%]{0,99}$",
        description="The name of a user or group, or the id of a token.",
    ),
]
LimitName = Literal[
    "concurrent_requests",
    "requests_per_minute",
    "tokens_per_minute",
    "tokens_per_day",
    "tokens_per_week",
    "tokens_per_month",
    "cost_per_day",
    "cost_per_week",
    "cost_per_month",
]


_NO_OTHERS: dict[str, Any] = {"additionalProperties": False}
"""Beside the names that fit their pattern."""


class Amounts(Allowance):
    """Limits by name. What is not given has no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    _whole = field_validator("*", mode="before")(whole)


class _Brief(Body):
    """Leaves out what is at its default: whoever reads limits wants to see those that exist."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return super().model_dump(**{"exclude_defaults": True, **options})

    def model_dump_json(self, **options: Any) -> str:
        return super().model_dump_json(**{"exclude_defaults": True, **options})


class LimitSet(_Brief, Amounts):
    """All limits of a user, a group or a token, under the names of the configuration's section `limits`."""

    providers: Mapping[Instance, Amounts] = Field(
        default_factory=dict, description="For single providers, by name.", json_schema_extra=_NO_OTHERS
    )
    models: Mapping[Pattern, Amounts] = Field(
        default_factory=dict, description="For models: an exact name, `prefix*` or `/regular expression/`."
    )
    each: Amounts | None = Field(default=None, description="Of a group: what each of its members may use.")
    weight: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="Of a user or group: the weight of a fair share; others have 1."
    )


class SomeAmounts(Amounts):
    """Some limits by name; null takes one away."""

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, data: Any) -> Any:
        return data  # null says something here


class LimitChanges(SomeAmounts):
    """Some limits of a user, a group or a token: a JSON merge patch (RFC 7396)."""

    providers: Mapping[Instance, SomeAmounts | None] = Field(
        default_factory=dict, description="For single providers, by name.", json_schema_extra=_NO_OTHERS
    )
    models: Mapping[Pattern, SomeAmounts | None] = Field(
        default_factory=dict, description="For models: an exact name, `prefix*` or `/regular expression/`."
    )
    each: SomeAmounts | None = Field(default=None, description="Of a group: what each of its members may use.")
    weight: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="Of a user or group: the weight of a fair share; others have 1."
    )

    def of(self, held: Mapping[str, Any]) -> LimitSet:
        """The existing limits with these changes."""
        return LimitSet.model_validate(_merged(held, self.model_dump(exclude_unset=True)))


def _merged(held: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that are empty afterwards are left out."""
    result = dict(held)
    for name, change in changes.items():
        value = _merged(result.get(name, {}), change) if isinstance(change, Mapping) else change
        if value is None or value == {}:
            result.pop(name, None)
        else:
            result[name] = value
    return result


class Granted(Body):
    """A part of an amount that is there for a while."""

    amount: float
    until: datetime = Field(description="In `limits.time_zone`.")


class Used(Body):
    """How much of a limit is used."""

    limit: LimitName
    owner: LimitedBy
    set_by: LimitSetBy
    scope: LimitScope
    amount: float = Field(description="With what is granted now. Costs in US dollars.")
    granted: list[Granted] = Field(
        description="What of the amount is granted, and ends by itself; what ends first is first."
    )
    used: float = Field(description="What requests under way will probably take is in it.")
    resets_at: datetime | None = Field(description="When it begins anew; null: it rolls, or counts what is open.")


class RefusedNow(Body):
    """A provider whose accounts have no included usage left."""

    provider: str
    model: str = Field(description="The one that is refused; empty: every model.")
    since: datetime | None = Field(description="When the last account had used it up; null: nobody saw it.")
    until: datetime = Field(description="When the first account has something included again.")


class Restriction(Body):
    """What is forbidden."""

    what: Literal["overage", "long_context"] = Field(
        description="`overage`: paid extra usage; `long_context`: requests so long that a token costs more."
    )
    set_by: str = Field(
        description="Who forbids it: `user:NAME`, `group:NAME`, `member:GROUP`, `token:ID` or `default`."
    )
    scope: str = Field(description="The provider or the models that it holds for; empty: everything.")
    refused: list[RefusedNow] = Field(
        description="What is refused now because of it; of overage alone. Of a group: to one who is in no other."
    )


class OwnLimits(Body):
    """What holds for the caller."""

    items: list[Used]
    forbidden: list[Restriction]


class LimitOwner(Body):
    """Whose limits they are, and what is used of them."""

    kind: Literal["default", "user", "group", "token"]
    name: str
    configured: bool = Field(description="They stand in the configuration, and are changed there alone.")
    limits: LimitSet
    usage: list[Used] = Field(description="Of the owner's own counters; a user's hold what the defaults limit, too.")


class LimitList(_Brief):
    """Everybody who has limits of their own, and the default."""

    items: list[LimitOwner]


class NewGrant(Given):
    """More of a limit for a while."""

    limit: LimitName
    amount: float = Field(gt=0, le=1e15, description="How much more: requests, tokens or US dollars.")
    until: str = Field(
        min_length=1,
        max_length=40,
        description="When it ends: RFC 3339; a date or a day's name, until its end, or a time, each in "
        "`limits.time_zone` where it names no zone; or a duration like 3d.",
    )


class Grant(Body):
    """More of a limit for a while. It is never changed, and ends by itself."""

    id: str
    kind: Literal["user", "group", "token"]
    name: str
    limit: LimitName
    amount: float
    since: datetime
    until: datetime = Field(description="In `limits.time_zone`.")
    given_by: str


class GrantList(Body):
    """The grants that have not ended, oldest first."""

    items: list[Grant]
