"""A finished request as the API shows it: from memory, if its whole way is known, or from the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.control.api.models import Choice, Considered, LimitHit, Request, Step, Tokens
from aimux.control.api.views import moment
from aimux.metering.record import LimitHit as Hit
from aimux.metering.record import Step as Taken
from aimux.metering.rows import NANO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aimux.accounts.explain import Choice as Chosen
    from aimux.metering.record import RequestRecord


def of_record(record: RequestRecord, node: str, cost: int | None) -> Request:
    """`cost` in nanodollars."""
    usage, sender = record.usage, record.sender
    when = moment(record.time)
    assert when is not None  # it is a clock's
    tokens = usage and Tokens(
        input=usage.input_tokens,
        output=usage.output_tokens,
        cache_read=usage.cache_read_tokens,
        cache_write=usage.cache_write_tokens,
        reasoning=usage.reasoning_tokens,
        server_tools=usage.server_tools,
        seconds=usage.seconds,
        characters=usage.characters,
    )
    return Request(
        id=record.request_id,
        time=when,
        node=node,
        method=record.method,
        path=record.path,
        user=record.user,
        token=sender.token,
        client=sender.client,
        request_class=sender.request_class,
        conversation=record.conversation,
        provider=record.provider,
        account=record.account,
        model=record.model,
        served_model=usage.model if usage else "",
        status=record.status or None,
        error=record.error,
        attempts=record.attempts,
        seconds=round(record.duration, 6),
        first_byte_seconds=None if record.ttfb is None else round(record.ttfb, 6),
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        tokens=tokens,
        cost_usd=None if cost is None else cost / NANO,
        estimated=bool(usage and usage.estimated),
        limit=_limit(record.limit),
        steps=_steps(record.steps),
        choices=[_choice(one, record.time) for one in record.choices],
    )


def of_row(row: Mapping[Any, Any]) -> Request:
    """As the ledger has it. The ledger does not keep a single step: it follows from the rest."""
    detail = row["detail"] or {}
    when = moment(row["at"] / 1000)
    assert when is not None  # it is a clock's
    attempts = detail.get("attempts", 1)
    seconds = (row["ttfb"] or row["duration"]) / 1000
    usual = [Taken(row["provider"], row["account"], row["status"], "relay", "", seconds, "", row["upstream_id"] or "")]
    tokens = Tokens(
        input=row["input"],
        output=row["output"],
        cache_read=row["cache_read"],
        cache_write=row["cache_write"],
        reasoning=row["reasoning"],
        server_tools=row["server_tools"],
        seconds=detail.get("seconds", 0),
        characters=detail.get("characters", 0),
    )
    used = any(tokens.model_dump().values())
    return Request(
        id=row["request_id"] or row["id"],
        time=when,
        node=row["node"],
        method=row["method"],
        path=row["path"],
        user=row["user"],
        token=row["token"],
        client=row["client"],
        request_class=row["class"],
        conversation=row["conversation"] or "",
        provider=row["provider"],
        account=row["account"],
        model=detail.get("asked", row["model"]),
        served_model=row["model"] if used else "",
        status=row["status"] or None,
        error=row["error"],
        attempts=attempts,
        seconds=row["duration"] / 1000,
        first_byte_seconds=None if row["ttfb"] is None else row["ttfb"] / 1000,
        bytes_in=row["bytes_in"],
        bytes_out=row["bytes_out"],
        tokens=tokens if used else None,
        cost_usd=None if row["cost"] is None else row["cost"] / NANO,
        estimated=row["estimated"],
        limit=_limit(Hit(*detail["limit"]) if "limit" in detail else None),
        steps=_steps([Taken(*step) for step in detail["steps"]] if "steps" in detail else usual if attempts else []),
        choices=[],
    )


def _limit(hit: Hit | None) -> LimitHit | None:
    if hit is None:
        return None
    *told, free_at = hit
    return LimitHit(**dict(zip(Hit._fields, told, strict=False)), free_at=moment(free_at))


def _choice(one: Chosen, at: float) -> Choice:
    considered = [
        Considered(account=standing.name, able=not standing.status, standing=standing.words(at))
        for standing in one.standings
    ]
    return Choice(provider=one.provider, account=one.account, why=one.why, home=one.home, considered=considered)


def _steps(steps: Iterable[Taken]) -> list[Step]:
    return [
        Step(
            provider=step.provider,
            account=step.account,
            status=step.status or None,
            action=step.action,
            reason=step.reason,
            seconds=round(step.seconds, 6),
            model=step.model,
            upstream_id=step.upstream_id,
        )
        for step in steps
    ]
