"""What is used after the request that asked for it is over: by batches, and by answers in the background.

A request that begins such work leaves a due with what it made (`Deposit.due`): under which token, groups and so on it
counts. The first answer that reports what it took is recorded, once: the record is made only if the due could be
changed in the database (`DepositRows`), and only one process can do that.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.metering.estimates import possible
from aimux.metering.record import LATER, RequestRecord, Sender, Step, new_id
from aimux.plugin.usage import COUNTS, Usage

if TYPE_CHECKING:
    from aimux.plugin.types import Over

_COUNTED = (*COUNTS, "requests")
ALL_TOLD = '{"over"'
"""How a due begins of which nothing is left to count."""
_NOTHING = [0] * len(_COUNTED)


class Claim(NamedTuple):
    """Records that may go out if the due of something is still `old`, or `new` already."""

    provider: str
    id: str
    old: str
    new: str
    records: tuple[RequestRecord, ...]


def due(sender: Sender, conversation: str, model: str = "") -> str:
    """What is kept about whoever began something. `model`: whose it is where what is told later names none."""
    told: dict[str, Any] = {
        "mount": sender.mount,
        "token": sender.token,
        "groups": sender.groups,
        "client": sender.client,
        "class": sender.request_class,
        "conversation": conversation,
        "model": model,
    }
    return json.dumps({name: value for name, value in told.items() if value})


def is_open(due: str) -> bool:
    """Whether there may be something left to count."""
    return bool(due) and not due.startswith(ALL_TOLD)


def claim(provider: str, account: str, owner: str, over: Over, due: str, path: str) -> Claim | None:
    """What to record of what an answer to `path` reported, beyond what was recorded before; None: nothing."""
    told: dict[str, Any] = json.loads(due)
    counted: dict[str, list[int]] = told.get("counted", {})
    now = time.time()
    records, models = [], Counter[str]()
    for reported in over.usage:
        usage = possible(reported)
        models[usage.model] += 1
        place = f"{models[usage.model]} {usage.model}" if not over.total else "total"
        before = counted.get(place, _NOTHING)
        more = _beyond(usage, before, told.get("model", ""))
        if more.anything:
            records.append(_record(provider, account, owner, told, more, over.id, path, now))
            counted[place] = [max(known, getattr(usage, name)) for name, known in zip(_COUNTED, before, strict=True)]
    if not records and not over.whole:
        return None
    # With an id of its own, a change whose commit is in doubt can be made again.
    own = records[0].id if records else new_id(now)
    new = json.dumps({"over": own} if over.whole else told | {"counted": counted, "by": own})
    return Claim(provider, over.id, due, new, tuple(records))


def _beyond(usage: Usage, before: list[int], model: str) -> Usage:
    more = Usage(usage.model or model, tier=usage.tier, unknown=usage.unknown)
    for name, known in zip(_COUNTED, before, strict=True):
        setattr(more, name, max(0, getattr(usage, name) - known))
    more.requests = max(1, more.requests)
    if before is _NOTHING:
        more.beside = usage.beside
    return more


def _record(
    provider: str, account: str, owner: str, told: dict[str, Any], usage: Usage, one: str, path: str, now: float
) -> RequestRecord:
    own = new_id(now)
    sender = Sender(
        told.get("mount", ""),
        told.get("token", ""),
        tuple(told.get("groups", ())),
        told.get("client", ""),
        request_class=told.get("class", ""),
    )
    several = f" for {usage.requests} requests" if usage.requests > 1 else ""
    step = Step(provider, account, 200, "told", f"what {one} took{several}", 0.0, "", one)
    return RequestRecord(
        own,
        now,
        LATER,
        path,
        own,
        owner,
        sender,
        provider,
        account,
        told.get("conversation", ""),
        status=200,
        model=usage.model,
        usage=usage,
        attempts=1,
        steps=[step],
    )
