"""What a test gives the contract: sample answers, and an `Http` that follows a script."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from aimux.plugin import HttpAnswer, RequestHead, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.plugin import Headers


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    """An upstream's answer to a request, and the usage that the provider's meter should find (None: it has no meter).

    A stream is one whose `content_type` is `text/event-stream`.
    """

    method: str
    target: str
    body: bytes
    usage: Usage | None = None
    content_type: str = "application/json"
    status: int = 200

    @property
    def request(self) -> RequestHead:
        return RequestHead(self.method, self.target, CIMultiDict())

    @property
    def headers(self) -> Headers:
        return CIMultiDict({"content-type": self.content_type})

    @property
    def streamed(self) -> bool:
        return self.content_type.startswith("text/event-stream")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that a ScriptedHttp was given."""

    method: str
    url: str
    json: object = None
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Step = HttpAnswer | Exception


class ScriptedHttp:
    """An `aimux.plugin.Http` that answers (or raises) one step per request, in order; `sent` is what it was asked.

    A step may be a function of the request. More requests than steps fail the test.
    """

    def __init__(self, *steps: Step | Callable[[Sent], Step]) -> None:
        self.sent: list[Sent] = []
        self._steps = list(steps)

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,  # noqa: ASYNC109 - the signature of aimux.plugin.Http
    ) -> HttpAnswer:
        assert json is None or form is None, "`json` and `form` exclude each other"
        sent = Sent(method, url, json, form, headers or {})
        self.sent.append(sent)
        assert self._steps, f"the script has no answer to {method} {url}"
        step = self._steps.pop(0)
        if not isinstance(step, HttpAnswer | Exception):
            step = step(sent)
        if isinstance(step, Exception):
            raise step
        return step


def reply(json: object = None, *, status: int = 200, body: bytes | None = None) -> HttpAnswer:
    """An HttpAnswer with a JSON body, or with the bytes of `body`."""
    if body is not None:
        return HttpAnswer(status, {"content-type": "text/html"}, body)
    return HttpAnswer(status, {"content-type": "application/json"}, json_module.dumps(json).encode())
