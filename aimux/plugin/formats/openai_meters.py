"""Meters of OpenAI's answers: Responses, and the older Chat Completions and Completions."""

from __future__ import annotations

import json
import re
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from aimux.plugin.formats.openai_problems import PREAMBLE
from aimux.plugin.formats.openai_usage import read_usage, stored_response, told_over
from aimux.plugin.message_meter import MessageMeter
from aimux.plugin.meters import EDGE, JSONMeter
from aimux.plugin.reading import MODEL, count, json_object, object_behind
from aimux.plugin.sse_meter import SSEMeter
from aimux.plugin.types import Over

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST_TYPES = ("response.completed", "response.incomplete", "response.failed", "response.done")
"""The last one is what some upstreams, and ChatGPT's own at times, call all three: its response has the status."""
_LAST_EVENTS = frozenset(kind.encode() for kind in _LAST_TYPES)
_WHOLE = (b"response.completed", b"response.incomplete")
_FAILED = ("failed", "cancelled")
_BACKGROUND = re.compile(rb'"(background|instructions|metadata|prompt|text|tool_choice|tools)"\s*:\s*(true)?')
"""The upstream's own field comes before any object of the client's, which may have such a key."""
BEGINNING = 1024
"""Bytes of a stream in which its first event says whether it goes on in the background."""
_TYPE = re.compile(rb'"type"\s*:\s*"([a-z_.]{1,64})"')
_PAINTER = re.compile(rb'"model"\s*:\s*"(gpt-image[A-Za-z0-9._-]{0,64})"')
_RESPONSE_ID = re.compile(
    rb'"id"\s*:\s*"(resp_[A-Za-z0-9_+=-]{1,500}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"'
)
_UNSTORED = re.compile(rb'"store"\s*:\s*false')
_TEXT = rb'": ?"([^"\\]*+(?>(?:\\.[^"\\]*+)*))'
_DELTAS = re.compile(rb'"delta' + _TEXT)
"""After the deltas come events that repeat all of it, as `text`, `part` and `item`, each with enough `obfuscation` to
hide its length."""
_TEXTS = re.compile(rb'"(?:content|reasoning(?:_content)?|refusal|arguments|transcript)' + _TEXT)
"""What is said, thought, or asked of tools, and the words of what is spoken."""
_COMPLETIONS = re.compile(rb'"text' + _TEXT)
_SOUND = re.compile(rb'"data' + _TEXT)
_TOTALS = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens")
AUDIO = 800
"""Characters of base64 that count as one of text: a second of speech is 20 tokens, and 64,000 characters of PCM."""


class ResponsesStream(SSEMeter):
    """Its last event repeats the whole answer with its usage.

    The first ones do, too, without usage but with 40 kB of instructions and tools, so the needles are the last events'
    names. `"error"` is searched as a type: as a key, with null in it, it is in every event of that kind. ChatGPT's
    backend leaves the answer out of the last event, so that searches have to be counted where they end.
    """

    needles: ClassVar[tuple[bytes, ...]] = (
        b'"response.completed"',
        b'"response.incomplete"',
        b'"response.failed"',
        b'"response.done"',
        b'"type":"error"',
        b'"type": "error"',
        b'"web_search_call',
    )
    content: ClassVar[bytes] = b'.delta"'
    audio: ClassVar[bytes] = b'audio.delta"'
    _beginning: bytes | None = b""

    def __init__(self) -> None:
        super().__init__()
        self._searches: list[dict[str, Any]] = []

    @property
    def sent(self) -> int:
        return 0 if self.begun else super().sent  # it goes on when its client has left

    def feed(self, data: bytes) -> None:
        if self._beginning is not None:
            self._begin((self._beginning + data[:BEGINNING])[:BEGINNING])
        super().feed(data)

    def _begin(self, beginning: bytes) -> None:
        self._beginning = beginning if len(beginning) < BEGINNING else None
        said = _BACKGROUND.search(beginning)
        goes_on = said is not None and said[1] == b"background" and said[2] is not None
        if goes_on and (one := _RESPONSE_ID.search(beginning)):
            self.begun = one[1].decode()
            self.stored = (self.begun,)

    def content_in(self, part: bytes) -> int:
        return sum(map(len, _DELTAS.findall(part)))

    def spoken_in(self, line: bytes) -> float:
        return self.content_in(line) / AUDIO

    def read(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "response.completed" | "response.incomplete" | "response.failed" | "response.done" as kind:
                self.complete = True
                self.begun, self._beginning = "", None
                failed = kind == "response.failed"
                if isinstance(response := event.get("response"), dict):
                    read_usage(self.usage, response if response.get("output") else response | self._output)
                    self.stored = stored_response(response)
                    failed = failed or response.get("status") in _FAILED
                self.failed = failed and not self.usage.total_input  # else it reports usage
            case "error":
                self.complete = self.failed = True
            case "response.output_item.done" if isinstance(item := event.get("item"), dict):
                self._searches.append({"type": item.get("type"), "action": item.get("action")})
                read_usage(self.usage, self._output)

    @property
    def _output(self) -> dict[str, Any]:
        return {"output": self._searches}

    def read_overlong(self, start: bytes, end: bytes) -> None:
        """An answer with images in it: its kind is at its start, its usage at its end."""
        kind = _TYPE.search(start)
        if kind is None or kind[1] in _LAST_EVENTS:
            self.complete = True
            self.begun, self._beginning = "", None
            model = MODEL.search(start) or MODEL.search(end)
            told = object_behind(b"usage", end) or object_behind(b"usage", start)
            tools, painter = object_behind(b"tool_usage", end), _PAINTER.search(start) or _PAINTER.search(end)
            read_usage(
                self.usage,
                {
                    "model": model and model[1].decode(),
                    "output": self._searches,
                    "usage": told,
                    "tool_usage": tools,
                    "tools": [{"type": "image_generation", "model": painter and painter[1].decode()}],
                },
            )
            self.stored = _kept(start, end)


def _kept(start: bytes, end: bytes) -> tuple[str, ...]:
    """As `stored_response`, of one that is not parsed."""
    one = _RESPONSE_ID.search(start)
    return (one[1].decode(),) if one and not _UNSTORED.search(end + start) else ()


class ChatStream(SSEMeter):
    """Usage comes in a chunk of its own at the end, if the client asked for it; every other chunk has it as null.

    The answer ends with its `finish_reason`: several servers send no `[DONE]`.
    """

    needles: ClassVar[tuple[bytes, ...]] = (
        b'"usage":{',
        b'"usage": {',
        b"[DONE]",
        b'"error"',
        b'"finish_reason":"',
        b'"finish_reason": "',
    )
    content: ClassVar[bytes] = b'"delta":'
    audio: ClassVar[bytes] = b'"data":'

    def content_in(self, part: bytes) -> int:
        return sum(map(len, _TEXTS.findall(part)))

    def spoken_in(self, line: bytes) -> float:
        return self.content_in(line) + sum(map(len, _SOUND.findall(line))) / AUDIO

    def read(self, event: dict[str, Any]) -> None:
        told, choices = event.get("usage"), event.get("choices")
        choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        if told is None and choices:
            told = choices[-1].get("usage")  # Moonshot's place for it
        if told is None and isinstance(groq := event.get("x_groq"), dict):
            told = groq.get("usage")
        if isinstance(told, dict) and any(count(told.get(name)) for name in _TOTALS):
            read_usage(self.usage, {**event, "usage": told})  # zeros may come behind what it took
        finished = any(choice.get("finish_reason") for choice in choices)
        if event.get("error"):
            self.complete = self.failed = True
        elif finished:
            self.complete = True

    def read_text(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.complete = True


class CompletionStream(ChatStream):
    """Of the oldest format, without roles: a chunk's choice is a piece of text."""

    content: ClassVar[bytes] = b'"text":'

    def content_in(self, part: bytes) -> int:
        return sum(map(len, _COMPLETIONS.findall(part)))


class OpenAIAnswer(JSONMeter):
    @property
    def sent(self) -> int:
        return 0 if self.begun else super().sent  # its present length does not measure it

    def read(self, answer: dict[str, Any]) -> None:
        read_usage(self.usage, answer)
        self.stored = stored_response(answer)
        nothing = answer.get("error") or answer.get("choices", ()) is None  # as MiniMax says that there is no credit
        if nothing and not self.usage.total_input:  # otherwise it reports what it took
            self.failed = True
        if answer.get("status") in ("queued", "in_progress") and self.stored:
            self.begun = self.stored[0]

    def read_overlong(self, start: bytes, end: bytes) -> None:
        super().read_overlong(start, end)
        self.stored = _kept(start, end)


class BackgroundStream(ResponsesStream):
    """A background response, read again: all of it, or what came after an event."""

    sees_end = False
    consumes = False
    complete = True
    content: ClassVar[bytes] = b""

    def feed(self, data: bytes) -> None:
        SSEMeter.feed(self, data)

    def read(self, event: dict[str, Any]) -> None:
        if event.get("type") in _LAST_TYPES and isinstance(response := event.get("response"), dict):
            self.over = told_over(response)

    def read_overlong(self, start: bytes, end: bytes) -> None:
        super().read_overlong(start, end)
        if self.stored and self.usage.total_input:
            self.over = (Over(self.stored[0], (self.usage,)),)


_CREATES = re.compile(rb'\s*\{\s*"type"\s*:\s*"response\.create"')
LARGE = 128 * 1024
"""Bytes of a message that is searched instead of parsed."""
LONGEST = 256
"""Characters of a stream's id: the client chooses it, and it is kept for as long as its turns run."""
_KIND = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z_.]{1,64})"')
_BESIDE = frozenset({"response.cancel", "response.steer", "response.inject", "response.processed"})
"""Messages that begin nothing. With the last one Codex says that it has read an answer."""
_GOES_ON = re.compile(rb'"previous_response_id"\s*:\s*"')
_STREAM = re.compile(rb'"stream_id"\s*:\s*("(?:[^"\\]|\\.)*")')


class ResponsesSocket(MessageMeter):
    """A Responses socket: a turn for each `response.create`, a lane for each `stream_id`."""

    def __init__(self, turn: Callable[[], SSEMeter]) -> None:
        super().__init__(turn)
        self._streams = False
        """The client has named a stream."""
        self._told_ids: deque[bytes] = deque(maxlen=self.most_told)
        """Of the answers that were over last: some upstreams tell of an end twice."""

    def begins(self, message: bytes) -> bool:
        if _CREATES.match(message):
            return True
        if len(message) > LARGE:  # 16 MB would take the loop 0.1 s to parse; an escaped letter may hide the word
            return self.complete or b'"response.create"' in message or b"\\u" in message
        told = json_object(message)
        if told is None:
            return True  # the upstream may read more than this
        return told.get("type") == "response.create" or (self.complete and told.get("type") not in _BESIDE)

    def tells_nothing(self, message: bytes) -> bool:
        return (kind := _KIND.match(message)) is not None and kind[1].decode() in PREAMBLE

    def begins_unasked(self, message: bytes) -> bool:
        """What a client steers an answer with goes into another one, which begins when the first is over. And an answer
        goes on behind an error that was about something else, such as a message that the upstream does not know: its
        end is found here if it was not told before."""
        kind = _KIND.match(message)
        if kind is None or kind[1] == b"response.created":
            return kind is not None
        one = _RESPONSE_ID.search(message, 0, EDGE) if kind[1] in _WHOLE else None
        return one is not None and one[1] not in self._told_ids

    def feed(self, data: bytes) -> None:
        super().feed(data)
        if self.ended and (one := _RESPONSE_ID.search(data, 0, EDGE)):
            self._told_ids.append(one[1])

    def goes_on(self, message: bytes) -> bool:
        return _GOES_ON.search(message) is not None

    def lane(self, message: bytes) -> str:
        if not self._streams or (match := _STREAM.search(message)) is None:
            return ""
        return _text(match[1])

    def asked(self, message: bytes) -> None:
        self._streams = self._streams or b'"stream_id"' in message
        super().asked(message)


def _text(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted))[:LONGEST]
    except ValueError:
        return ""
