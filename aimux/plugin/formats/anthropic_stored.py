"""What an account keeps with Anthropic: whose it is, and what it takes behind the answer that began it."""

from __future__ import annotations

from typing import Any, ClassVar

from aimux.plugin.formats.anthropic_usage import is_free, read_usage
from aimux.plugin.meters import ResultsMeter, StoredAnswer
from aimux.plugin.sse_meter import SSEMeter
from aimux.plugin.types import Over
from aimux.plugin.usage import Usage

_ENDED = {"session": frozenset({"terminated"}), "dream": frozenset({"completed", "failed"})}
"""What goes on by itself and tells the sum of what it took so far, and the `status` behind which that stays."""

_USAGE = "session.usage"


class KeptAnswer(StoredAnswer):
    keys: ClassVar[tuple[str, ...]] = ("session_id",)  # of a deployment's run

    def read(self, answer: dict[str, Any]) -> None:
        super().read(answer)
        kind = str(answer.get("type"))
        if self.stored and (kind == "message_batch" or kind in _ENDED):
            self.begun = self.stored[0]
        elif kind == "deployment_run" and isinstance(session := answer.get("session_id"), str):
            self.begun = session
        self.stored += _outputs(answer)
        self.over = tuple(over for one in (answer, *_objects(answer.get("data"))) if (over := _over(one)) is not None)

    def makers(self, item: dict[str, Any]) -> tuple[str, ...]:
        """A deployment's runs and their sessions, and the files of a session."""
        scope = item.get("scope")
        found = (item.get("deployment_id"), scope.get("id") if isinstance(scope, dict) else None)
        return tuple(one for one in found if isinstance(one, str))


class SessionEvents(KeptAnswer):
    """What happened in a session, whose id these do not tell: now and then, what all of it took so far."""

    def __init__(self, session: str) -> None:
        super().__init__()
        self._session = session

    def read(self, answer: dict[str, Any]) -> None:
        super().read(answer)
        self.over += tuple(over for event in _objects(answer.get("data")) for over in _told(self._session, event))


class SessionStream(SSEMeter):
    """The same as it happens."""

    sees_end = False
    consumes = False
    complete = True
    needles: ClassVar[tuple[bytes, ...]] = (b'"session.usage"',)

    def __init__(self, session: str) -> None:
        super().__init__()
        self._session = session

    def read(self, event: dict[str, Any]) -> None:
        self.over = _told(self._session, event) or self.over


def _told(session: str, event: dict[str, Any]) -> tuple[Over, ...]:
    """By an event of a session. It names no model."""
    if event.get("type") != _USAGE:
        return ()
    return (Over(session, (_running_sum(event),), whole=False, total=True),)


def _outputs(dream: dict[str, Any]) -> tuple[str, ...]:
    """The memory that a dream has written."""
    written = [one.get("memory_store_id") for one in _objects(dream.get("outputs"))]
    return tuple(one for one in written if isinstance(one, str))


def _objects(told: object) -> list[dict[str, Any]]:
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []


def _over(told: dict[str, Any]) -> Over | None:
    """What a batch, a session or a dream says of what it took; None: nothing yet."""
    one, kind = told.get("id"), str(told.get("type"))
    if not isinstance(one, str):
        return None
    if kind in _ENDED:
        whole = str(told.get("status")) in _ENDED[kind] or told.get("archived_at") is not None
        return Over(one, (_running_sum(told),), whole, total=True)
    ended, counts = told.get("processing_status") == "ended", told.get("request_counts")
    nothing = ended and isinstance(counts, dict) and counts.get("succeeded") == 0
    return Over(one, ()) if nothing else None  # nobody will read its results


def _running_sum(told: dict[str, Any]) -> Usage:
    """The whole of a session is told as its own agent's model's, though others may work for it."""
    agent, used, usage = told.get("agent"), told.get("usage"), Usage()
    model = agent.get("model") if isinstance(agent, dict) else told.get("model")
    named: dict[str, Any] = model if isinstance(model, dict) else {"id": model}
    where = {name: named.get(name) for name in ("speed", "inference_geo")}
    read_usage(usage, {"model": named.get("id"), "usage": where | (used if isinstance(used, dict) else {})})
    return usage


class BatchResults(ResultsMeter):
    def read(self, result: dict[str, Any]) -> Usage | None:
        told = result.get("result")
        message = told.get("message") if isinstance(told, dict) else None
        if not isinstance(message, dict):
            return None
        usage = Usage()
        read_usage(usage, message)
        refused = message.get("stop_reason") == "refusal"
        return None if refused and is_free(usage, began=bool(message.get("content"))) else usage
