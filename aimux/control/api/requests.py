"""Operations on requests that are over."""

from __future__ import annotations

from aimux.control.api.models import Request, RequestId, Step, Tokens
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts  # noqa: TC001 - the table reads the annotations
from aimux.control.api.problems import Refused
from aimux.control.api.views import moment
from aimux.control.principal import Role
from aimux.metering.journal import KEPT

operation = Table()


@operation("GET", "/requests/{id}", "Explain how a request was routed", role=Role.VIEWER)
async def explain_request(parts: Parts, id: RequestId) -> Request:  # noqa: A002 - the path's name for it
    """By the `x-request-id` of its answer, or the id that the vendor gave it. The last 10,000 are known."""
    record = parts.journal.get(id)
    if record is None:
        raise Refused(404, "not-found", f"Request {id!r} is not among the last {KEPT:,} that were served to their end.")
    when, usage = moment(record.time), record.usage
    assert when is not None  # it is a clock's
    return Request(
        id=record.request_id,
        time=when,
        method=record.method,
        path=record.path,
        user=record.user,
        provider=record.provider,
        account=record.account,
        model=record.model,
        status=record.status or None,
        error=record.error,
        attempts=record.attempts,
        seconds=round(record.duration, 6),
        first_byte_seconds=None if record.ttfb is None else round(record.ttfb, 6),
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        tokens=usage
        and Tokens(
            input=usage.input_tokens,
            output=usage.output_tokens,
            cache_read=usage.cache_read_tokens,
            cache_write=usage.cache_write_tokens,
            reasoning=usage.reasoning_tokens,
        ),
        steps=[
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
            for step in record.steps
        ],
    )
