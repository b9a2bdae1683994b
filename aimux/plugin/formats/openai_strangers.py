"""What others than OpenAI serve in its manner: rankings and scores (Cohere, Jina, Voyage, vLLM), texts of scanned pages
and conversations that the server keeps (Mistral)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from aimux.plugin.formats.openai_usage import read_usage
from aimux.plugin.meters import JSONMeter, Meter, StoredAnswer
from aimux.plugin.sse_meter import SSEMeter

if TYPE_CHECKING:
    from aimux.plugin.usage import Usage

COUNTED = ("/rerank", "/score", "/classify", "/pooling", "/classifications", "/ocr")
_CONVERSATIONS = re.compile(r"(?:/.*)?/conversations(?:/[^/]+(?:/restart)?)?")
_RUN = "conversation.response"


def stranger_meter(path: str, kind: str) -> Meter | None:
    """For a POST's answer of this media type; None: it is another's. `path` is plain, and in lower case."""
    if path.endswith(COUNTED):
        return CountedAnswer() if kind == "application/json" else None
    if _CONVERSATIONS.fullmatch(path):
        return ConversationStream() if kind == "text/event-stream" else ConversationAnswer()
    return None


class CountedAnswer(JSONMeter):
    """Its usage says what it took. Without one, nobody knows: searches and pages are sold apiece."""

    sent = 0

    def read(self, answer: dict[str, Any]) -> None:
        read_usage(self.usage, answer)
        self.usage.unknown = not self.usage.anything


class ConversationAnswer(StoredAnswer):
    """OpenAI's only keeps what was said; Mistral's is a model's answer as well."""

    keys = ("conversation_id",)

    def read(self, answer: dict[str, Any]) -> None:
        super().read(answer)
        if answer.get("object") == _RUN:
            self.consumes = True
            _read_run(self.usage, answer)


class ConversationStream(SSEMeter):
    """Mistral's."""

    needles: ClassVar[tuple[bytes, ...]] = (b'"conversation.response.',)
    content: ClassVar[bytes] = b'"message.output.delta"'

    def content_of(self, event: dict[str, Any]) -> int:
        content = event.get("content")
        return len(content.encode()) if isinstance(content, str) else 0

    def read(self, event: dict[str, Any]) -> None:
        if isinstance(one := event.get("conversation_id"), str) and one:
            self.stored = (one,)
        if event.get("type") in (f"{_RUN}.done", f"{_RUN}.error"):
            self.complete, self.failed = True, event["type"] == f"{_RUN}.error"
            _read_run(self.usage, event)


def _read_run(usage: Usage, answer: dict[str, Any]) -> None:
    outputs = answer.get("outputs")
    made = [one for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []
    read_usage(usage, {"model": next((one["model"] for one in made if "model" in one), None), **answer})
