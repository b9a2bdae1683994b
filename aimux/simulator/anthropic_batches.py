"""Message batches of api.anthropic.com. A batch is in progress until somebody asks about it: then it has ended."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

from aimux.simulator.accounts import stable
from aimux.simulator.answers import SimulatedAnswer, dumps, json_answer
from aimux.simulator.anthropic_headers import headers_of, iso

if TYPE_CHECKING:
    from aimux.simulator.answers import Call

MOST = 1_000
PATH = "/v1/messages/batches"


class Batches:
    """By account and id. The oldest is forgotten."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[dict[str, Any], list[dict[str, Any]]]] = OrderedDict()

    def create(self, call: Call, results: list[dict[str, Any]]) -> SimulatedAnswer:
        """A batch that will have these results."""
        one = "msgbatch_01" + stable(call.number, "batch")[:22]
        batch = {
            "id": one,
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": _counts(processing=len(results)),
            "ended_at": None,
            "created_at": iso(call.now),
            "expires_at": iso(call.now + 86_400),
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": None,
        }
        self._kept[call.owner.name, one] = batch, results
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return json_answer(200, batch, headers_of(call))

    def respond(self, call: Call) -> SimulatedAnswer | None:
        """The answer about one batch, or all; None: there is none."""
        if call.method == "GET" and call.path == PATH:
            data = [self._ended(call, batch, results) for batch, results in reversed(self._own(call).values())]
            ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
            page = {"data": data, "has_more": False, "first_id": None, "last_id": None, **ends}
            return json_answer(200, page, headers_of(call))
        one, _, what = call.path.removeprefix(f"{PATH}/").partition("/")
        found = self._own(call).get(one)
        if found is None:
            return None
        batch, results = found
        match call.method, what:
            case ("GET", "") | ("POST", "cancel"):
                return json_answer(200, self._ended(call, batch, results), headers_of(call))
            case ("GET", "results"):
                self._ended(call, batch, results)
                lines = [dumps(result) + b"\n" for result in results]
                return SimulatedAnswer(200, [("content-type", "application/x-jsonl"), *headers_of(call)], lines)
        return None

    def _own(self, call: Call) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
        return {one: found for (account, one), found in self._kept.items() if account == call.owner.name}

    def _ended(self, call: Call, batch: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
        if batch["processing_status"] == "in_progress":
            batch["processing_status"] = "ended"
            batch["ended_at"] = iso(call.now)
            batch["request_counts"] = _counts(**Counter(result["result"]["type"] for result in results))
            batch["results_url"] = f"{call.origin}/anthropic{PATH}/{batch['id']}/results"
        return batch


def _counts(**told: int) -> dict[str, int]:
    return {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0} | told
