"""What api.openai.com keeps: files, batches, responses. A batch, or a response in the background, is in progress until
somebody asks about it: then it is over."""

from __future__ import annotations

import json
from collections import OrderedDict
from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING, Any

from aimux.simulator.accounts import stable
from aimux.simulator.answers import SimulatedAnswer, dumps, json_answer, sse, stream_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.simulator.answers import Call, Pairs

MOST = 1_000
KEPT = ("/v1/files", "/v1/batches", "/v1/responses/")


class Kept:
    """By account and id. The oldest is forgotten."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
        """Objects as they are shown; what is not shown has names that begin with `_`."""

    def lines(self, call: Call, file: str) -> list[dict[str, Any]] | None:
        """The requests in a batch's input file; None: there is no such file."""
        found = self._kept.get((call.owner.name, file))
        return None if found is None else [json.loads(line) for line in found["_content"].splitlines() if line.strip()]

    def keep_response(self, call: Call, events: list[dict[str, Any]]) -> None:
        """A response that these events told, or will have told."""
        whole = events[-1]["response"]
        self._keep(call, whole["id"], whole | {"_events": events})

    def create_batch(self, call: Call, results: list[dict[str, Any]], headers: Pairs) -> SimulatedAnswer:
        """A batch that will have these results."""
        one = f"batch_{stable(call.number, 'batch')[:32]}"
        bodies = [result["response"]["body"] for result in results]
        asked = call.json
        batch = {
            "id": one,
            "object": "batch",
            "endpoint": asked.get("endpoint"),
            "model": bodies[0]["model"] if bodies else None,
            "errors": None,
            "input_file_id": asked.get("input_file_id"),
            "completion_window": asked.get("completion_window"),
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": int(call.now),
            "expires_at": int(call.now) + 86_400,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "usage": _usage(()),
            "metadata": None,
        }
        content = b"".join(dumps(result) + b"\n" for result in results)
        output = self._file(call, f"file-{stable(call.number, 'output')[:22]}", "batch_output", "output.jsonl", content)
        over = {
            "status": "completed",
            "output_file_id": output["id"],
            "completed_at": int(call.now),
            "request_counts": {"total": len(results), "completed": len(results), "failed": 0},
            "usage": _usage(body["usage"] for body in bodies),
        }
        self._keep(call, one, batch | {"_over": over})
        return json_answer(200, batch, headers)

    def respond(self, call: Call, headers: Pairs) -> SimulatedAnswer | None:
        """The answer about one, or all; None: there is none."""
        kind, _, rest = call.path.removeprefix("/v1/").partition("/")
        one, _, what = rest.partition("/")
        if not one:
            if (call.method, kind) == ("POST", "files"):
                return json_answer(200, _shown(self._upload(call)), headers)
            of = {"files": "file", "batches": "batch"}[kind]
            data = [_shown(_over(found)) for found in reversed(self._own(call)) if found["object"] == of]
            return json_answer(200, {"object": "list", "data": data, "has_more": False}, headers)
        found = self._kept.get((call.owner.name, one))
        if found is None:
            return None
        match call.method, what:
            case ("GET", "content") if "_content" in found:
                return SimulatedAnswer(
                    200, [("content-type", "application/octet-stream"), *headers], [found["_content"]]
                )
            case ("GET", "") if call.params.get("stream") == "true" and "_events" in found:
                after = int(call.params.get("starting_after", -1))
                events = [event for event in found["_events"] if event["sequence_number"] > after]
                return stream_answer([sse(event) for event in events], headers, found["usage"])
            case ("GET", "") | ("POST", "cancel"):
                return json_answer(200, _shown(_over(found)), headers)
            case ("DELETE", ""):
                del self._kept[call.owner.name, one]
                return json_answer(200, {"id": one, "object": found["object"], "deleted": True}, headers)
        return None

    def _upload(self, call: Call) -> dict[str, Any]:
        head = b"content-type: %b\r\n\r\n" % call.headers.get("content-type", "").encode()
        form = BytesParser(policy=HTTP).parsebytes(head + call.body)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        content: Any = parts["file"].get_payload(decode=True) if "file" in parts else b""
        purpose = parts["purpose"].get_content().strip() if "purpose" in parts else ""
        name = parts["file"].get_filename() or "" if "file" in parts else ""
        return self._file(call, f"file-{stable(call.number, 'file')[:22]}", purpose, name, content)

    def _file(self, call: Call, one: str, purpose: str, name: str, content: bytes) -> dict[str, Any]:
        file = {
            "id": one,
            "object": "file",
            "bytes": len(content),
            "created_at": int(call.now),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        return self._keep(call, one, file | {"_content": content})

    def _keep(self, call: Call, one: str, what: dict[str, Any]) -> dict[str, Any]:
        self._kept[call.owner.name, one] = what
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return what

    def _own(self, call: Call) -> list[dict[str, Any]]:
        return [found for (account, _), found in self._kept.items() if account == call.owner.name]


def _over(found: dict[str, Any]) -> dict[str, Any]:
    found |= found.pop("_over", {})
    return found


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if not name.startswith("_")}


def _usage(each: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The sum, in the names that Responses have."""
    sums = dict.fromkeys(("input", "output", "cached", "reasoning"), 0)
    for usage in each:
        sums["input"] += usage.get("input_tokens", usage.get("prompt_tokens", 0))
        sums["output"] += usage.get("output_tokens", usage.get("completion_tokens", 0))
        sums["cached"] += (usage.get("input_tokens_details") or usage["prompt_tokens_details"])["cached_tokens"]
        details = usage.get("output_tokens_details") or usage["completion_tokens_details"]
        sums["reasoning"] += details["reasoning_tokens"]
    return {
        "input_tokens": sums["input"],
        "input_tokens_details": {"cached_tokens": sums["cached"]},
        "output_tokens": sums["output"],
        "output_tokens_details": {"reasoning_tokens": sums["reasoning"]},
        "total_tokens": sums["input"] + sums["output"],
    }
