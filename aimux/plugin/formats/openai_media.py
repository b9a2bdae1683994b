"""What OpenAI's pictures, embeddings, transcripts, speech and calls took, some of them not sold by the token."""

from __future__ import annotations

import re
from math import ceil
from typing import Any, ClassVar

from aimux.plugin.formats.openai_meters import BEGINNING
from aimux.plugin.formats.openai_usage import painted, read_usage, seconds
from aimux.plugin.meters import EDGE, JSONMeter, Meter
from aimux.plugin.reading import MODEL, json_object, object_behind
from aimux.plugin.sse_meter import SSEMeter
from aimux.plugin.stored import ids_in_path

SPOKEN, SOUND = 15, 20
"""Characters of a text that are spoken in a second, and tokens that such a second is."""
_DURATION = re.compile(rb'"duration"\s*:\s*"?([0-9]{1,7}(?:\.[0-9]{1,20})?)[",}\s]')
_SUBTITLE = re.compile(rb"-->\s*(?:([0-9]{1,3}):)?([0-9]{2}):([0-9]{2}[.,][0-9]{1,3})")


def media_meter(path: str, kind: str) -> Meter | None:
    """For an answer of this media type; None: it took nothing."""
    if kind == "text/event-stream":
        return PictureStream() if "/images/" in path else MediaStream()
    if path.endswith(("/transcriptions", "/translations")):
        return None if kind == "text/html" else TranscriptAnswer()
    if kind == "application/json":
        return PictureAnswer() if "/images/" in path else MediaAnswer()
    return SpeechAnswer() if path.endswith("/speech") else None


class MediaAnswer(Meter):
    """Pictures and embeddings: usage comes after what may be megabytes of them, which are not parsed for it."""

    sees_end = False
    complete = True

    def __init__(self) -> None:
        super().__init__()
        self._start = b""
        self._end = b""

    def feed(self, data: bytes) -> None:
        if len(self._start) < BEGINNING:
            self._start += data[: BEGINNING - len(self._start)]
        self._end = data[-EDGE:] if len(data) >= EDGE else (self._end + data)[-EDGE:]

    def end(self) -> None:
        drawn = object_behind(b"svg_usage", self._end)  # it names another model
        model = None if drawn else MODEL.search(self._end) or MODEL.search(self._start)
        told = {"usage": self.told(object_behind(b"usage", self._end)), "svg_usage": drawn}
        read_usage(self.usage, {"model": model and model[1].decode(), **told})

    def told(self, usage: dict[str, Any] | None) -> dict[str, Any] | None:
        """A usage as it is to be read."""
        return usage


class PictureAnswer(MediaAnswer):
    """Where no usage tells of tokens, pictures are sold apiece, by size and quality."""

    def told(self, usage: dict[str, Any] | None) -> dict[str, Any] | None:
        return usage and painted(usage)

    def end(self) -> None:
        super().end()
        self.usage.unknown = not self.usage.anything


class TranscriptAnswer(MediaAnswer):
    """What was said, as JSON, plain text or subtitles. Where no usage tells how long it took, its own length does, the
    last subtitle's time, or else how much was said."""

    def __init__(self) -> None:
        super().__init__()
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        super().feed(data)

    def end(self) -> None:
        super().end()
        usage = self.usage
        if usage.anything or not self._size:
            return
        usage.estimated = True
        if told := _DURATION.search(self._start):
            usage.seconds = seconds(told[1].decode())
        elif times := _SUBTITLE.findall(self._end):
            hours, minutes, rest = times[-1]
            usage.seconds = int(hours or 0) * 3600 + int(minutes) * 60 + seconds(rest.replace(b",", b".").decode())
        else:
            usage.seconds = round(self._size / SPOKEN) or 1


class SpeechAnswer(Meter):
    """Sound as a file, which says nothing of what it took: the text to be spoken does."""

    sees_end = False
    complete = True
    reads_request = True

    def asked(self, message: bytes) -> None:
        told, usage = json_object(message) or {}, self.usage
        text, manner, model = told.get("input"), told.get("instructions"), told.get("model")
        if not isinstance(text, str) or not text:
            usage.unknown = True
        elif isinstance(model, str) and model.startswith("gpt-"):  # sold by the token, where others are by the letter
            said = len(text) + (len(manner) if isinstance(manner, str) else 0)
            usage.input_tokens, usage.output_tokens = ceil(said / 4), ceil(len(text) / SPOKEN * SOUND)
            usage.estimated = True
        else:
            usage.characters = len(text)


class UnseenCall(JSONMeter):
    """The beginning of a call whose sound does not come through aimux."""

    sent = 0

    def __init__(self, location: str) -> None:
        """`location`: where the call is, by which anybody could listen or hang up."""
        super().__init__()
        self.usage.unknown = True
        self.stored = ids_in_path(location)

    def read(self, answer: dict[str, Any]) -> None:
        session = answer.get("session")
        if isinstance(session, dict) and isinstance(one := session.get("id"), str):
            self.stored += (one,)


class SearchAnswer(Meter):
    """What a search of the web found. It costs as one that a model makes as a tool; its answer says nothing of that."""

    sees_end = False
    complete = True

    def __init__(self) -> None:
        super().__init__()
        self.usage.server_tools = 1


class MediaStream(SSEMeter):
    """Pictures, transcripts and speech as events; the last one has the usage. That event has several names, none of
    which may be missed."""

    sees_end = False
    complete = True
    needles: ClassVar[tuple[bytes, ...]] = (b'"usage"',)

    def read(self, event: dict[str, Any]) -> None:
        read_usage(self.usage, event)

    def read_overlong(self, start: bytes, end: bytes) -> None:
        self.read({"usage": object_behind(b"usage", end)})


class PictureStream(MediaStream):
    def read(self, event: dict[str, Any]) -> None:
        if isinstance(usage := event.get("usage"), dict):
            super().read({**event, "usage": painted(usage)})
