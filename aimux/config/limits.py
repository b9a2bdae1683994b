"""The section `limits`: what users and groups may use, in which time zone, and whether they share fairly."""

# ruff: noqa: TC001, TC003 - pydantic evaluates the annotations

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from aimux.config.problems import wrong
from aimux.config.routes import Instance, Pattern
from aimux.config.sections import Section, nearest


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # which pydantic takes for 1 and 0
        raise wrong("must be a number, not true or false")
    return value


Count = Annotated[int, Field(ge=0, le=10**15), BeforeValidator(_number)]


def _countable(value: float) -> float:
    if 0 < value < 1e-9:  # it would be rounded to nothing, or stand for more than it is
        raise wrong("must be 0, or at least 0.000000001: costs are counted in billionths of a dollar")
    return value


MOST_DOLLARS = 10**9
_NOT_COUNTABLE: dict[str, Any] = {"not": {"exclusiveMinimum": 0, "exclusiveMaximum": 1e-9}}
Dollars = Annotated[
    float,
    Field(ge=0, le=MOST_DOLLARS, allow_inf_nan=False, json_schema_extra=_NOT_COUNTABLE),
    BeforeValidator(_number),
    AfterValidator(_countable),
]


class Allowance(Section):
    """How much may be used. What is not given has no limit of its own."""

    concurrent_requests: Count | None = Field(default=None, description="Requests that are open at once.")
    requests_per_minute: Count | None = Field(default=None, description="Requests in any 60 seconds.")
    tokens_per_minute: Count | None = Field(
        default=None, description="Tokens in any 60 seconds, of every kind: what is read from a cache counts too."
    )
    tokens_per_day: Count | None = Field(default=None, description="Tokens a day, of every kind.")
    tokens_per_week: Count | None = Field(default=None, description="Tokens a week, which begins on Monday.")
    tokens_per_month: Count | None = Field(default=None, description="Tokens a calendar month.")
    cost_per_day: Dollars | None = Field(
        default=None, description="US dollars a day; with a subscription, what it would have cost by the price list."
    )
    cost_per_week: Dollars | None = Field(default=None, description="US dollars a week, which begins on Monday.")
    cost_per_month: Dollars | None = Field(default=None, description="US dollars a calendar month.")
    overage: Literal["allow", "forbid"] = Field(
        default="allow",
        description="Whether an account whose included usage is used up may go on with paid extra usage: `allow` or "
        "`forbid`.",
    )
    long_context: Literal["allow", "forbid"] = Field(
        default="allow",
        description="Whether requests may be so long that their tokens cost more: `allow` or `forbid`.",
    )


class Allowances(Allowance):
    """The same in total, and besides for single providers and models."""

    providers: Mapping[Instance, Allowance] = Field(
        default_factory=dict,
        description="What may be used of single providers, by name. It holds in addition to the total.",
    )
    models: Mapping[Pattern, Allowance] = Field(
        default_factory=dict,
        description="What may be used of single models: an exact name, `prefix*` or `/regular expression/`. It holds "
        "in addition to the total.",
    )


class UserAllowances(Allowances):
    """What one user may use."""

    weight: float | None = Field(default=None, gt=0, le=1000, description="The weight of a fair share; others have 1.")


class GroupAllowances(UserAllowances):
    """What the members of a group may use together, …"""

    each: Allowances = Field(
        default=Allowances(), description="What each member of the group may use, in place of `limits.default`."
    )


class Limits(Section):
    """What may be used, by whom."""

    default: Allowances = Field(
        default=Allowances(), description="What each user without a limit of their own may use."
    )
    users: Mapping[str, UserAllowances] = Field(
        default_factory=dict, description="What single users may use, by name, in place of the default."
    )
    groups: Mapping[str, GroupAllowances] = Field(
        default_factory=dict, description="What the members of a group may use together, by the group's name."
    )
    fair_share: bool = Field(
        default=False,
        description="Divide the vendors' limits of an account (5 hours, 7 days) among the people who are active.",
    )
    time_zone: str = Field(
        default="UTC", description="Where days, weeks and months begin: a name like `Europe/Berlin`."
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError):  # the last where there is none of this name
            zones = {zone.lower(): zone for zone in available_timezones()}
            meant = nearest(name, zones)
            remedy = f"did you mean {zones[meant]}?" if meant else "write it like Europe/Berlin, or UTC"
            raise wrong(f"{name!r} is not a time zone", remedy) from None
        return name
