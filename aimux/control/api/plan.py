"""The operation that plans: would other accounts, or another choice of them, have sufficed?"""

# ruff: noqa: TC001, TC003 - the table reads the annotations

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from aimux.control.api.body import Body
from aimux.control.api.models import Given
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.problems import Refused
from aimux.control.api.usage import time_of
from aimux.control.api.usage_models import When
from aimux.control.api.views import moment
from aimux.control.principal import Role
from aimux.limits.planning import Question, planned
from aimux.limits.rules import Who

operation = Table()

_NAME, _COUNT = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "(1000|[1-9][0-9]{0,2})"
_WINDOW, _DOLLARS = "[1-9][0-9]{0,3}[mhdw]", r"[0-9]{1,8}(\.[0-9]{1,6})?"


def _list(name: str, value: str) -> str:
    return f"^{name}={value}(,{name}={value})*$"


ACCOUNTS, WINDOWS = _list(_NAME, _COUNT), _list(_WINDOW, _DOLLARS)


def _accounts(text: str) -> str:
    if re.fullmatch(ACCOUNTS, text) is None:
        raise ValueError("is not understood: write it like claude=4,chatgpt=2, each 1 to 1000")
    return text


def _windows(text: str) -> str:
    if re.fullmatch(WINDOWS, text) is None:
        raise ValueError("is not understood: write it like 5h=12.50,7d=90")
    return text


class PlanQuery(Given):
    """What to assume; without anything, the accounts that served, whatever became of them since."""

    since: When = Field(default="30d", description="Whose requests: since RFC 3339, a date, or `7d` (m, h, d, w).")
    accounts: (
        Annotated[str, AfterValidator(_accounts), WithJsonSchema({"type": "string", "pattern": ACCOUNTS})] | None
    ) = Field(
        default=None,
        max_length=1000,
        description="So many accounts, not those that served: `claude=4,chatgpt=2`.",
    )
    strategy: Literal["least_used", "round_robin", "priority"] | None = Field(
        default=None, description="Another choice of accounts."
    )
    fair_share: bool | None = Field(default=None, description="Whether windows are divided among those who are active.")
    window: Annotated[str, AfterValidator(_windows), WithJsonSchema({"type": "string", "pattern": WINDOWS})] | None = (
        Field(
            default=None,
            max_length=1000,
            description="What a window of an account holds, in dollars: `5h=12.50,7d=90`.",
        )
    )


class PlanAccount(Body):
    """How an account would have fared."""

    account: str
    requests: int
    idle_hours: int = Field(description="In which it had no request.")
    hours: int = Field(description="Of all.")
    times_full: int = Field(description="How often one of its windows was full.")
    fullest: dict[str, float] = Field(description="How full each window was at most; 1 is a whole one.")


class Plan(Body):
    """What would have happened at one provider."""

    provider: str
    requests: int
    waited: int = Field(description="For at most ten minutes each.")
    waited_seconds: float = Field(description="All together.")
    refused: int = Field(description="Who would have had to wait for longer.")
    not_their_share: int = Field(description="Of those that waited or were refused: the rest belonged to others.")
    held: dict[str, float] = Field(description="What a window of an account was taken to hold, in dollars.")
    accounts: list[PlanAccount]


class PlanList(Body):
    """By provider; none for one without requests."""

    items: list[Plan]
    unknown: list[str] = Field(description="Providers of whose windows nothing is known yet: give `window`.")
    kept_since: datetime | None = Field(
        description="Where `since` is earlier than single requests are kept: from when on they are, and the plan is."
    )


@operation("GET", "/plan", "Replay the ledger over other accounts", errors=(404, 503), role=Role.VIEWER)
async def plan_accounts(parts: Parts, query: PlanQuery) -> PlanList:
    """In a process of its own, one at a time: for a busy month it takes seconds."""
    metering = parts.metering
    counts = {name: int(count) for name, count in _pairs(query.accounts)}
    for name in counts:
        parts.pool(name)
    providers = {name: pool.provider.settings for name, pool in parts.pools.items()}
    policy, people = parts.limits.limits.policy, parts.people.directory.users.values()
    weights = {user.name: policy.weight(Who(user.name, groups=user.groups)) for user in people}
    place = metering.database.place
    question = Question(
        url=place.url,
        state_dir=place.state_dir,
        zone=str(metering.calendar.zone),
        keep=metering.ledger.keep,
        since=time_of(metering, "since", query.since),
        accounts={
            name: dict(pool.provider.settings.accounts) | {a.name: a.settings for a in pool.accounts.values()}
            for name, pool in parts.pools.items()
        },
        keys={
            name: {account.name for account in pool.accounts.values() if account.kind == "api_key"}
            for name, pool in parts.pools.items()
        },
        strategies={name: query.strategy or settings.strategy for name, settings in providers.items()},
        counts=counts,
        windows={name: float(dollars) for name, dollars in _pairs(query.window)},
        fair_share=parts.limits.section.fair_share if query.fair_share is None else query.fair_share,
        weights={name: weight for name, weight in weights.items() if weight != 1.0},
    )
    kept = time.time() - question.keep
    await metering.ledger.catch_up()
    async with parts.planning:
        try:
            found = await planned(question)
        except TimeoutError:
            remedy = "choose a later `since`"
            raise Refused(503, "too-long", "The plan takes longer than five minutes.", remedy=remedy) from None
        except OSError as error:
            raise Refused(503, "no-plan", f"The plan could not be made: {error}.") from None
    items = [Plan.model_validate(one.model_dump()) for one in found.plans]
    kept_since = moment(kept) if question.since < kept * 1000 else None
    return PlanList(items=items, unknown=found.unknown, kept_since=kept_since)


def _pairs(text: str | None) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (pair.partition("=") for pair in (text or "").split(",") if pair)]
