"""What pictures, transcripts and answers in the background take: only what their usage says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.metering.estimates import Estimates
from aimux.metering.record import RequestRecord
from aimux.plugin import Meter, RequestHead, Usage
from aimux.plugin.formats import openai

USAGE = {"input_tokens": 50, "output_tokens": 4_160, "input_tokens_details": {"image_tokens": 40}}
PICTURE = "iVBOR" * 400_000
PLACES = ("/v1/images/generations", "/v1/images/edits", "/v1/audio/transcriptions", "/audio/translations")


def meter_for(path: str, content_type: str) -> Meter:
    head = RequestHead("POST", path, CIMultiDict())
    meter = openai.meter(head, 200, CIMultiDict({"content-type": content_type}))
    assert meter is not None
    return meter


def fed(meter: Meter, raw: bytes, piece: int = 65_536) -> Usage:
    for begin in range(0, len(raw), piece):
        meter.feed(raw[begin : begin + piece])
    meter.end()
    return Estimates().usage(RequestRecord("", 0.0, "POST", "/"), meter)


def answer(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("piece", [7_000, 65_536, 10_000_000])
def test_the_usage_behind_a_picture_is_read(path: str, piece: int) -> None:
    meter = meter_for(path, "application/json")
    assert fed(meter, answer(created=1, data=[{"b64_json": PICTURE}], usage=USAGE), piece) == Usage("", 50, 4_160)
    assert meter.consumes
    assert meter.complete


@pytest.mark.parametrize("path", PLACES)
def test_where_nothing_is_told_a_picture_is_not_taken_for_words(path: str) -> None:
    assert fed(meter_for(path, "application/json"), answer(data=[{"b64_json": PICTURE}])) == Usage()
    spoken = answer(text='"usage": {"input_tokens": 7}', usage={"type": "duration", "seconds": 3})
    assert fed(meter_for(path, "application/json"), spoken) == Usage()


@pytest.mark.parametrize("size", [1, 4_000_000], ids=["short", "beyond what is parsed"])
@pytest.mark.parametrize("first", ["model", "data"])
def test_embeddings_count_what_they_say_however_many_they_are(size: int, first: str) -> None:
    """2,048 texts at once are 75 MB of numbers."""
    members = {"model": b'"model":"text-embedding-3-large",', "data": b'"data":[' + b"0.0123456," * size + b"0],"}
    parts = [members.pop(first), *members.values()]
    raw = b'{"object":"list",' + b"".join(parts) + b'"usage":{"prompt_tokens":8,"total_tokens":8}}'
    assert fed(meter_for("/v1/embeddings", "application/json"), raw) == Usage("text-embedding-3-large", 8)


@pytest.mark.parametrize(
    "kind", ["image_generation.completed", "image_edit.completed", "transcript.text.done", "speech.audio.done"]
)
@pytest.mark.parametrize("size", [10, 9 * 1024 * 1024])
def test_so_is_the_one_of_a_streams_last_event(kind: str, size: int) -> None:
    partial = {"type": "image_generation.partial_image", "b64_json": PICTURE[:1000]}
    last = {"type": kind, "b64_json": "x" * size, "usage": USAGE}
    raw = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), answer(**e)) for e in (partial, last))  # type: ignore[attr-defined]
    for place in (PLACES[0], "/v1/audio/speech"):
        assert fed(meter_for(place, "text/event-stream"), raw) == Usage("", 50, 4_160)
    assert meter_for(PLACES[0], "text/event-stream").complete, "no last event is missed"


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_an_answer_that_goes_on_in_the_background_is_no_measure(status: str) -> None:
    begun = {"id": "resp_1", "status": status, "model": "gpt-5.5", "instructions": "x" * 4_000, "usage": None}
    meter = meter_for("/v1/responses", "application/json")
    assert fed(meter, answer(**begun)) == Usage("gpt-5.5")
    assert meter.stored == ("resp_1",)
    whole = fed(meter_for("/v1/responses", "application/json"), answer(**{**begun, "status": "completed"}))
    assert whole.estimated
